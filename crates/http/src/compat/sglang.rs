//! SGLang's native `/classify`, and `/v1/embeddings`, where a reward model's embedding is its reward.

use axum::response::Response;
use polyreward_domain::Overflow;
use polyreward_service::RewardScale;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ask::{Ask, Asking, Entries},
    openai::{Encoding, TokenUsage, Vector, answer, check_dimensions, wrong},
    parameters::CompatParams,
    text::{IdsInput, TextInput, Whole, WholeInput},
    vllm::TextParams,
};
use crate::{
    extract::JsonBody,
    problem::{Problem, ProblemType},
};

/// Texts that a template has written; what else SGLang knows is not looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with text or input_ids")]
#[schema(example = json!({"text": "<|user|>\nhi<|end|>\n<|assistant|>\nhello!<|end|>"}))]
pub(crate) struct SglangClassifyRequest {
    /// The model, as `name` or `name@version`.
    #[schema(example = json!(null))]
    model: Option<String>,
    /// Instead of `input_ids`.
    #[schema(value_type = Option<TextInput>)]
    text: Option<WholeInput>,
    /// Instead of `text`.
    #[schema(value_type = Option<IdsInput>, example = json!(null))]
    input_ids: Option<IdsInput>,
    /// Whose reward.
    #[schema(example = "ada")]
    user_id: Option<String>,
}

/// A reward for each text of a list, or that of the one text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SglangClassifyReply {
    Many(Vec<SglangReward>),
    One(SglangReward),
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SglangReward {
    /// The raw reward alone.
    embedding: [f32; 1],
    meta_info: SglangMeta,
}

/// What a text cost.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SglangMeta {
    id: String,
    prompt_tokens: usize,
    /// Seconds from the head of the request to its rewards.
    e2e_latency: f64,
}

impl SglangMeta {
    pub fn of(asking: &Asking, prompt_tokens: usize) -> Self {
        let e2e_latency = asking.started.elapsed().as_secs_f64();
        Self { id: asking.id("classify"), prompt_tokens, e2e_latency }
    }
}

/// Rewards as SGLang's native API gives them.
pub(super) async fn classify(asking: &Asking, body: SglangClassifyRequest) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template"])?;
    let template = parameters.template()?;
    let (texts, alone) = match (body.text, body.input_ids) {
        (Some(text), None) if text.is_ids() => return Err(wrong("/text", "is text; ids stand in input_ids")),
        (Some(text), None) => filled(text, "/text")?,
        (None, Some(IdsInput(ids))) => filled(ids, "/input_ids")?,
        (Some(_), Some(_)) => return Err(wrong("/input_ids", "cannot stand beside text")),
        (None, None) => return Err(wrong("", "needs text or input_ids")),
    };
    let mut entries = Entries::default();
    for (pointer, whole) in texts {
        entries.push_input(pointer, whole, template);
    }
    let rewards = asking
        .score(Ask {
            model: parameters.model(body.model.as_deref())?,
            whose: parameters.whose(&[("/user_id", body.user_id.as_deref())])?,
            scale: RewardScale::Raw,
            also: None,
            overflow: parameters.on_overflow.unwrap_or(Overflow::Error),
            entries,
        })
        .await?;
    let one = |reward: &super::ask::Reward| SglangReward {
        embedding: [reward.value],
        meta_info: SglangMeta::of(asking, reward.tokens),
    };
    let mut each: Vec<SglangReward> = rewards.each.iter().map(one).collect();
    let reply =
        if alone { SglangClassifyReply::One(each.remove(0)) } else { SglangClassifyReply::Many(each) };
    Ok(answer(rewards.headers, reply))
}

/// Texts of which none is blank, which SGLang refuses.
fn filled(input: WholeInput, pointer: &str) -> Result<(Vec<(String, Whole)>, bool), Problem> {
    let (texts, alone) = input.into_wholes(pointer);
    let is_blank = |whole: &Whole| matches!(whole, Whole::Text(text) if text.trim().is_empty());
    match texts.iter().find(|(_, whole)| is_blank(whole)) {
        Some((pointer, _)) => Err(Problem::of_part(ProblemType::EmptyInput, pointer, "is blank")),
        None => Ok((texts, alone)),
    }
}

/// Texts that a template has written; what else OpenAI's clients send is not looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with input")]
#[schema(example = json!({"input": ["<|user|>\nhi<|end|>\n<|assistant|>\nhello!<|end|>"]}))]
pub(crate) struct EmbeddingsRequest {
    /// The model, as `name` or `name@version`.
    #[schema(example = json!(null))]
    model: Option<String>,
    #[schema(value_type = WholeInput)]
    input: WholeInput,
    /// `float` by default, or `base64`.
    #[schema(example = "float")]
    encoding_format: Option<String>,
    /// 1.
    #[schema(example = 1)]
    dimensions: Option<u64>,
    /// Whose reward.
    #[schema(example = json!(null))]
    user: Option<String>,
    /// Whose reward.
    #[schema(example = "ada")]
    user_id: Option<String>,
}

/// A reward for each text, as an embedding of one number.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingsReply {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<EmbeddingReply>,
    /// The model that answered, as `name@version`.
    model: String,
    usage: TokenUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingReply {
    #[schema(example = "embedding")]
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// Rewards for clients of SGLang's `/v1/embeddings`, as verl asks them.
///
/// The embedding is the raw reward, one number. Texts are read as they are, or taken apart into turns where `template` names
/// what they are written in.
#[utoipa::path(post, path = "/v1/embeddings", tag = "compatibility", operation_id = "embeddings",
    request_body = EmbeddingsRequest, params(CompatParams, TextParams),
    responses((status = 200, description = "A reward for each text", body = EmbeddingsReply)))]
#[tracing::instrument(name = "http.embeddings", skip_all)]
pub(crate) async fn embeddings(
    asking: Asking,
    JsonBody(body): JsonBody<EmbeddingsRequest>,
) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template"])?;
    let template = parameters.template()?;
    let encoding = Encoding::of(body.encoding_format.as_deref())?;
    check_dimensions(body.dimensions)?;
    let mut entries = Entries::default();
    for (pointer, whole) in filled(body.input, "/input")?.0 {
        entries.push_input(pointer, whole, template);
    }
    let rewards = asking
        .score(Ask {
            model: parameters.model(body.model.as_deref())?,
            whose: parameters
                .whose(&[("/user", body.user.as_deref()), ("/user_id", body.user_id.as_deref())])?,
            scale: RewardScale::Raw,
            also: None,
            overflow: parameters.on_overflow.unwrap_or(Overflow::Error),
            entries,
        })
        .await?;
    let embedding =
        |(index, reward)| EmbeddingReply { object: "embedding", index, embedding: encoding.write(reward) };
    let reply = EmbeddingsReply {
        object: "list",
        data: rewards.values().into_iter().enumerate().map(embedding).collect(),
        usage: TokenUsage::of(&rewards),
        model: rewards.model,
    };
    Ok(answer(rewards.headers, reply))
}
