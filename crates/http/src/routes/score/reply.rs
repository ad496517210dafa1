//! The answer of `POST /score`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use polyreward_backbone::InputError;
use polyreward_domain::{ModelRef, StateVersion};
use polyreward_service::{
    Aggregate, Answer, AudienceScore, Fault, ItemScore, PairScore, Part, ScoreOutcome, Scored, Seen, Usage,
    UserSeen,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::request::Places;
use crate::problem::{InputFault, Problem};

/// Names the model that answered.
pub(crate) const MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");
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
    /// Whose reward it is; absent unless `user_id` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserReply>,
    /// Whose rewards they are, in the order of `user_ids`; absent unless those were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<UserReply>>,
    /// Whose rewards they are together; absent unless `audience` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<AudienceReply>,
    results: Vec<ResultReply>,
    usage: UsageReply,
}

/// Whose reward it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScoredUser)]
pub(crate) struct UserReply {
    user_id: String,
    /// Examples behind the reward.
    examples: usize,
    /// Whether there are any: a person without has the population's reward.
    known: bool,
}

/// Whose rewards they are together.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScoredAudience)]
pub(crate) struct AudienceReply {
    /// Members of the group whose rewards were aggregated.
    users: usize,
    /// Members left out since their examples cannot be used; absent where there are none.
    #[serde(skip_serializing_if = "is_zero")]
    #[schema(required = false)]
    left_out: usize,
    /// Of `users`, those of each group; absent unless groups were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    groups: Vec<usize>,
    /// The group that is worst off over the whole request, by position; absent unless `maxmin` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    worst_off: Option<usize>,
}

impl AudienceReply {
    pub fn new(users: usize, left_out: usize, groups: Vec<usize>, worst_off: Option<usize>) -> Self {
        Self { users, left_out, groups, worst_off }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What became of one pair or item.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ScoreResult)]
enum ResultReply {
    Pair(PairReply),
    Item(ItemReply),
    PairOfUsers(PairOfUsersReply),
    ItemOfUsers(ItemOfUsersReply),
    Audience(AudienceScoreReply),
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

/// The rewards of a pair for each of `user_ids`, in their order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PairResultOfUsers)]
struct PairOfUsersReply {
    /// Rewards of `response_a` on the scale asked for, one a user.
    reward_a: Vec<f32>,
    /// Rewards of `response_b`.
    reward_b: Vec<f32>,
    /// P(a preferred to b), calibrated.
    preference: Vec<f64>,
    /// Posterior standard deviations of the preferences.
    uncertainty: Vec<f32>,
    /// Whether a text was cut to the backbone's window.
    truncated: bool,
}

/// The rewards of an item for each of `user_ids`, in their order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ItemResultOfUsers)]
struct ItemOfUsersReply {
    /// Rewards `[user][response]` on the scale asked for.
    rewards: Vec<Vec<f32>>,
    /// Posterior standard deviations `[user][response]`, on the same scale.
    uncertainties: Vec<Vec<f32>>,
    /// For each user, positions of the responses from the best to the worst.
    ranking: Vec<Vec<usize>>,
    /// Whether a text was cut to the backbone's window.
    truncated: bool,
}

/// What an audience makes of a pair or an item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AudienceResult)]
struct AudienceScoreReply {
    /// Each aggregate asked for, of each response in their order; of a pair, `response_a` comes first.
    aggregates: AggregatesReply,
    /// Positions of the responses from the best to the worst by the aggregate named first.
    ranking: Vec<usize>,
    /// `[group][response]`: the mean reward of each group; absent unless groups were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    groups: Vec<Vec<f32>>,
    /// Of a pair: the mean over the audience of P(a preferred to b).
    #[serde(skip_serializing_if = "Option::is_none")]
    preference: Option<f64>,
    /// Posterior standard deviation of `preference`.
    #[serde(skip_serializing_if = "Option::is_none")]
    uncertainty: Option<f32>,
    /// Whether a text was cut to the backbone's window.
    truncated: bool,
}

/// A number a response under each aggregate asked for.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Aggregates)]
struct AggregatesReply {
    /// Mean reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<Vec<f32>>,
    /// The worst-off member's reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<Vec<f32>>,
    /// The 20th percentile of the rewards.
    #[serde(skip_serializing_if = "Option::is_none")]
    p20: Option<Vec<f32>>,
    /// The share of members who prefer it to all others of its prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<Vec<f32>>,
    /// The softened minimum.
    #[serde(skip_serializing_if = "Option::is_none")]
    softmin: Option<Vec<f32>>,
    /// Nash's welfare.
    #[serde(skip_serializing_if = "Option::is_none")]
    nash: Option<Vec<f32>>,
    /// Of the group that is worst off over the whole request, its mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    maxmin: Option<Vec<f32>>,
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
pub(crate) struct UsageReply {
    /// Distinct texts that needed an embedding.
    texts: usize,
    /// Their tokens.
    tokens: usize,
    /// How many of the embeddings were known.
    embeddings_cached: usize,
}

/// The versions that, with the text, decide a score.
pub(crate) fn version_headers(outcome: &ScoreOutcome) -> HeaderMap {
    version_headers_of(&outcome.model, outcome.state_version)
}

/// The same of an answer that is no score.
pub(crate) fn version_headers_of(model: &ModelRef, state: StateVersion) -> HeaderMap {
    let model = HeaderValue::from_str(&model.to_string()).expect("model names are ASCII");
    let state = HeaderValue::from(state.get());
    HeaderMap::from_iter([(MODEL_VERSION, model), (USER_STATE_VERSION_HEADER, state)])
}

impl ScoreReply {
    /// Puts results and refused entries in the order of the request.
    ///
    /// # Errors
    /// A reward that is not finite, unless the request takes partial answers.
    pub(super) fn new(outcome: ScoreOutcome, mut places: Places) -> Result<Self, Problem> {
        let several = matches!(outcome.seen, Seen::Users(_));
        let scored: Vec<Result<ResultReply, Fault>> = match outcome.results {
            Scored::Pairs(pairs) => each(pairs, |at, pair| ResultReply::pair(at, pair, several)),
            Scored::Items(items) => each(items, |at, item| ResultReply::item(at, item, several)),
            Scored::Audience(answers) => each(answers, ResultReply::audience),
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
        let (mut user, mut users, mut audience) = (None, None, None);
        match outcome.seen {
            Seen::Population => {}
            Seen::User(seen) => user = Some(seen.into()),
            Seen::Users(seen) => users = Some(seen.into_iter().map(Into::into).collect()),
            Seen::Audience { users, left_out, groups, worst_off } => {
                audience = Some(AudienceReply::new(users, left_out, groups, worst_off));
            }
        }
        Ok(Self {
            model: outcome.model.to_string(),
            backbone: outcome.backbone,
            user,
            users,
            audience,
            results,
            usage: outcome.usage.into(),
        })
    }
}

/// The answers that there are, as replies.
fn each<T>(
    answers: Vec<Result<Answer<T>, Fault>>,
    reply: impl Fn(usize, Answer<T>) -> Result<ResultReply, Fault>,
) -> Vec<Result<ResultReply, Fault>> {
    answers.into_iter().enumerate().map(|(at, answer)| reply(at, answer?)).collect()
}

/// Rewards are computed in single precision; in it they are written shortest, and read back the same.
pub(crate) fn single(number: f64, at: usize, part: Part) -> Result<f32, Fault> {
    let single = number as f32;
    if single.is_finite() { Ok(single) } else { Err(Fault { at, part, error: InputError::NotFinite }) }
}

/// Numbers of the responses of one entry; `part` names each.
fn singles(numbers: Vec<f64>, at: usize, part: fn(usize) -> Part) -> Result<Vec<f32>, Fault> {
    numbers.into_iter().enumerate().map(|(n, number)| single(number, at, part(n))).collect()
}

/// What a response of a pair is called.
fn side(n: usize) -> Part {
    if n == 0 { Part::ResponseA } else { Part::ResponseB }
}

/// A probability; JSON would write one that is none as null.
fn probability(number: f64, at: usize) -> Result<f64, Fault> {
    single(number, at, Part::ResponseA).map(|_| number)
}

impl ResultReply {
    fn pair(
        at: usize,
        Answer { scores, truncated, .. }: Answer<PairScore>,
        several: bool,
    ) -> Result<Self, Fault> {
        let mut all = PairOfUsersReply {
            reward_a: Vec::with_capacity(scores.len()),
            reward_b: Vec::with_capacity(scores.len()),
            preference: Vec::with_capacity(scores.len()),
            uncertainty: Vec::with_capacity(scores.len()),
            truncated,
        };
        for score in &scores {
            all.reward_a.push(single(score.reward_a, at, Part::ResponseA)?);
            all.reward_b.push(single(score.reward_b, at, Part::ResponseB)?);
            all.preference.push(probability(score.preference, at)?);
            all.uncertainty.push(single(score.uncertainty, at, Part::ResponseA)?);
        }
        if several {
            return Ok(Self::PairOfUsers(all));
        }
        Ok(Self::Pair(PairReply {
            reward_a: all.reward_a[0],
            reward_b: all.reward_b[0],
            preference: all.preference[0],
            uncertainty: all.uncertainty[0],
            truncated,
        }))
    }

    fn item(
        at: usize,
        Answer { scores, truncated, .. }: Answer<ItemScore>,
        several: bool,
    ) -> Result<Self, Fault> {
        let mut users = Vec::with_capacity(scores.len());
        for score in scores {
            users.push(ItemReply {
                rewards: singles(score.rewards, at, Part::Response)?,
                uncertainties: singles(score.uncertainties, at, Part::Response)?,
                ranking: score.ranking,
                truncated,
            });
        }
        if !several {
            return Ok(Self::Item(users.remove(0)));
        }
        let mut all = ItemOfUsersReply {
            rewards: Vec::with_capacity(users.len()),
            uncertainties: Vec::with_capacity(users.len()),
            ranking: Vec::with_capacity(users.len()),
            truncated,
        };
        for user in users {
            all.rewards.push(user.rewards);
            all.uncertainties.push(user.uncertainties);
            all.ranking.push(user.ranking);
        }
        Ok(Self::ItemOfUsers(all))
    }

    fn audience(
        at: usize,
        Answer { mut scores, truncated, .. }: Answer<AudienceScore>,
    ) -> Result<Self, Fault> {
        let score = scores.remove(0);
        let part = if score.preference.is_some() { side } else { Part::Response };
        let mut aggregates = AggregatesReply::default();
        for (aggregate, numbers) in score.aggregates {
            let place = match aggregate {
                Aggregate::Mean => &mut aggregates.mean,
                Aggregate::Min => &mut aggregates.min,
                Aggregate::P20 => &mut aggregates.p20,
                Aggregate::Share => &mut aggregates.share,
                Aggregate::Softmin => &mut aggregates.softmin,
                Aggregate::Nash => &mut aggregates.nash,
                Aggregate::MaxMin => &mut aggregates.maxmin,
            };
            *place = Some(singles(numbers, at, part)?);
        }
        let groups = score.groups.into_iter().map(|means| singles(means, at, part));
        let preference = score.preference.map(|(preference, _)| probability(preference, at));
        let uncertainty = score.preference.map(|(_, deviation)| single(deviation, at, Part::ResponseA));
        Ok(Self::Audience(AudienceScoreReply {
            aggregates,
            groups: groups.collect::<Result<_, Fault>>()?,
            ranking: score.ranking,
            preference: preference.transpose()?,
            uncertainty: uncertainty.transpose()?,
            truncated,
        }))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer<T>(score: T) -> Answer<T> {
        Answer { scores: vec![score], truncated: false, tokens: 0 }
    }

    #[test]
    fn a_preference_that_is_not_finite_does_not_leave() {
        let score =
            |preference: f64| PairScore { reward_a: 1.0, reward_b: 0.0, preference, uncertainty: 0.1 };
        assert!(ResultReply::pair(0, answer(score(0.7)), false).is_ok());
        for several in [false, true] {
            let fault = ResultReply::pair(3, answer(score(f64::NAN)), several).unwrap_err();
            assert_eq!((fault.at, fault.part), (3, Part::ResponseA));
        }
        let audience = AudienceScore {
            groups: Vec::new(),
            aggregates: Vec::new(),
            ranking: Vec::new(),
            preference: Some((f64::NAN, 0.1)),
            spreads: Vec::new(),
        };
        assert_eq!(ResultReply::audience(0, answer(audience)).unwrap_err().part, Part::ResponseA);
    }

    #[test]
    fn an_aggregate_that_is_not_finite_points_at_its_response() {
        let audience = |preference| AudienceScore {
            groups: Vec::new(),
            aggregates: vec![(Aggregate::Mean, vec![0.0, 1e300])],
            ranking: vec![1, 0],
            preference,
            spreads: Vec::new(),
        };
        let part = |preference| ResultReply::audience(0, answer(audience(preference))).unwrap_err().part;
        assert_eq!(part(Some((0.5, 0.1))), Part::ResponseB);
        assert_eq!(part(None), Part::Response(1));
    }
}
