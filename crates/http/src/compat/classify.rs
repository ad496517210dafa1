//! `POST /classify`, a path that vLLM, SGLang and infinity share, told apart by the body.

use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ask::Asking,
    infinity::{self, InfinityClassifyReply},
    keys::Keys,
    parameters::CompatParams,
    sglang::{self, SglangClassifyReply, SglangClassifyRequest},
    vllm::{self, ClassifyReply, ClassifyRequest, TextParams},
};
use crate::{
    extract::{JsonBytes, parse},
    problem::Problem,
};

/// Formats of `/classify`, with the fields that only they have.
const FORMATS: &[(&str, &[&str])] = &[("vLLM", &["input", "messages"]), ("SGLang", &["text", "input_ids"])];

/// A body of vLLM (`input` or `messages`), of infinity (a list as `input`, with `raw_scores`) or of SGLang (`text`).
#[derive(Deserialize, ToSchema)]
#[schema(as = ClassifyBody, example = json!({"input": "<|user|>\nhi<|end|>\n<|assistant|>\nhello!<|end|>", "activation": false}))]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: the body decides, and each format has a handler")]
pub(crate) enum ClassifyBody {
    Vllm(ClassifyRequest),
    Sglang(SglangClassifyRequest),
}

/// An answer in the format of the body.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: the body decides, and each format has a handler")]
pub(crate) enum ClassifyAnswer {
    Vllm(ClassifyReply),
    Infinity(InfinityClassifyReply),
    Sglang(SglangClassifyReply),
}

/// Rewards for clients of vLLM, SGLang and infinity.
///
/// The body says whose format it is, and the answer is in the same; fields of two formats are refused. A text is read as it
/// is, or taken apart into turns where `template` names what it is written in; messages go through the backbone's template.
#[utoipa::path(post, path = "/classify", tag = "compatibility", operation_id = "classify", request_body = ClassifyBody,
    params(CompatParams, TextParams),
    responses((status = 200, description = "A reward for each text", body = ClassifyAnswer)))]
#[tracing::instrument(name = "http.classify", skip_all)]
pub(crate) async fn classify(asking: Asking, JsonBytes(body): JsonBytes) -> Result<Response, Problem> {
    let keys = Keys::of(&body)?;
    match keys.format(FORMATS)? {
        1 => sglang::classify(&asking, parse(&body)?).await,
        _ if keys.has("raw_scores") => infinity::classify(&asking, parse(&body)?).await,
        _ => vllm::classify(&asking, parse(&body)?).await,
    }
    .map(IntoResponse::into_response)
}
