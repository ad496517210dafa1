//! `POST /score`: rewards and preferences.

mod reply;
mod request;

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap};
use polyreward_service::Scorer;

use self::{reply::ScoreReply, request::ScoreRequest};
use crate::{
    extract::JsonBody,
    limits::{Deadline, Limits},
    problem::Problem,
};

/// Scores responses to prompts.
///
/// Two responses as `pairs`, or any number as `items`; a result for each, in their order. `preference` is the
/// calibrated probability that `response_a` is preferred to `response_b`: swapping them gives `1 - preference`
/// exactly. Whose reward it is, `user_id`, `user_ids` or `audience` says; without them it is the population's. A field
/// that is null counts as absent.
#[utoipa::path(post, path = "/score", tag = "scoring", operation_id = "score", request_body = ScoreRequest, params(
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s; more counts as 100 s", minimum = 1),
    ("grpc-timeout" = Option<String>, Header, description = "The same as gRPC writes it, for example `5S`"),
), responses(
    (status = 200, description = "A result for each pair or item", body = ScoreReply, headers(
        ("x-model-version" = String, description = "The model that answered, as `name@version`"),
        ("x-user-state-version" = u64, description = "Version of the user's state; 0 is the population; absent where several people are asked for"),
    )),
))]
#[tracing::instrument(name = "http.score", skip_all, fields(entries = body.len()))]
pub(crate) async fn score(
    State(scorer): State<Scorer>,
    State(limits): State<Arc<Limits>>,
    deadline: Deadline,
    JsonBody(body): JsonBody<ScoreRequest>,
) -> Result<(HeaderMap, Json<ScoreReply>), Problem> {
    let (query, places) = body.into_query(&limits, deadline)?;
    let outcome = scorer.score(query).await.map_err(|error| places.problem(error))?;
    let headers = reply::version_headers(&outcome);
    Ok((headers, Json(ScoreReply::new(outcome, places)?)))
}
