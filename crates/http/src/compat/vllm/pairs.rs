//! vLLM's bodies of `/score` and `/v1/score`: prompts and responses in two lists.

use std::sync::Arc;

use axum::response::Response;
use polyreward_domain::{Overflow, Prompt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        ask::{Asking, Entries},
        keys::{Keys, ambiguous},
        openai::{TokenUsage, answer, cut_to, cut_to_window, not_supported, scale_of, wrong},
        parameters::Parameters,
        text::TextInput,
    },
    Said,
};
use crate::{extract::parse, problem::Problem};

/// Prompts and responses in two lists, under one of three pairs of names.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with queries and documents")]
#[schema(as = VllmScoreRequest, example = json!({"queries": "Name a fish.", "documents": ["A trout.", "Fish are tasty."], "use_activation": false}))]
pub(crate) struct ScoreRequest {
    /// The model, as `name` or `name@version`.
    #[schema(example = json!(null))]
    model: Option<String>,
    /// A prompt for all responses, or one for each.
    #[serde(alias = "text_1", alias = "data_1")]
    #[schema(value_type = TextInput)]
    queries: TextInput,
    /// The responses.
    #[serde(alias = "items", alias = "text_2", alias = "data_2")]
    #[schema(value_type = TextInput)]
    documents: TextInput,
    /// A prompt and its response of more tokens are cut at their start, to the last so many; -1 is the window. Without it,
    /// those longer than the window are refused.
    truncate_prompt_tokens: Option<i64>,
    /// At least the window, or 0 for it.
    max_tokens_per_query: Option<i64>,
    /// At least the window, or 0 for it.
    max_tokens_per_doc: Option<i64>,
    /// Whether rewards are on the `win_rate` scale, as by default, or raw.
    use_activation: Option<bool>,
    /// An older name of `use_activation`.
    activation: Option<bool>,
    /// Whose reward.
    #[schema(example = json!(null))]
    user: Option<String>,
    /// Whose reward.
    #[schema(example = "ada")]
    user_id: Option<String>,
}

/// A reward for each response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmScoreReply)]
pub(crate) struct ScoreReply {
    id: String,
    #[schema(example = "list")]
    object: &'static str,
    /// Seconds since 1970.
    created: i64,
    /// The model that answered, as `name@version`.
    model: String,
    data: Vec<PairReply>,
    usage: TokenUsage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmPairScore)]
struct PairReply {
    index: usize,
    #[schema(example = "score")]
    object: &'static str,
    score: f32,
}

/// Names of the two lists: each pair of them is one way to ask.
const LISTS: [[&str; 2]; 4] =
    [["queries", "documents"], ["queries", "items"], ["text_1", "text_2"], ["data_1", "data_2"]];
/// Fields that only the native format has, of those that make a body of its own.
const NATIVE: [&str; 6] = ["pairs", "user_ids", "audience", "reward_scale", "on_overflow", "partial"];

/// Whether a body of `/score` is vLLM's, which the native format is told from by its fields alone.
///
/// # Errors
/// It could be both, or it is SGLang's, which asks for something else.
pub(crate) fn is_asked(keys: &Keys) -> Result<bool, Problem> {
    if keys.has("label_token_ids") {
        return Err(not_supported("/label_token_ids", "SGLang's scores of tokens are not rewards"));
    }
    let ours = ["queries", "documents", "query", "text_1", "text_2", "data_1", "data_2"];
    let Some(field) = keys.among(&ours).first().copied() else { return Ok(false) };
    let native = keys.among(&NATIVE).first().copied();
    // Items stand in both formats: beside queries they are vLLM's documents.
    let native = native.or_else(|| keys.has("items").then_some("items").filter(|_| field != "queries"));
    match native {
        Some(native) => Err(ambiguous([("this server", native), ("vLLM", field)])),
        None => Ok(true),
    }
}

/// Rewards of responses to prompts.
pub(crate) async fn score(asking: &Asking, keys: &Keys, body: &[u8]) -> Result<Response, Problem> {
    check_lists(keys)?;
    let body: ScoreRequest = parse(body)?;
    let parameters = asking.parameters(&[])?;
    let said = body.said(&parameters, asking.window)?;
    let names = names_of(keys);
    let rewards = asking.score(said.ask(entries(asking, body, names)?)).await?;
    let pair = |(index, score)| PairReply { index, object: "score", score };
    let reply = ScoreReply {
        id: asking.id("score"),
        object: "list",
        created: asking.created,
        data: rewards.values().into_iter().enumerate().map(pair).collect(),
        usage: TokenUsage::of(&rewards),
        model: rewards.model,
    };
    Ok(answer(rewards.headers, reply))
}

/// Refuses a body that could be read in two ways.
fn check_lists(keys: &Keys) -> Result<(), Problem> {
    let mut whole = LISTS.into_iter().filter(|lists| keys.among(lists).len() == 2);
    if let (Some(one), Some(other)) = (whole.next(), whole.next()) {
        let name = |lists: [&str; 2]| format!("vLLM with {} and {}", lists[0], lists[1]);
        let differs = usize::from(one[1] != other[1]);
        return Err(ambiguous([(&name(one), one[differs]), (&name(other), other[differs])]));
    }
    Ok(())
}

/// What the body calls its lists.
fn names_of(keys: &Keys) -> [&'static str; 2] {
    LISTS.into_iter().find(|lists| keys.among(lists).len() == 2).unwrap_or(LISTS[0])
}

impl ScoreRequest {
    fn said(&self, parameters: &Parameters, window: usize) -> Result<Said, Problem> {
        let raw = |flag: Option<bool>| flag.map(|on| !on);
        let unless_none = |tokens: Option<i64>| tokens.filter(|tokens| *tokens != 0);
        let cuts = [
            cut_to("/truncate_prompt_tokens", self.truncate_prompt_tokens, window)?,
            cut_to_window("/max_tokens_per_query", unless_none(self.max_tokens_per_query), window)?,
            cut_to_window("/max_tokens_per_doc", unless_none(self.max_tokens_per_doc), window)?,
        ];
        let cut = cuts.into_iter().flatten().next();
        Ok(Said {
            model: parameters.model(self.model.as_deref())?,
            whose: parameters
                .whose(&[("/user", self.user.as_deref()), ("/user_id", self.user_id.as_deref())])?,
            scale: scale_of(&[
                ("/use_activation", raw(self.use_activation)),
                ("/activation", raw(self.activation)),
            ])?,
            overflow: parameters.on_overflow.or(cut).unwrap_or(Overflow::Error),
        })
    }
}

/// One prompt for all responses, or one for each.
fn entries(
    asking: &Asking,
    body: ScoreRequest,
    [of_prompts, of_responses]: [&str; 2],
) -> Result<Entries, Problem> {
    let prompts = body.queries.into_texts(&format!("/{of_prompts}"))?;
    let responses = body.documents.into_texts(&format!("/{of_responses}"))?;
    asking.check_batch(responses.len())?;
    if prompts.len() != 1 && prompts.len() != responses.len() {
        let detail = format!(
            "has {} entries for {} in {of_prompts}; there is one of those, or one for each",
            responses.len(),
            prompts.len()
        );
        return Err(wrong(&format!("/{of_responses}"), &detail));
    }
    let mut entries = Entries::default();
    let prompts: Vec<Arc<Prompt>> =
        prompts.into_iter().map(|(pointer, text)| entries.prompt(&pointer, Prompt::Text(text))).collect();
    for (at, (pointer, response)) in responses.into_iter().enumerate() {
        let prompt = &prompts[if prompts.len() == 1 { 0 } else { at }];
        entries.push(pointer, prompt, response);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ProblemType;

    fn asked(body: &str) -> Result<bool, ProblemType> {
        let keys = Keys::of(body.as_bytes()).unwrap();
        is_asked(&keys).and_then(|asked| check_lists(&keys).map(|()| asked)).map_err(|problem| problem.kind())
    }

    #[test]
    fn a_body_of_score_is_of_one_format_or_refused() {
        let cases = [
            (r#"{"pairs": []}"#, Ok(false)),
            (r#"{"items": []}"#, Ok(false)),
            ("{}", Ok(false)),
            (r#"{"queries": "a", "documents": "b"}"#, Ok(true)),
            (r#"{"queries": "a", "items": "b"}"#, Ok(true)),
            (r#"{"text_1": "a", "text_2": "b"}"#, Ok(true)),
            (r#"{"data_1": "a", "data_2": "b", "pairs": null}"#, Ok(true)),
            (r#"{"queries": "a", "documents": "b", "pairs": []}"#, Err(ProblemType::AmbiguousBody)),
            (r#"{"queries": "a", "documents": "b", "reward_scale": "raw"}"#, Err(ProblemType::AmbiguousBody)),
            (r#"{"query": "a", "items": ["b"]}"#, Err(ProblemType::AmbiguousBody)),
            (r#"{"queries": "a", "items": "b", "documents": "c"}"#, Err(ProblemType::AmbiguousBody)),
            (
                r#"{"queries": "a", "documents": "b", "text_1": "a", "text_2": "b"}"#,
                Err(ProblemType::AmbiguousBody),
            ),
            (r#"{"query": "a", "items": ["b"], "label_token_ids": [1]}"#, Err(ProblemType::NotSupported)),
        ];
        for (body, expected) in cases {
            assert_eq!(asked(body), expected, "{body}");
        }
    }
}
