//! `POST /rm`, as slime and miles ask it (`--rm-type remote_rm --rm-url`): one sample a request, and no header can be set.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use polyreward_domain::{Overflow, Prompt};
use polyreward_service::RewardScale;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    ask::{Ask, Asking, Entries},
    openrlhf::{Labels, whose_label},
    parameters::CompatParams,
    template::Template,
    text::PromptInput,
};
use crate::{extract::JsonBody, problem::Problem};

/// What the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// `{"score", "prob"}`, for `--reward-key score`.
    #[default]
    Object,
    /// The reward as a bare number, for a run without `--reward-key`.
    Number,
}

/// What the query string of `/rm` takes besides.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what the handler reads")]
pub(crate) struct SlimeParams {
    /// `object` by default, which needs slime's `--reward-key score`.
    #[param(inline)]
    shape: Option<Shape>,
    /// The template that a prompt of text is written in; by default it is read as it is.
    #[param(inline)]
    template: Option<Template>,
    /// What `label` is; ignored by default.
    #[param(inline)]
    labels: Option<Labels>,
}

/// A sample; what else it has is not looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with prompt and response")]
#[schema(example = json!({"prompt": "hi", "response": "hello!", "label": null}))]
pub(crate) struct RmRequest {
    /// The policy's prompt as text, with which `response` goes on, or the turns of a chat.
    prompt: PromptInput,
    /// The response.
    response: String,
    /// Whatever the data set has.
    #[serde(default)]
    #[schema(value_type = Option<Object>, required = false)]
    label: Value,
}

/// The reward of a sample, as `shape` asks for it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum RmReply {
    Object(RmScore),
    /// The raw reward.
    Number(f32),
}

/// The reward of a sample.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"score": 1.25, "prob": 0.78}))]
pub(crate) struct RmScore {
    /// The raw reward.
    score: f32,
    /// Mean preference against the model's reference responses, in [0, 1].
    prob: f32,
}

/// A reward for slime or miles.
///
/// A prompt of text is read as it is, with the response behind it; a chat goes through the backbone's template. Texts too
/// long are cut at their start.
#[utoipa::path(post, path = "/rm", tag = "compatibility", operation_id = "rm", request_body = RmRequest,
    params(CompatParams, SlimeParams), responses((status = 200, description = "The reward", body = RmReply)))]
#[tracing::instrument(name = "http.rm", skip_all)]
pub(crate) async fn rm(asking: Asking, JsonBody(body): JsonBody<RmRequest>) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["shape", "template", "labels"])?;
    let shape: Shape = parameters.word("shape")?.unwrap_or_default();
    let template = parameters.template()?;
    let labels: Labels = parameters.word("labels")?.unwrap_or_default();
    let whose = match labels {
        Labels::Ignore => parameters.whose(&[])?,
        Labels::UserId => whose_label(&parameters, "/label", &body.label)?,
    };
    let mut entries = Entries::default();
    match body.prompt {
        PromptInput::Text(prompt) if template != Template::Raw => {
            entries.push_whole("/response".to_owned(), prompt + &body.response, template);
        }
        PromptInput::Text(prompt) => {
            let prompt = entries.prompt("/prompt", Prompt::Raw(prompt));
            entries.push("/response".to_owned(), &prompt, body.response);
        }
        PromptInput::Chat(messages) => {
            let prompt = entries.prompt("/prompt", Prompt::Chat(messages));
            entries.push("/response".to_owned(), &prompt, body.response);
        }
    }
    let rewards = asking
        .score(Ask {
            model: parameters.model(None)?,
            whose,
            scale: RewardScale::Raw,
            also: Some(RewardScale::WinRate),
            overflow: parameters.on_overflow.unwrap_or(Overflow::Truncate),
            entries,
        })
        .await?;
    let (score, prob) = (rewards.values()[0], rewards.others()[0]);
    let reply = match shape {
        Shape::Object => RmReply::Object(RmScore { score, prob }),
        Shape::Number => RmReply::Number(score),
    };
    Ok((rewards.headers, Json(reply)).into_response())
}
