//! Bodies and headers as values: a JSON body within its limits, the deadline, query parameters.

use std::{fmt, str::FromStr, sync::Arc};

use axum::{
    extract::{
        FromRef, FromRequest, FromRequestParts, Path as UrlPath, Request, path::ErrorKind,
        rejection::PathRejection,
    },
    http::{HeaderMap, header, request::Parts},
};
use serde::de::{DeserializeOwned, IgnoredAny, IntoDeserializer};
use serde_path_to_error::{Path, Segment};
use sha2::{Digest, Sha256};

use crate::{
    limits::{BodyBudget, Deadline, Limits, discard_refused, read_body},
    problem::{InputFault, Problem, ProblemType},
};

/// A body that is JSON, of the type asked for; an error names the place by JSON Pointer and quotes no value.
pub(crate) struct JsonBody<T>(pub T);

/// The same with the SHA-256 of the body as it came, by which a repeated request is told from another one.
pub(crate) struct HashedJsonBody<T> {
    pub value: T,
    pub sha256: [u8; 32],
}

impl<S, T> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    Arc<Limits>: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        parse(&JsonBytes::from_request(request, state).await?.0).map(Self)
    }
}

impl<S, T> FromRequest<S> for HashedJsonBody<T>
where
    S: Send + Sync,
    Arc<Limits>: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBytes(bytes) = JsonBytes::from_request(request, state).await?;
        Ok(Self { value: parse(&bytes)?, sha256: Sha256::digest(&bytes).into() })
    }
}

/// The bytes of a body that is sent as JSON.
pub(crate) struct JsonBytes(pub Vec<u8>);

impl<S> FromRequest<S> for JsonBytes
where
    S: Send + Sync,
    Arc<Limits>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limits = Arc::<Limits>::from_ref(state);
        let (mut parts, body) = request.into_parts();
        let deadline = Deadline::from_request_parts(&mut parts, state).await?;
        if let Err(problem) = check_is_json(&parts.headers) {
            discard_refused(body, &limits).await;
            return Err(problem);
        }
        let budget = parts.extensions.get::<BodyBudget>();
        read_body(&parts.headers, body, &limits, budget, deadline.0).await.map(Self)
    }
}

impl<S> FromRequestParts<S> for Deadline
where
    S: Send + Sync,
    Arc<Limits>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // Set by `limits::admit`; a route outside of it has the server's own limit.
        let from_now = || Self(std::time::Instant::now() + Arc::<Limits>::from_ref(state).request_timeout);
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(from_now))
    }
}

/// Parts of the path as text; one that is not UTF-8 is refused by name.
pub(crate) struct PathText<T>(pub T);

impl<S, T> FromRequestParts<S> for PathText<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let rejection = match UrlPath::<T>::from_request_parts(parts, state).await {
            Ok(UrlPath(text)) => return Ok(Self(text)),
            Err(rejection) => rejection,
        };
        if let PathRejection::FailedToDeserializePathParams(error) = &rejection
            && let ErrorKind::InvalidUtf8InPathParam { key } = error.kind()
            && let Some(name) = PATH_PARAMETERS.into_iter().find(|name| name == key)
        {
            return Err(Problem::parameters(vec![(name, "is not UTF-8".to_owned())]));
        }
        Err(Problem::internal(&rejection))
    }
}

/// Names of the parts of paths that are not fixed.
const PATH_PARAMETERS: [&str; 3] = ["user_id", "example_id", "file"];

/// A part of the path as an id; one that no row can have is refused by name.
pub(crate) fn path_id<T: FromStr<Err: fmt::Display>>(name: &'static str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| Problem::parameters(vec![(name, error.to_string())]))
}

/// Query parameters by name; each may stand once, and no other may.
pub(crate) fn query_parameters<const N: usize>(
    query: Option<&str>,
    names: [&'static str; N],
) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in query_pairs(query)? {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let detail = format!("a parameter is unknown; there are {}", names.join(", "));
            return Err(Problem::new(ProblemType::InvalidParameter).detail(detail));
        };
        if values[at].replace(value).is_some() {
            return Err(Problem::parameters(vec![(names[at], "is given more than once".to_owned())]));
        }
    }
    Ok(values)
}

/// Names and values of a query, in their order.
pub(crate) fn query_pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Problem> {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri_of(query));
    pairs.map(|pairs| pairs.0).map_err(|_| {
        Problem::new(ProblemType::InvalidParameter).detail("the query is not pairs of names and values")
    })
}

fn uri_of(query: Option<&str>) -> axum::http::Uri {
    format!("/?{}", query.unwrap_or_default()).parse().unwrap_or_default()
}

fn check_is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemType::UnsupportedMediaType).detail(detail));
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refuse("a compressed body is not read; send it without content-encoding");
    }
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let is_json = essence == "application/json"
        || essence.strip_prefix("application/").is_some_and(|subtype| subtype.ends_with("+json"));
    if !is_json {
        return refuse("send the body with content-type: application/json");
    }
    let charset =
        parts.find_map(|part| part.strip_prefix("charset=").map(|name| name.trim_matches('"').to_owned()));
    if charset.is_some_and(|name| name != "utf-8" && name != "utf8") {
        return refuse("the body is read as UTF-8 alone");
    }
    Ok(())
}

/// Reads JSON; only where that fails, again with an eye on the place.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |detail: &dyn fmt::Display| Problem::new(ProblemType::MalformedJson).detail(detail);
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(malformed(&"the body is empty"));
    }
    // Messages about syntax are fixed phrases with line and column.
    if !error.is_data() {
        return Err(malformed(&error));
    }
    // The wrong value may stand before an end that is missing.
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| malformed(&error))?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => Err(malformed(&"the body is not as described")),
        Err(error) => {
            let (member, detail) = explain(&error.inner().to_string());
            let mut pointer = pointer_of(error.path());
            if let Some(member) = member {
                push(&mut pointer, &member);
            }
            Err(Problem::invalid(vec![InputFault::new(pointer, detail)]))
        }
    }
}

/// Reads a variant's name. As a field, an enum would take a number for broken JSON.
///
/// # Errors
/// Which names there are.
pub(crate) fn known_word<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    T::deserialize(IntoDeserializer::<serde::de::value::Error>::into_deserializer(word))
        .map_err(|error| explain(&error.to_string()).1)
}

/// RFC 6901.
fn pointer_of(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

/// What serde says, without the values it quotes: they may be somebody's text. Where it names a member that is
/// missing or doubled, the member.
fn explain(message: &str) -> (Option<String>, String) {
    let message = message.rfind(" at line ").map_or(message, |end| &message[..end]);
    // Everything after the last of these is written by us; what stands before may be the client's.
    let expected = message.rfind(", expected ").map(|at| &message[at + ", expected ".len()..]);
    let quoted = |rest: &str| rest.trim_matches('`').to_owned();
    if let Some(rest) = message.strip_prefix("missing field ") {
        return (Some(quoted(rest)), "is missing".to_owned());
    }
    if let Some(rest) = message.strip_prefix("duplicate field ") {
        return (Some(quoted(rest)), "is given more than once".to_owned());
    }
    if message.starts_with("unknown field ") {
        return (None, format!("is not a field here; expected {}", expected.unwrap_or("none")));
    }
    if message.starts_with("unknown variant ") {
        return (None, format!("is not known; expected {}", expected.unwrap_or("another")));
    }
    if let Some(rest) = message.strip_prefix("invalid type: ") {
        const KINDS: [(&str, &str); 7] = [
            ("string", "a string"),
            ("integer", "a number"),
            ("floating point", "a number"),
            ("boolean", "true or false"),
            ("null", "null"),
            ("sequence", "an array"),
            ("map", "an object"),
        ];
        let found = KINDS
            .iter()
            .find(|(start, _)| rest.starts_with(start))
            .map_or("of another type", |(_, kind)| kind);
        return (None, format!("is {found}; expected {}", expected.unwrap_or("something else")));
    }
    (
        None,
        expected.map_or_else(
            || "is not valid".to_owned(),
            |expected| format!("is not valid; expected {expected}"),
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, expecting = "an object with a text")]
    struct Inner {
        #[expect(dead_code, reason = "only read from JSON")]
        text: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only read from JSON")]
        list: Vec<Inner>,
        #[expect(dead_code, reason = "only read from JSON")]
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        One,
        Two,
    }

    fn fault_of(json: &str) -> (String, String) {
        let response = parse::<Outer>(json.as_bytes()).unwrap_err();
        let text = format!("{response:?}");
        assert!(!text.contains("SECRET"), "{text}");
        let fault = response.faults().first().cloned().expect("a fault");
        (fault.pointer.unwrap(), fault.detail)
    }

    #[test]
    fn an_error_points_at_its_place_and_quotes_no_value() {
        let cases = [
            (r#"{"list": [{"text": "a"}, {"text": 5}]}"#, "/list/1/text", "is a number; expected a string"),
            (r#"{"list": [{"text": ["SECRET"]}]}"#, "/list/0/text", "is an array; expected a string"),
            (r#"{"list": "SECRET, expected SECRET"}"#, "/list", "is a string; expected a sequence"),
            (r#"{"list": ["SECRET"]}"#, "/list/0", "is a string; expected an object with a text"),
            (r#"{"list": [{}]}"#, "/list/0/text", "is missing"),
            (r#"{"list": [{"text": "a", "text": "SECRET"}]}"#, "/list/0/text", "is given more than once"),
            (r#"{"list": [], "kind": "SECRET"}"#, "/kind", "is not known; expected `one` or `two`"),
            (
                r#"{"list": [], "a/~b": "SECRET"}"#,
                "/a~1~0b",
                "is not a field here; expected `list` or `kind`",
            ),
            ("5", "", "is a number; expected struct Outer"),
        ];
        for (json, pointer, detail) in cases {
            assert_eq!(fault_of(json), (pointer.to_owned(), detail.to_owned()), "{json}");
        }
    }

    #[test]
    fn what_is_not_json_is_told_apart_from_what_is_not_expected() {
        let kind = |bytes: &[u8]| parse::<Outer>(bytes).unwrap_err().kind();
        let deep = "[".repeat(5000);
        let surrogate = br#"{"list": [{"text": "\ud800"}]}"#;
        for bytes in [&b""[..], b" \n", b"{", b"{]", b"\xff", b"[1, 2", b"{} {}", surrogate] {
            assert_eq!(kind(bytes), ProblemType::MalformedJson);
        }
        assert_eq!(kind(b"{}"), ProblemType::InvalidInput);
        assert_eq!(
            parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().kind(),
            ProblemType::MalformedJson
        );
        assert_eq!(parse::<serde_json::Value>(b"1 2").unwrap_err().kind(), ProblemType::MalformedJson);
    }

    #[test]
    fn json_is_declared() {
        let check = |value: &str| {
            check_is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]))
        };
        for good in ["application/json", "Application/JSON; charset=\"UTF-8\"", "application/ld+json"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn query_parameters_are_known_and_stand_once() {
        let read = |query| query_parameters(Some(query), ["limit", "cursor"]);
        assert_eq!(read("limit=5&cursor=a%40b").unwrap(), [Some("5".to_owned()), Some("a@b".to_owned())]);
        assert_eq!(query_parameters(None, ["limit"]).unwrap(), [None]);
        assert!(read("limit=5&limit=6").is_err());
        assert!(read("limti=5").is_err());
    }
}
