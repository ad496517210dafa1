//! The answer of `POST /score`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use polyreward_backbone::InputError;
use polyreward_service::{Fault, ItemScore, PairScore, Part, ScoreOutcome, Scored, Usage, UserSeen};
use serde::Serialize;
use utoipa::ToSchema;

use super::request::Places;
use crate::problem::{InputFault, Problem};

/// Names the model that answered.
const MODEL_VERSION_HEADER: HeaderName = HeaderName::from_static("x-model-version");
/// Names the version of the user's state.
const USER_STATE_VERSION_HEADER: HeaderName = HeaderName::from_static("x-user-state-version");

/// A result for each pair or item, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "model": "pal-a@3f9c", "backbone": "all-minilm-l6-v2-int8",
    "user": {"user_id": "ada", "examples": 8, "known": true},
    "results": [{"reward_a": 0.91, "reward_b": -0.4, "preference": 0.79, "uncertainty": 0.06, "truncated": false}],
    "usage": {"texts": 2, "tokens": 21, "embeddings_cached": 0},
}))]
pub(crate) struct ScoreReply {
    /// The model that answered, as `name@version`.
    model: String,
    /// The backbone's name.
    backbone: String,
    /// Whose reward it is; absent where nobody was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserReply>,
    results: Vec<ResultReply>,
    usage: UsageReply,
}

/// Whose reward it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScoredUser)]
struct UserReply {
    user_id: String,
    /// Examples behind the reward.
    examples: usize,
    /// Whether there are any: a person without has the population's reward.
    known: bool,
}

/// What became of one pair or item.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ScoreResult)]
enum ResultReply {
    Pair(PairReply),
    Item(ItemReply),
    Refused(RefusedReply),
}

/// The rewards of a pair.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PairResult)]
struct PairReply {
    /// Reward of `response_a` on the scale asked for.
    reward_a: f32,
    /// Reward of `response_b`.
    reward_b: f32,
    /// P(a preferred to b), calibrated; swapping the responses gives 1 - p exactly.
    preference: f64,
    /// Posterior standard deviation of the preference.
    uncertainty: f32,
    /// Whether a text was cut to the backbone's window.
    truncated: bool,
}

/// The rewards of an item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ItemResult)]
struct ItemReply {
    /// Rewards of the responses, in their order, on the scale asked for.
    rewards: Vec<f32>,
    /// Posterior standard deviation of each reward, on the same scale.
    uncertainties: Vec<f32>,
    /// Positions of the responses from the best to the worst.
    ranking: Vec<usize>,
    /// Whether a text was cut to the backbone's window.
    truncated: bool,
}

/// In place of a result, with `partial`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefusedResult)]
struct RefusedReply {
    error: InputFault,
}

/// What the answer cost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
struct UsageReply {
    /// Distinct texts that needed an embedding.
    texts: usize,
    /// Their tokens.
    tokens: usize,
    /// How many of the embeddings were known.
    embeddings_cached: usize,
}

/// The versions that, with the text, decide a score.
pub(super) fn version_headers(outcome: &ScoreOutcome) -> HeaderMap {
    let model = HeaderValue::from_str(&outcome.model.to_string()).expect("model names are ASCII");
    let user_state = HeaderValue::from(outcome.user_state_version);
    HeaderMap::from_iter([(MODEL_VERSION_HEADER, model), (USER_STATE_VERSION_HEADER, user_state)])
}

impl ScoreReply {
    /// Puts results and refused entries in the order of the request.
    ///
    /// # Errors
    /// A reward that is not finite, unless the request takes partial answers.
    pub(super) fn new(outcome: ScoreOutcome, mut places: Places) -> Result<Self, Problem> {
        let scored: Vec<Result<ResultReply, Fault>> = match outcome.results {
            Scored::Pairs(pairs) => pairs
                .into_iter()
                .enumerate()
                .map(|(at, pair)| PairReply::at(at, pair?).map(ResultReply::Pair))
                .collect(),
            Scored::Items(items) => items
                .into_iter()
                .enumerate()
                .map(|(at, item)| ItemReply::at(at, item?).map(ResultReply::Item))
                .collect(),
        };
        if !places.partial {
            let faults: Vec<_> = scored
                .iter()
                .filter_map(|result| result.as_ref().err())
                .map(|fault| places.fault(fault))
                .collect();
            if !faults.is_empty() {
                return Err(Problem::invalid(faults));
            }
        }
        let mut results = Vec::with_capacity(places.len);
        let mut scored = scored.into_iter();
        for at in 0..places.len {
            results.push(match places.refused.remove(&at) {
                Some(error) => ResultReply::Refused(RefusedReply { error }),
                None => scored.next().expect("the service answers every entry of the query").unwrap_or_else(
                    |fault| ResultReply::Refused(RefusedReply { error: places.fault(&fault) }),
                ),
            });
        }
        Ok(Self {
            model: outcome.model.to_string(),
            backbone: outcome.backbone,
            user: outcome.user.map(Into::into),
            results,
            usage: outcome.usage.into(),
        })
    }
}

/// Rewards are computed in single precision; in it they are written shortest, and read back the same.
fn single(number: f64, at: usize, part: Part) -> Result<f32, Fault> {
    let single = number as f32;
    if single.is_finite() { Ok(single) } else { Err(Fault { at, part, error: InputError::NotFinite }) }
}

impl PairReply {
    fn at(at: usize, score: PairScore) -> Result<Self, Fault> {
        Ok(Self {
            reward_a: single(score.reward_a, at, Part::ResponseA)?,
            reward_b: single(score.reward_b, at, Part::ResponseB)?,
            preference: score.preference,
            uncertainty: single(score.uncertainty, at, Part::ResponseA)?,
            truncated: score.truncated,
        })
    }
}

impl ItemReply {
    fn at(at: usize, score: ItemScore) -> Result<Self, Fault> {
        let singles = |numbers: Vec<f64>| -> Result<Vec<f32>, Fault> {
            numbers.into_iter().enumerate().map(|(n, number)| single(number, at, Part::Response(n))).collect()
        };
        Ok(Self {
            rewards: singles(score.rewards)?,
            uncertainties: singles(score.uncertainties)?,
            ranking: score.ranking,
            truncated: score.truncated,
        })
    }
}

impl From<UserSeen> for UserReply {
    fn from(UserSeen { user_id, examples, known }: UserSeen) -> Self {
        Self { user_id: user_id.to_string(), examples, known }
    }
}

impl From<Usage> for UsageReply {
    fn from(Usage { texts, tokens, embeddings_cached }: Usage) -> Self {
        Self { texts, tokens, embeddings_cached }
    }
}
