//! `POST /v1/chat/completions` as NVIDIA's NIM asks a reward model: the conversation ends with the response, and what would
//! be generated is its reward.

use axum::response::Response;
use polyreward_domain::Overflow;
use polyreward_service::RewardScale;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ask::{Ask, Asking, Entries},
    openai::{TokenUsage, answer, not_supported},
    parameters::CompatParams,
    text::{ChatMessage, conversation},
};
use crate::{extract::JsonBody, problem::Problem};

/// A conversation that ends with the response; what else steers generation is not looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with messages")]
#[schema(example = json!({"messages": [{"role": "user", "content": "Name a fish."}, {"role": "assistant", "content": "A trout."}]}))]
pub(crate) struct ChatRequest {
    /// The model, as `name` or `name@version`.
    model: Option<String>,
    messages: Vec<ChatMessage>,
    /// Cannot be true.
    stream: Option<bool>,
    /// 1.
    n: Option<u64>,
    /// Whose reward.
    user: Option<String>,
    /// Whose reward.
    user_id: Option<String>,
}

/// The reward of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatReply {
    id: String,
    #[schema(example = "chat.completion")]
    object: &'static str,
    /// Seconds since 1970.
    created: i64,
    /// The model that answered, as `name@version`.
    model: String,
    choices: [Choice; 1],
    usage: TokenUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct Choice {
    index: usize,
    message: Completion,
    logprobs: Attributes,
    #[schema(example = "stop")]
    finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct Completion {
    #[schema(example = "assistant")]
    role: &'static str,
    #[schema(example = "reward:1.25,prob:0.78")]
    content: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RewardAttributes)]
struct Attributes {
    content: [Attribute; 2],
}

/// A number in the place of a token's probability.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RewardAttribute)]
struct Attribute {
    /// `reward`, raw, or `prob`, the mean preference against the model's reference responses.
    #[schema(example = "reward")]
    token: &'static str,
    logprob: f32,
    #[schema(value_type = Vec<u8>)]
    bytes: &'static [u8],
    #[schema(value_type = Vec<Object>)]
    top_logprobs: [(); 0],
}

impl Attribute {
    fn of(token: &'static str, number: f32) -> Self {
        Self { token, logprob: number, bytes: token.as_bytes(), top_logprobs: [] }
    }
}

/// A reward for clients of NIM's reward models.
///
/// The last message is the assistant's, and it is judged; nothing is generated. Texts too long are refused.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "compatibility", operation_id = "chat_completions",
    request_body = ChatRequest, params(CompatParams),
    responses((status = 200, description = "The reward", body = ChatReply)))]
#[tracing::instrument(name = "http.chat_completions", skip_all)]
pub(crate) async fn chat_completions(
    asking: Asking,
    JsonBody(body): JsonBody<ChatRequest>,
) -> Result<Response, Problem> {
    let parameters = asking.parameters(&[])?;
    if body.stream == Some(true) {
        return Err(not_supported("/stream", "a reward comes at once"));
    }
    if body.n.is_some_and(|n| n != 1) {
        return Err(not_supported("/n", "a response has one reward"));
    }
    let whose =
        parameters.whose(&[("/user", body.user.as_deref()), ("/user_id", body.user_id.as_deref())])?;
    let mut entries = Entries::default();
    let (prompt, response) = conversation(body.messages, "/messages")?;
    let prompt = entries.prompt("/messages", prompt);
    entries.push("/messages".to_owned(), &prompt, response);
    let rewards = asking
        .score(Ask {
            model: parameters.model(body.model.as_deref())?,
            whose,
            scale: RewardScale::Raw,
            also: Some(RewardScale::WinRate),
            overflow: parameters.on_overflow.unwrap_or(Overflow::Error),
            entries,
        })
        .await?;
    let (reward, prob) = (rewards.values()[0], rewards.others()[0]);
    let choice = Choice {
        index: 0,
        message: Completion { role: "assistant", content: format!("reward:{reward},prob:{prob}") },
        logprobs: Attributes { content: [Attribute::of("reward", reward), Attribute::of("prob", prob)] },
        finish_reason: "stop",
    };
    let reply = ChatReply {
        id: asking.id("chatcmpl"),
        object: "chat.completion",
        created: asking.created,
        choices: [choice],
        usage: TokenUsage::of(&rewards),
        model: rewards.model,
    };
    Ok(answer(rewards.headers, reply))
}
