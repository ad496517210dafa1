//! `POST /get_reward`, as OpenRLHF's `--reward.remote_url` asks it: one sample a request, sometimes none, and no header can be
//! set. Every answer has the same numbers in `extra_logs`, of which OpenRLHF makes tensors.

use axum::{
    Json,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use polyreward_domain::{Attributes, Overflow, Prompt};
use polyreward_service::{RewardScale, Whose};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    ask::{Ask, Asking, Entries, Reward},
    parameters::{CompatParams, Parameters},
    template::Template,
};
use crate::{
    extract::JsonBody,
    metrics,
    problem::{InputFault, Problem, ProblemType},
};

/// What the labels of samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Labels {
    /// Nothing to us.
    #[default]
    Ignore,
    /// Whose reward a sample gets: a user's id, `{"user_id": "ada"}` or `{"group": {"country": "UK"}}`; nobody's where it is
    /// empty or null.
    UserId,
}

/// The scale of `scores`, which OpenRLHF filters samples by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScoreScale {
    /// Mean preference against the model's reference responses, in [0, 1].
    #[default]
    WinRate,
    /// The rewards once more.
    Raw,
}

/// What the query string of `/get_reward` takes besides.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what the handler reads")]
pub(crate) struct OpenRlhfParams {
    /// The template that `query` is written in; by default it is scored as it is.
    #[param(inline)]
    template: Option<Template>,
    /// What `labels` are; ignored by default.
    #[param(inline)]
    labels: Option<Labels>,
    /// The scale of `scores`; `win_rate` by default.
    #[param(inline)]
    scores: Option<ScoreScale>,
}

/// Samples; lists of one length, which is 1 or 0 in practice.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with query")]
#[schema(example = json!({
    "query": ["<|user|>\nhi<|end|>\n<|assistant|>\nhello!<|end|>"],
    "prompts": ["<|user|>\nhi<|end|>\n<|assistant|>\n"],
    "labels": ["u-17"],
}))]
pub(crate) struct GetRewardRequest {
    /// The whole text of each sample, prompt and response.
    query: Vec<String>,
    /// The prompt of each, with which its text begins; one that does not is scored as a whole.
    prompts: Option<Vec<String>>,
    /// One for each sample.
    #[schema(value_type = Option<Vec<Object>>)]
    labels: Option<Vec<Value>>,
}

/// A reward for each sample.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"rewards": [1.25], "scores": [0.78], "extra_logs": {"reward_std": 0.31}}))]
pub(crate) struct GetRewardReply {
    rewards: Vec<f32>,
    /// Between 0 and 1, unless raw ones are asked for.
    scores: Vec<f32>,
    extra_logs: ExtraLogs,
}

/// Numbers that OpenRLHF logs; none where there is no sample.
#[derive(Debug, Default, Serialize, ToSchema)]
struct ExtraLogs {
    /// Mean over the samples of the reward's standard deviation: of one person's posterior, or among the members of a
    /// group.
    #[serde(skip_serializing_if = "Option::is_none")]
    reward_std: Option<f32>,
}

/// Rewards for OpenRLHF.
///
/// `query` holds whole texts that the policy's template has written: they are scored as they are, or taken apart into turns
/// where `template` names it. Texts too long are cut at their start.
#[utoipa::path(post, path = "/get_reward", tag = "compatibility", operation_id = "get_reward",
    request_body = GetRewardRequest, params(CompatParams, OpenRlhfParams),
    responses((status = 200, description = "A reward for each sample", body = GetRewardReply)))]
#[tracing::instrument(name = "http.get_reward", skip_all, fields(entries = body.query.len()))]
pub(crate) async fn get_reward(
    asking: Asking,
    JsonBody(body): JsonBody<GetRewardRequest>,
) -> Result<Response, Problem> {
    let mut parameters = asking.parameters(&["template", "labels", "scores"])?;
    let template = parameters.template()?;
    let labels: Labels = parameters.word("labels")?.unwrap_or_default();
    let scale: ScoreScale = parameters.word("scores")?.unwrap_or_default();
    let samples = body.query.len();
    asking.check_batch(samples)?;
    check_lengths(&body)?;
    let turns = turns(&parameters, labels, body.labels.as_deref(), samples)?;

    let mut prompts = body.prompts.map(Vec::into_iter);
    let mut texts: Vec<Option<(String, Option<String>)>> = body
        .query
        .into_iter()
        .map(|query| Some((query, prompts.as_mut().and_then(Iterator::next))))
        .collect();
    let mut rewards: Vec<Option<Reward>> = vec![None; samples];
    let mut headers = HeaderMap::new();
    for (whose, members) in turns {
        let mut entries = Entries::default();
        for at in &members {
            let (query, prompt) = texts[*at].take().expect("each sample is one person's or group's");
            push(&mut entries, *at, query, prompt, template);
        }
        let scored = asking
            .score(Ask {
                model: parameters.model(None)?,
                whose,
                scale: RewardScale::Raw,
                also: Some(RewardScale::WinRate),
                overflow: parameters.on_overflow.unwrap_or(Overflow::Truncate),
                entries,
            })
            .await?;
        for (at, reward) in members.into_iter().zip(scored.each) {
            rewards[at] = Some(reward);
        }
        headers = scored.headers;
    }
    let rewards: Vec<Reward> = rewards.into_iter().flatten().collect();
    Ok((headers, Json(reply(&rewards, scale))).into_response())
}

fn reply(rewards: &[Reward], scale: ScoreScale) -> GetRewardReply {
    let score = |reward: &Reward| match scale {
        ScoreScale::WinRate => reward.also.expect("both scales were asked for"),
        ScoreScale::Raw => reward.value,
    };
    let deviations: f32 = rewards.iter().map(|reward| reward.deviation).sum();
    let reward_std = (!rewards.is_empty()).then(|| deviations / rewards.len() as f32);
    GetRewardReply {
        rewards: rewards.iter().map(|reward| reward.value).collect(),
        scores: rewards.iter().map(score).collect(),
        extra_logs: ExtraLogs { reward_std },
    }
}

fn check_lengths(body: &GetRewardRequest) -> Result<(), Problem> {
    let mut faults = Vec::new();
    let lengths =
        [("/prompts", body.prompts.as_ref().map(Vec::len)), ("/labels", body.labels.as_ref().map(Vec::len))];
    for (pointer, length) in lengths {
        if length.is_some_and(|length| length != body.query.len()) {
            faults.push(InputFault::new(pointer, "has as many entries as query"));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
}

fn push(entries: &mut Entries, at: usize, query: String, prompt: Option<String>, template: Template) {
    let pointer = format!("/query/{at}");
    if template != Template::Raw {
        entries.push_whole(pointer, query, template);
        return;
    }
    let response = prompt.as_ref().map(|prompt| query.strip_prefix(prompt.as_str()).map(str::to_owned));
    match (prompt, response) {
        (Some(prompt), Some(Some(response))) => {
            let prompt = entries.prompt(&format!("/prompts/{at}"), Prompt::Raw(prompt));
            entries.push(pointer, &prompt, response);
        }
        (prompt, _) => {
            if prompt.is_some() {
                metrics::whole_text("prefix");
            }
            entries.push_whole(pointer, query, template);
        }
    }
}

/// The samples of each person or group in turn.
fn turns(
    parameters: &Parameters,
    labels: Labels,
    of_samples: Option<&[Value]>,
    samples: usize,
) -> Result<Vec<(Whose, Vec<usize>)>, Problem> {
    let mut turns: Vec<(Whose, Vec<usize>)> = Vec::new();
    for at in 0..samples {
        let label = of_samples.map(|labels| &labels[at]).filter(|_| labels == Labels::UserId);
        let whose = match label {
            Some(label) => whose_label(parameters, &format!("/labels/{at}"), label)?,
            None => parameters.whose(&[])?,
        };
        match turns.iter_mut().find(|(other, _)| *other == whose) {
            Some((_, members)) => members.push(at),
            None => turns.push((whose, vec![at])),
        }
    }
    Ok(turns)
}

/// Whose reward a label asks for.
pub(super) fn whose_label(parameters: &Parameters, pointer: &str, label: &Value) -> Result<Whose, Problem> {
    let wrong = |below: &str, detail: &str| {
        Problem::invalid(vec![InputFault::new(format!("{pointer}{below}"), detail)])
    };
    match label {
        Value::Null => parameters.whose(&[]),
        Value::String(user_id) => parameters.whose(&[(pointer, Some(user_id))]),
        // A column of numbers.
        Value::Number(number) if number.is_u64() => parameters.whose(&[(pointer, Some(&number.to_string()))]),
        Value::Object(members) => match (members.get("user_id"), members.get("group")) {
            (Some(Value::String(user_id)), None) => {
                parameters.whose(&[(&format!("{pointer}/user_id"), Some(user_id))])
            }
            (None, Some(group)) => {
                let group = Attributes::deserialize(group)
                    .map_err(|_| wrong("/group", "is an object of texts, as {\"country\": \"UK\"}"))?;
                parameters.whose_group(&format!("{pointer}/group"), group)
            }
            (Some(_), Some(_)) => {
                Err(Problem::of_part(ProblemType::Contradiction, pointer, "names a person and a group"))
            }
            _ => Err(wrong("", "names a user_id or a group")),
        },
        _ => Err(wrong("", "is a user's id, or an object with user_id or group")),
    }
}
