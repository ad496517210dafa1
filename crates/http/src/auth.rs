//! Who asks: the key of a request, and what each route needs.
//!
//! Denied by default: a route that is not listed here answers nobody.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use polyreward_domain::Scope;
use polyreward_service::{Access, AccessError, Caller, Writer};

use crate::{
    limits::{Limits, discard_refused},
    problem::{Problem, ProblemType},
};

/// What a route needs of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: probes, and the description of the API.
    Nothing,
    /// A key, whatever it allows.
    AnyKey,
    /// A key that allows this.
    Scope(Scope),
}

/// What every route needs, by method and template; an alias stands for itself.
pub(crate) const NEEDS: &[(Method, &str, Need)] = &[
    (Method::GET, "/health", Need::Nothing),
    (Method::GET, "/livez", Need::Nothing),
    (Method::GET, "/ping", Need::Nothing),
    (Method::GET, "/v2/health/live", Need::Nothing),
    (Method::GET, "/ready", Need::Nothing),
    (Method::GET, "/readyz", Need::Nothing),
    (Method::GET, "/v2/health/ready", Need::Nothing),
    (Method::GET, "/openapi.json", Need::Nothing),
    (Method::GET, "/docs", Need::Nothing),
    (Method::GET, "/docs/", Need::Nothing),
    (Method::GET, "/docs/{*file}", Need::Nothing),
    (Method::GET, "/dashboard/assets/{file}", Need::Nothing),
    (Method::GET, "/dashboard/{*lost}", Need::Nothing),
    (Method::GET, "/", Need::Scope(Scope::Read)),
    (Method::GET, "/dashboard/models", Need::Scope(Scope::Read)),
    (Method::GET, "/dashboard/users/{user_id}", Need::Scope(Scope::Read)),
    (Method::GET, "/info", Need::AnyKey),
    (Method::GET, "/models", Need::AnyKey),
    (Method::GET, "/metrics", Need::Scope(Scope::Read)),
    (Method::POST, "/score", Need::Scope(Scope::Score)),
    (Method::POST, "/v1/score", Need::Scope(Scope::Score)),
    (Method::POST, "/tournament", Need::Scope(Scope::Score)),
    (Method::POST, "/get_reward", Need::Scope(Scope::Score)),
    (Method::POST, "/rm", Need::Scope(Scope::Score)),
    (Method::POST, "/classify", Need::Scope(Scope::Score)),
    (Method::POST, "/v1/classify", Need::Scope(Scope::Score)),
    (Method::POST, "/pooling", Need::Scope(Scope::Score)),
    (Method::POST, "/rerank", Need::Scope(Scope::Score)),
    (Method::POST, "/v1/rerank", Need::Scope(Scope::Score)),
    (Method::POST, "/v2/rerank", Need::Scope(Scope::Score)),
    (Method::POST, "/v1/embeddings", Need::Scope(Scope::Score)),
    (Method::POST, "/v1/chat/completions", Need::Scope(Scope::Score)),
    (Method::POST, "/predict", Need::Scope(Scope::Score)),
    (Method::POST, "/embed", Need::Scope(Scope::Score)),
    (Method::POST, "/users/{user_id}/queries", Need::Scope(Scope::Score)),
    (Method::POST, "/users/{user_id}/examples", Need::Scope(Scope::Write)),
    (Method::PUT, "/users/{user_id}", Need::Scope(Scope::Write)),
    (Method::DELETE, "/users/{user_id}", Need::Scope(Scope::Write)),
    (Method::DELETE, "/users/{user_id}/examples/{example_id}", Need::Scope(Scope::Write)),
    (Method::GET, "/users", Need::Scope(Scope::Read)),
    (Method::GET, "/users/{user_id}", Need::Scope(Scope::Read)),
    (Method::GET, "/users/{user_id}/examples", Need::Scope(Scope::Read)),
    (Method::GET, "/groups", Need::Scope(Scope::Read)),
    (Method::GET, "/accuracy", Need::Scope(Scope::Read)),
    (Method::GET, "/accuracy/shots", Need::Scope(Scope::Read)),
    (Method::GET, "/accuracy/timeline", Need::Scope(Scope::Read)),
    (Method::POST, "/evaluate", Need::Scope(Scope::Score)),
    (Method::POST, "/models/reload", Need::Scope(Scope::Admin)),
    (Method::PUT, "/models/default", Need::Scope(Scope::Admin)),
];

/// What a route needs, where it is listed.
pub(crate) fn need(method: &Method, template: &str) -> Option<Need> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    NEEDS.iter().find(|(known, path, _)| known == method && *path == template).map(|(_, _, need)| *need)
}

/// Lets a request in whose key allows what its route needs, and says who it is.
pub(crate) async fn authorize(
    State((access, limits)): State<(Access, Arc<Limits>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let template = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let need = template.as_deref().and_then(|template| need(request.method(), template));
    match admit(&access, request.headers(), need).await {
        Ok(None) => next.run(request).await,
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => {
            discard_refused(request.into_body(), &limits).await;
            problem.into_response()
        }
    }
}

async fn admit(access: &Access, headers: &HeaderMap, need: Option<Need>) -> Result<Option<Caller>, Problem> {
    if need == Some(Need::Nothing) {
        return Ok(None);
    }
    // On a server without keys, what a client sends of its own accord is not looked at.
    let open = access.is_open().await.map_err(|error| Problem::from(&error))?;
    let key = if open { None } else { key_of(headers)? };
    let caller = access.identify(key.as_deref()).await.map_err(|error| match &error {
        AccessError::Missing => Problem::new(ProblemType::Unauthorized).detail(HOW),
        AccessError::Invalid => Problem::new(ProblemType::Unauthorized).detail(&error),
        AccessError::Storage(error) => error.into(),
    })?;
    match need {
        Some(Need::AnyKey) => Ok(Some(caller)),
        Some(Need::Scope(scope)) if caller.may(scope) => Ok(Some(caller)),
        Some(Need::Scope(scope)) => {
            let detail = format!("the key lacks the scope {scope}");
            Err(Problem::new(ProblemType::Forbidden).detail(detail))
        }
        _ => Err(Problem::new(ProblemType::Forbidden).detail("no key allows this route")),
    }
}

/// How to send a key.
const HOW: &str = "send the key as Authorization: Bearer, X-API-Key, api-key, or the password of Basic";

/// The one key of a request; a header that is no key counts as none that is valid.
fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = || Problem::new(ProblemType::Unauthorized).detail(HOW);
    let mut keys: Vec<String> = Vec::new();
    for value in headers.get_all(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| invalid())?;
        let (scheme, rest) = text.split_once(' ').ok_or_else(invalid)?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            keys.push(rest.to_owned());
        } else if scheme.eq_ignore_ascii_case("basic") {
            let pair = BASE64_STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let (_user, password) =
                pair.as_deref().and_then(|pair| pair.split_once(':')).ok_or_else(invalid)?;
            keys.push(password.to_owned());
        } else {
            return Err(invalid());
        }
    }
    for name in ["x-api-key", "api-key"] {
        for value in headers.get_all(HeaderName::from_static(name)) {
            keys.push(value.to_str().map_err(|_| invalid())?.to_owned());
        }
    }
    keys.dedup();
    match keys.len() {
        0 => Ok(None),
        1 => Ok(keys.pop()),
        _ => Err(Problem::new(ProblemType::Unauthorized).detail("the request has more than one key")),
    }
}

/// Who asks, for handlers. [`authorize`] has put it there.
pub(crate) struct Authorized(pub Caller);

impl Authorized {
    /// For the audit log.
    pub fn writer(&self) -> Writer {
        Writer { tenant: self.0.tenant.clone(), key_id: self.0.key_id }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Authorized {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller
            .map(Self)
            .ok_or_else(|| Problem::new(ProblemType::Forbidden).detail("no key allows this route"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_route_of_the_document_has_one_row_and_every_row_a_route() {
        let document: Value = serde_json::from_str(&crate::openapi_json()).unwrap();
        let mut routes = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            routes
                .extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
        }
        // Files of pages; they are not in the document.
        routes.extend(
            ["/docs/", "/docs/{*file}", "/dashboard/assets/{file}", "/dashboard/{*lost}"]
                .map(|path| ("GET".to_owned(), path.to_owned())),
        );
        let rows: BTreeSet<_> =
            NEEDS.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned())).collect();
        assert_eq!(rows, routes);
        assert_eq!(rows.len(), NEEDS.len());
    }

    #[test]
    fn a_route_without_a_row_needs_what_no_key_has() {
        assert_eq!(need(&Method::GET, "/secrets"), None);
        assert_eq!(need(&Method::DELETE, "/users"), None);
        assert_eq!(need(&Method::HEAD, "/users"), Some(Need::Scope(Scope::Read)));
    }

    fn key(pairs: &[(&'static str, &str)]) -> Result<Option<String>, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        key_of(&headers)
    }

    #[test]
    fn a_key_is_taken_from_wherever_a_client_can_put_it() {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("any:pr_1"));
        let places = [
            [("authorization", "Bearer pr_1")],
            [("authorization", "bearer  pr_1")],
            [("authorization", basic.as_str())],
            [("x-api-key", "pr_1")],
            [("api-key", "pr_1")],
        ];
        for place in places {
            assert_eq!(key(&place).unwrap().as_deref(), Some("pr_1"), "{place:?}");
        }
        assert_eq!(key(&[]).unwrap(), None);
        assert_eq!(key(&[("x-api-key", "pr_1"), ("api-key", "pr_1")]).unwrap().as_deref(), Some("pr_1"));
    }

    #[test]
    fn what_is_no_key_or_more_than_one_is_refused() {
        for bad in ["Bearer", "Basic !!!", "Basic YW55", "Digest pr_1", ""] {
            assert!(key(&[("authorization", bad)]).is_err(), "{bad:?}");
        }
        assert!(key(&[("x-api-key", "pr_1"), ("authorization", "Bearer pr_2")]).is_err());
    }
}
