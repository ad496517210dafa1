//! text-embeddings-inference's `/predict`, `/embed`, and its bodies of `/rerank`.
//!
//! Texts too long are cut unless `truncate` is false, at their start: where the other end is named, they are refused. The
//! headers that say what an answer cost have what is measured here: tokenizing and waiting are part of the inference time.

mod inputs;

use std::time::Instant;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use polyreward_domain::{Overflow, Prompt};
use polyreward_service::RewardScale;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::inputs::{Input, PredictInputs};
use super::{
    ask::{Ask, Asking, Entries, Rewards},
    infinity::LabelledScore,
    openai::{answer, check_dimensions, not_supported, scale_of, wrong},
    parameters::{CompatParams, Parameters},
    rerank::ranked,
    text::WholeInput,
    vllm::TextParams,
};
use crate::{extract::JsonBody, problem::Problem};

/// A text, a pair, or several of either.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with inputs")]
#[schema(as = TeiPredictRequest, example = json!({"inputs": ["Name a fish.", "A trout."], "raw_scores": true}))]
pub(crate) struct PredictRequest {
    #[schema(value_type = PredictInputs)]
    inputs: PredictInputs,
    /// Whether longer texts are cut, as by default.
    truncate: Option<bool>,
    /// `left`; with `right`, texts that are too long are refused.
    truncation_direction: Option<String>,
    /// Whether rewards are raw; on the `win_rate` scale by default.
    raw_scores: Option<bool>,
    /// Whose reward.
    user_id: Option<String>,
}

/// The reward of one input, or of each of several, as the only class.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = TeiPredictReply)]
pub(crate) enum PredictReply {
    One([LabelledScore; 1]),
    Many(Vec<[LabelledScore; 1]>),
}

/// Rewards for clients of text-embeddings-inference's `/predict`.
///
/// `["a", "b"]` is one pair, a prompt with its response; `[["a"], ["b"]]` are two texts. A text is read as it is, or taken
/// apart into turns where `template` names what it is written in.
#[utoipa::path(post, path = "/predict", tag = "compatibility", operation_id = "predict", request_body = PredictRequest,
    params(CompatParams, TextParams),
    responses((status = 200, description = "A reward for each input", body = PredictReply)))]
#[tracing::instrument(name = "http.predict", skip_all)]
pub(crate) async fn predict(
    asking: Asking,
    JsonBody(body): JsonBody<PredictRequest>,
) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template"])?;
    let template = parameters.template()?;
    let scale = scale_of(&[("/raw_scores", body.raw_scores)])?;
    let overflow = overflow(&parameters, body.truncate, body.truncation_direction.as_deref())?;
    let (inputs, alone) = body.inputs.into_inputs();
    asking.check_batch(inputs.len())?;
    let mut entries = Entries::default();
    for (pointer, input) in inputs {
        match input {
            Input::Text(text) => entries.push_whole(pointer, text, template),
            Input::Pair(prompt, response) => {
                let prompt = entries.prompt(&format!("{pointer}/0"), Prompt::Text(prompt));
                entries.push(format!("{pointer}/1"), &prompt, response);
            }
        }
    }
    let characters = entries.characters;
    let whose = parameters.whose(&[("/user_id", body.user_id.as_deref())])?;
    let ask = Ask { model: parameters.model(None)?, whose, scale, also: None, overflow, entries };
    let (rewards, headers) = timed(&asking, characters, ask).await?;
    let mut each = rewards.values().into_iter().map(|score| [LabelledScore::of(score)]);
    let reply = match each.next() {
        Some(only) if alone => PredictReply::One(only),
        first => PredictReply::Many(first.into_iter().chain(each).collect()),
    };
    Ok(answer(headers, reply))
}

/// A prompt and the responses to sort.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with query and texts")]
#[schema(example = json!({"query": "Name a fish.", "texts": ["A trout.", "Fish are tasty."], "return_text": true}))]
pub(crate) struct TeiRerankRequest {
    /// The prompt.
    query: String,
    /// The responses.
    texts: Vec<String>,
    /// Whether rewards are raw; on the `win_rate` scale by default.
    raw_scores: Option<bool>,
    /// Whether the texts are repeated; not by default.
    return_text: Option<bool>,
    /// Whether longer texts are cut, as by default.
    truncate: Option<bool>,
    /// `left`; with `right`, texts that are too long are refused.
    truncation_direction: Option<String>,
    /// Whose reward.
    user_id: Option<String>,
}

/// A response in its place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TeiRanked {
    /// Position in the request.
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Responses to a prompt from the best to the worst.
pub(super) async fn rerank(asking: &Asking, body: TeiRerankRequest) -> Result<Response, Problem> {
    let parameters = asking.parameters(&[])?;
    let scale = scale_of(&[("/raw_scores", body.raw_scores)])?;
    let overflow = overflow(&parameters, body.truncate, body.truncation_direction.as_deref())?;
    asking.check_batch(body.texts.len())?;
    let mut entries = Entries::default();
    let prompt = entries.prompt("/query", Prompt::Text(body.query));
    for (at, text) in body.texts.iter().enumerate() {
        entries.push(format!("/texts/{at}"), &prompt, text.clone());
    }
    let characters = entries.characters;
    let whose = parameters.whose(&[("/user_id", body.user_id.as_deref())])?;
    let ask = Ask { model: parameters.model(None)?, whose, scale, also: None, overflow, entries };
    let (rewards, headers) = timed(asking, characters, ask).await?;
    let with_text = body.return_text == Some(true);
    let each = ranked(&rewards.each, usize::MAX).into_iter().map(|(index, reward)| TeiRanked {
        index,
        score: reward.value,
        text: with_text.then(|| body.texts[index].clone()),
    });
    Ok(answer(headers, each.collect::<Vec<_>>()))
}

/// Texts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with inputs")]
#[schema(as = TeiEmbedRequest, example = json!({"inputs": ["<|user|>\nhi<|end|>\n<|assistant|>\nhello!<|end|>"], "normalize": false}))]
pub(crate) struct EmbedRequest {
    #[schema(value_type = WholeInput)]
    inputs: WholeInput,
    /// Cannot be true: of a vector of one number only its sign would be left.
    normalize: Option<bool>,
    /// Cannot be given.
    #[schema(example = json!(null))]
    prompt_name: Option<String>,
    /// 1.
    dimensions: Option<u64>,
    /// Whether longer texts are cut, as by default.
    truncate: Option<bool>,
    /// `left`; with `right`, texts that are too long are refused.
    #[schema(example = "left")]
    truncation_direction: Option<String>,
    /// Whose reward.
    #[schema(example = "ada")]
    user_id: Option<String>,
}

/// Rewards for clients of text-embeddings-inference's `/embed`: each is a vector of one number, the raw reward.
#[utoipa::path(post, path = "/embed", tag = "compatibility", operation_id = "embed", request_body = EmbedRequest,
    params(CompatParams, TextParams),
    responses((status = 200, description = "A reward for each text", body = Vec<Vec<f32>>)))]
#[tracing::instrument(name = "http.embed", skip_all)]
pub(crate) async fn embed(
    asking: Asking,
    JsonBody(body): JsonBody<EmbedRequest>,
) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template"])?;
    let template = parameters.template()?;
    if body.normalize == Some(true) {
        return Err(not_supported("/normalize", "of a vector of one number only its sign would be left"));
    }
    if body.prompt_name.is_some() {
        return Err(not_supported("/prompt_name", "there are no prompts by name"));
    }
    check_dimensions(body.dimensions)?;
    let overflow = overflow(&parameters, body.truncate, body.truncation_direction.as_deref())?;
    let mut entries = Entries::default();
    for (pointer, whole) in body.inputs.into_wholes("/inputs").0 {
        entries.push_input(pointer, whole, template);
    }
    let characters = entries.characters;
    let ask = Ask {
        model: parameters.model(None)?,
        whose: parameters.whose(&[("/user_id", body.user_id.as_deref())])?,
        scale: RewardScale::Raw,
        also: None,
        overflow,
        entries,
    };
    let (rewards, headers) = timed(&asking, characters, ask).await?;
    let vectors: Vec<[f32; 1]> = rewards.values().into_iter().map(|reward| [reward]).collect();
    Ok(answer(headers, vectors))
}

/// What becomes of texts that are too long.
fn overflow(
    parameters: &Parameters,
    truncate: Option<bool>,
    direction: Option<&str>,
) -> Result<Overflow, Problem> {
    let by_body = match direction.map(str::to_ascii_lowercase).as_deref() {
        _ if truncate == Some(false) => Overflow::Error,
        None | Some("left") => Overflow::Truncate,
        // The reward is read at the end of a text: it is never cut there.
        Some("right") => Overflow::Error,
        Some(_) => return Err(wrong("/truncation_direction", "is left or right")),
    };
    Ok(parameters.on_overflow.unwrap_or(by_body))
}

/// Rewards, and headers that say what they cost.
async fn timed(asking: &Asking, characters: usize, ask: Ask) -> Result<(Rewards, HeaderMap), Problem> {
    let began = Instant::now();
    let mut rewards = asking.score(ask).await?;
    let inference_ms = began.elapsed().as_millis().to_string();
    let total_ms = asking.started.elapsed().as_millis().to_string();
    let mut headers = std::mem::take(&mut rewards.headers);
    let costs = [
        ("x-compute-type", "cpu".to_owned()),
        ("x-compute-time", inference_ms.clone()),
        ("x-compute-characters", characters.to_string()),
        ("x-compute-tokens", rewards.tokens().to_string()),
        ("x-total-time", total_ms),
        ("x-inference-time", inference_ms),
    ];
    for (name, value) in costs {
        let value = HeaderValue::from_str(&value).expect("digits and letters");
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok((rewards, headers))
}
