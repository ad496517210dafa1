//! vLLM's routes for pooling models: `/classify`, `/pooling`, and the bodies of `/score` and `/v1/score`.
//!
//! Upstream squashes scores unless `use_activation` is false: here that is the `win_rate` scale. Upstream refuses a text
//! longer than the window unless `truncate_prompt_tokens` is given; so does this.

mod pairs;

use axum::response::Response;
use polyreward_domain::{ModelSelector, Overflow};
use polyreward_service::{RewardScale, Whose};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub(crate) use self::pairs::{ScoreReply, ScoreRequest, is_asked, score};
use super::{
    ask::{Ask, Asking, Entries},
    openai::{
        Encoding, TokenUsage, Vector, answer, check_dimensions, cut_to, not_supported, scale_of, wrong,
    },
    parameters::{CompatParams, Parameters},
    template::Template,
    text::{ChatMessage, WholeInput, conversation},
};
use crate::{extract::JsonBody, problem::Problem};

/// What the query string takes besides where texts hold whole conversations.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what the handlers read")]
pub(crate) struct TextParams {
    /// The template that texts are written in; by default they are read as they are.
    #[param(inline)]
    template: Option<Template>,
}

/// Texts or one conversation; what else vLLM knows is not looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with input or messages")]
#[schema(as = VllmClassifyRequest, example = json!({"input": "<|user|>\nhi<|end|>\n<|assistant|>\nhello!<|end|>", "activation": false}))]
pub(crate) struct ClassifyRequest {
    /// The model, as `name` or `name@version`.
    #[schema(example = json!(null))]
    model: Option<String>,
    /// Texts that a template has written, or their ids.
    #[schema(value_type = Option<WholeInput>)]
    input: Option<WholeInput>,
    /// A conversation that ends with the response; instead of `input`.
    #[schema(example = json!(null))]
    messages: Option<Vec<ChatMessage>>,
    /// Texts of more tokens are cut at their start, to the last so many; -1 is the window. Without it, texts longer than the
    /// window are refused.
    #[schema(example = -1)]
    truncate_prompt_tokens: Option<i64>,
    /// Cannot be false beside texts as `input`: the token that opens a text is added where it is missing.
    add_special_tokens: Option<bool>,
    /// Whether rewards are on the `win_rate` scale, as by default, or raw.
    use_activation: Option<bool>,
    /// An older name of `use_activation`.
    activation: Option<bool>,
    /// An older name of `use_activation`.
    softmax: Option<bool>,
    /// Cannot be true.
    add_generation_prompt: Option<bool>,
    /// Cannot be given: the template is the backbone's.
    #[schema(value_type = Option<Object>, example = json!(null))]
    chat_template: Option<serde::de::IgnoredAny>,
    /// Cannot be given.
    #[schema(value_type = Option<Object>, example = json!(null))]
    chat_template_kwargs: Option<serde::de::IgnoredAny>,
    /// Whose reward.
    #[schema(example = json!(null))]
    user: Option<String>,
    /// Whose reward.
    #[schema(example = "ada")]
    user_id: Option<String>,
    /// Of `/pooling`: `float` by default, or `base64`.
    #[schema(example = "float")]
    encoding_format: Option<String>,
    /// Of `/pooling`: 1.
    #[schema(example = 1)]
    dimensions: Option<u64>,
}

/// A reward for each text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmClassifyReply)]
pub(crate) struct ClassifyReply {
    id: String,
    #[schema(example = "list")]
    object: &'static str,
    /// Seconds since 1970.
    created: i64,
    /// The model that answered, as `name@version`.
    model: String,
    data: Vec<ClassReply>,
    usage: TokenUsage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmClass)]
struct ClassReply {
    index: usize,
    #[schema(example = "reward")]
    label: &'static str,
    /// The reward alone.
    probs: [f32; 1],
    num_classes: usize,
}

/// A reward for each text, as vectors of one number.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmPoolingReply)]
pub(crate) struct PoolingReply {
    id: String,
    #[schema(example = "list")]
    object: &'static str,
    /// Seconds since 1970.
    created: i64,
    /// The model that answered, as `name@version`.
    model: String,
    data: Vec<PooledReply>,
    usage: TokenUsage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmPooled)]
struct PooledReply {
    index: usize,
    #[schema(example = "pooling")]
    object: &'static str,
    data: Vector,
}

/// What vLLM's bodies say beside their texts.
struct Said {
    model: Option<ModelSelector>,
    whose: Whose,
    scale: RewardScale,
    overflow: Overflow,
}

impl Said {
    fn ask(self, entries: Entries) -> Ask {
        let Self { model, whose, scale, overflow } = self;
        Ask { model, whose, scale, also: None, overflow, entries }
    }
}

impl ClassifyRequest {
    fn said(&self, parameters: &Parameters, window: usize) -> Result<Said, Problem> {
        if self.add_generation_prompt == Some(true) {
            return Err(not_supported("/add_generation_prompt", "a reward is of a response that is there"));
        }
        for (pointer, given) in [
            ("/chat_template", self.chat_template.is_some()),
            ("/chat_template_kwargs", self.chat_template_kwargs.is_some()),
        ] {
            if given {
                return Err(not_supported(pointer, "the template is the backbone's own"));
            }
        }
        if self.add_special_tokens == Some(false) && self.input.as_ref().is_some_and(|input| !input.is_ids())
        {
            let detail = "the token that opens a text is added where it is missing, and only there";
            return Err(not_supported("/add_special_tokens", detail));
        }
        let raw = |flag: Option<bool>| flag.map(|on| !on);
        let cut = cut_to("/truncate_prompt_tokens", self.truncate_prompt_tokens, window)?;
        Ok(Said {
            model: parameters.model(self.model.as_deref())?,
            whose: parameters
                .whose(&[("/user", self.user.as_deref()), ("/user_id", self.user_id.as_deref())])?,
            scale: scale_of(&[
                ("/use_activation", raw(self.use_activation)),
                ("/activation", raw(self.activation)),
                ("/softmax", raw(self.softmax)),
            ])?,
            overflow: parameters.on_overflow.or(cut).unwrap_or(Overflow::Error),
        })
    }

    fn into_entries(self, template: Template) -> Result<Entries, Problem> {
        let mut entries = Entries::default();
        match (self.input, self.messages) {
            (Some(input), None) => {
                for (pointer, whole) in input.into_wholes("/input").0 {
                    entries.push_input(pointer, whole, template);
                }
            }
            (None, Some(messages)) => {
                let (prompt, response) = conversation(messages, "/messages")?;
                let prompt = entries.prompt("/messages", prompt);
                entries.push("/messages".to_owned(), &prompt, response);
            }
            (Some(_), Some(_)) => return Err(wrong("/messages", "cannot stand beside input")),
            (None, None) => return Err(wrong("", "needs input or messages")),
        }
        Ok(entries)
    }
}

/// Rewards as classes of one.
pub(super) async fn classify(asking: &Asking, body: ClassifyRequest) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template"])?;
    let template = parameters.template()?;
    let said = body.said(&parameters, asking.window)?;
    let rewards = asking.score(said.ask(body.into_entries(template)?)).await?;
    let class = |(index, reward)| ClassReply { index, label: "reward", probs: [reward], num_classes: 1 };
    let reply = ClassifyReply {
        id: asking.id("classify"),
        object: "list",
        created: asking.created,
        data: rewards.values().into_iter().enumerate().map(class).collect(),
        usage: TokenUsage::of(&rewards),
        model: rewards.model,
    };
    Ok(answer(rewards.headers, reply))
}

/// Rewards for clients of vLLM's `/pooling`, as vectors of one number.
#[utoipa::path(post, path = "/pooling", tag = "compatibility", operation_id = "pooling", request_body = ClassifyRequest,
    params(CompatParams, TextParams),
    responses((status = 200, description = "A reward for each text", body = PoolingReply)))]
#[tracing::instrument(name = "http.pooling", skip_all)]
pub(crate) async fn pooling(
    asking: Asking,
    JsonBody(body): JsonBody<ClassifyRequest>,
) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template"])?;
    let template = parameters.template()?;
    let encoding = Encoding::of(body.encoding_format.as_deref())?;
    check_dimensions(body.dimensions)?;
    let said = body.said(&parameters, asking.window)?;
    let rewards = asking.score(said.ask(body.into_entries(template)?)).await?;
    let pooled = |(index, reward)| PooledReply { index, object: "pooling", data: encoding.write(reward) };
    let reply = PoolingReply {
        id: asking.id("pool"),
        object: "list",
        created: asking.created,
        data: rewards.values().into_iter().enumerate().map(pooled).collect(),
        usage: TokenUsage::of(&rewards),
        model: rewards.model,
    };
    Ok(answer(rewards.headers, reply))
}
