//! infinity's `/classify`; its `/rerank` is in [`super::rerank`].

use axum::response::Response;
use polyreward_domain::Overflow;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ask::{Ask, Asking, Entries},
    openai::{TokenUsage, answer, scale_of, wrong},
};
use crate::problem::Problem;

/// Texts.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with input")]
pub(crate) struct InfinityClassifyRequest {
    model: Option<String>,
    input: Vec<String>,
    raw_scores: Option<bool>,
    user_id: Option<String>,
}

/// A reward for each text, as the only class of each.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InfinityClassifyReply {
    #[schema(example = "classify")]
    object: &'static str,
    data: Vec<[LabelledScore; 1]>,
    /// The model that answered, as `name@version`.
    model: String,
    usage: TokenUsage,
    id: String,
    /// Seconds since 1970.
    created: i64,
}

/// A reward as the score of a class.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LabelledScore {
    pub score: f32,
    #[schema(example = "reward")]
    pub label: &'static str,
}

impl LabelledScore {
    pub fn of(score: f32) -> Self {
        Self { score, label: "reward" }
    }
}

pub(super) async fn classify(asking: &Asking, body: InfinityClassifyRequest) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template"])?;
    let template = parameters.template()?;
    if body.input.is_empty() {
        return Err(wrong("/input", "has at least one text"));
    }
    let mut entries = Entries::default();
    for (at, text) in body.input.into_iter().enumerate() {
        entries.push_whole(format!("/input/{at}"), text, template);
    }
    let rewards = asking
        .score(Ask {
            model: parameters.model(body.model.as_deref())?,
            whose: parameters.whose(&[("/user_id", body.user_id.as_deref())])?,
            scale: scale_of(&[("/raw_scores", body.raw_scores)])?,
            also: None,
            overflow: parameters.on_overflow.unwrap_or(Overflow::Truncate),
            entries,
        })
        .await?;
    let reply = InfinityClassifyReply {
        object: "classify",
        data: rewards.values().into_iter().map(|score| [LabelledScore::of(score)]).collect(),
        usage: TokenUsage::of(&rewards),
        model: rewards.model,
        id: asking.id("classify"),
        created: asking.created,
    };
    Ok(answer(rewards.headers, reply))
}
