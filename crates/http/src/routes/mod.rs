//! One file a route.

mod accuracy;
mod docs;
mod evaluate;
mod groups;
mod health;
mod info;
mod metrics;
mod models;
mod ready;
pub(crate) mod score;
mod tournament;
mod users;

use std::sync::Arc;

use axum::{
    Router,
    extract::FromRef,
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodRouter, get, post},
};
use polyreward_service::Access;
use tower::ServiceBuilder;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::authorize,
    compat, dashboard, headers,
    limits::{Admission, Limits, admit},
    metrics as request_metrics,
    problem::{self, Problem, ProblemType},
    request_id,
    state::{AppState, Readiness},
};

pub(crate) use accuracy::checked_min_n;

/// Other paths of a route, for probes and clients that know another server.
pub(crate) const ALIASES: [(&str, &str); 9] = [
    ("/livez", "/health"),
    ("/ping", "/health"),
    ("/readyz", "/ready"),
    ("/v1/classify", "/classify"),
    ("/v1/rerank", "/rerank"),
    ("/v1/score", "/score"),
    ("/v2/health/live", "/health"),
    ("/v2/health/ready", "/ready"),
    ("/v2/rerank", "/rerank"),
];

/// Probes among them, which answer however busy the server is.
const PROBES: [&str; 2] = ["/health", "/ready"];

/// Routes that answer however busy the server is.
pub(crate) fn probes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(health::health))
        .routes(routes!(ready::ready))
        .routes(routes!(metrics::metrics))
}

/// Routes with a place among the requests in flight, a deadline and a limit on the body.
pub(crate) fn bounded() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(score::score))
        .routes(routes!(tournament::tournament))
        .routes(routes!(compat::openrlhf::get_reward))
        .routes(routes!(compat::slime::rm))
        .routes(routes!(compat::classify::classify))
        .routes(routes!(compat::vllm::pooling))
        .routes(routes!(compat::rerank::rerank))
        .routes(routes!(compat::sglang::embeddings))
        .routes(routes!(compat::tei::predict))
        .routes(routes!(compat::tei::embed))
        .routes(routes!(compat::nim::chat_completions))
        .routes(routes!(users::list))
        .routes(routes!(users::get, users::put, users::erase))
        .routes(routes!(users::examples::list, users::examples::add))
        .routes(routes!(users::examples::erase))
        .routes(routes!(users::queries::rank))
        .routes(routes!(groups::list))
        .routes(routes!(accuracy::accuracy))
        .routes(routes!(accuracy::shots))
        .routes(routes!(accuracy::timeline))
        .routes(routes!(evaluate::evaluate))
        .routes(routes!(models::list))
        .routes(routes!(models::reload))
        .routes(routes!(models::set_default))
        .routes(routes!(info::info))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::docs))
}

fn aliases(bounded: bool) -> Router<AppState> {
    let handler = |target: &str| -> MethodRouter<AppState> {
        match target {
            "/health" => get(health::health),
            "/ready" => get(ready::ready),
            "/score" => post(score::score),
            "/classify" => post(compat::classify::classify),
            "/rerank" => post(compat::rerank::rerank),
            other => unreachable!("{other} has no alias"),
        }
    };
    ALIASES
        .iter()
        .filter(|(_, target)| bounded != PROBES.contains(target))
        .fold(Router::new(), |router, (alias, target)| router.route(alias, handler(target)))
}

/// Every route, ready to serve.
pub fn router(state: AppState) -> Router {
    let admission = (Admission::from_ref(&state), Arc::<Limits>::from_ref(&state));
    let access = (Access::from_ref(&state), Arc::<Limits>::from_ref(&state));
    let authorized = from_fn_with_state(access, authorize);
    let pages = Router::from(dashboard::pages())
        .route("/dashboard/assets/{file}", get(dashboard::file))
        .route("/dashboard/{*lost}", get(dashboard::lost))
        .route_layer(authorized.clone())
        .route_layer(from_fn_with_state(admission.clone(), admit))
        .route_layer(from_fn(dashboard::as_page))
        .route_layer(CompressionLayer::new());
    // Whoever waits for a slow database to say who they are has a place among the requests in flight, too.
    let bounded = Router::from(bounded())
        .merge(aliases(true))
        .route("/docs/{*file}", get(docs::file))
        .route("/docs/", get(docs::index))
        .route_layer(authorized.clone())
        .route_layer(from_fn_with_state(admission, admit));
    let routes = Router::from(probes())
        .merge(aliases(false))
        .route_layer(authorized)
        .merge(bounded)
        .merge(pages)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    with_envelope(routes, state.readiness()).with_state(state)
}

/// What every request passes on its way, from outside: id, metrics, headers, the words of errors, panics.
pub(crate) fn with_envelope<S>(routes: Router<S>, readiness: &Readiness) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.layer(
        ServiceBuilder::new()
            .layer(from_fn(request_id::identify))
            .layer(from_fn(request_metrics::measure))
            .layer(from_fn_with_state(readiness.clone(), headers::add))
            .layer(from_fn(problem::dialect::translate))
            .layer(CatchPanicLayer::custom(problem::panicked)),
    )
}

async fn not_found() -> Problem {
    Problem::new(ProblemType::NotFound)
}

async fn method_not_allowed() -> Problem {
    Problem::new(ProblemType::MethodNotAllowed)
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, Response},
    };
    use tower::ServiceExt;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the-secret-cause")]
    struct Cause;

    async fn reply_of(routes: Router) -> Response<Body> {
        let request = Request::get("/").body(Body::empty()).unwrap();
        with_envelope(routes, &Readiness::default()).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_and_an_internal_error_keep_their_detail_to_themselves() {
        async fn panics() -> &'static str {
            panic!("the-secret-panic")
        }
        async fn fails() -> Problem {
            Problem::internal(&Cause)
        }
        for handler in [get(panics), get(fails)] {
            let reply = reply_of(Router::new().route("/", handler)).await;
            assert_eq!(reply.status(), 500);
            assert_eq!(reply.headers()["content-type"], problem::PROBLEM_JSON);
            assert!(reply.headers().contains_key("x-request-id"));
            let body = to_bytes(reply.into_body(), usize::MAX).await.unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains("/problems/internal") && !text.contains("secret"), "{text}");
        }
    }
}
