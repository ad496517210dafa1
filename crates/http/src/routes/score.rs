//! `POST /score`: rewards and preferences.

mod audience;
#[cfg(feature = "bench")]
pub(crate) mod floor;
mod reply;
mod request;

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use polyreward_service::{ScoreOutcome, Scorer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use self::{
    audience::{AggregateBody, AudienceBody, audience},
    reply::{
        AudienceReply, MODEL_VERSION, UsageReply, UserReply, single, version_headers, version_headers_of,
    },
    request::{Entries, Optional, OverflowBody, PairBody, Places, problem_of, score_problem},
};
use self::{reply::ScoreReply, request::ScoreRequest};
use crate::{
    aside::write_aside,
    auth::Authorized,
    compat::{Asking, CompatParams, Keys, vllm},
    extract::{JsonBytes, parse},
    limits::{Deadline, Limits},
    problem::{Problem, dialect::Dialect},
};

/// Our own body, or vLLM's.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(example = json!({
    "user_id": "ada",
    "pairs": [{"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish are tasty."}],
}))]
#[expect(dead_code, reason = "only described: the body decides, and each format has a handler")]
pub(crate) enum ScoreBody {
    Native(ScoreRequest),
    Vllm(vllm::ScoreRequest),
}

/// An answer in the format of the body.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: the body decides, and each format has a handler")]
pub(crate) enum ScoreAnswer {
    Native(ScoreReply),
    Vllm(vllm::ScoreReply),
}

/// Rewards from which on an answer is written by a thread that answers nobody else.
const LARGE: usize = 4096;

/// Scores responses to prompts.
///
/// Two responses as `pairs`, or any number as `items`; a result for each, in their order. `preference` is the
/// calibrated probability that `response_a` is preferred to `response_b`: swapping them gives `1 - preference`
/// exactly. Whose reward it is, `user_id`, `user_ids` or `audience` says; without them it is the population's. A field
/// that is null counts as absent.
///
/// A body with two lists, `queries` and `documents`, is vLLM's, and is answered in its format; only of such a body is the
/// query string read. A body with fields of both formats is refused.
#[utoipa::path(post, path = "/score", tag = "scoring", operation_id = "score", request_body = ScoreBody, params(
    CompatParams,
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s; more counts as 100 s", minimum = 1),
    ("grpc-timeout" = Option<String>, Header, description = "The same as gRPC writes it, for example `5S`"),
), responses(
    (status = 200, description = "A result for each pair or item", body = ScoreAnswer, headers(
        ("x-model-version" = String, description = "The model that answered, as `name@version`"),
        ("x-user-state-version" = String, description = "What the user's state was derived from, opaque: it changes when the examples do; 0 is the population. Of several people, of their states together"),
    )),
))]
#[tracing::instrument(name = "http.score", skip_all, fields(entries))]
pub(crate) async fn score(
    caller: Authorized,
    State(scorer): State<Scorer>,
    State(limits): State<Arc<Limits>>,
    deadline: Deadline,
    asking: Asking,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, Problem> {
    let body = match serde_json::from_slice::<ScoreRequest>(&bytes) {
        Ok(body) => body,
        // What is not ours may be vLLM's, which shares the path; else it is told what is wrong with it.
        Err(_) => match Keys::of(&bytes) {
            Ok(keys) if vllm::is_asked(&keys)? => {
                let answer = vllm::score(&asking, &keys, &bytes).await;
                return Ok(answer.unwrap_or_else(|problem| Dialect::OpenAi.respond(problem)));
            }
            _ => parse(&bytes)?,
        },
    };
    drop(bytes);
    tracing::Span::current().record("entries", body.len());
    let (query, places) = body.into_query(&limits, deadline)?;
    let outcome = scorer.score(&caller.0.tenant, query).await.map_err(|error| places.problem(error))?;
    let headers = reply::version_headers(&outcome);
    let json = write_aside(outcome.rewards >= LARGE, move || write(outcome, places)).await?;
    let json_type =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Ok((headers, json_type, json).into_response())
}

/// The answer as JSON. What the outcome held of the room for rewards is free after it.
fn write(mut outcome: ScoreOutcome, places: Places) -> Result<Vec<u8>, Problem> {
    let room = outcome.room.take();
    let reply = ScoreReply::new(outcome, places)?;
    let json = serde_json::to_vec(&reply).map_err(|error| Problem::internal(&error));
    drop(room);
    json
}
