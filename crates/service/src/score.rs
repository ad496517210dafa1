//! `POST /score` without HTTP: embeddings, user state, rewards, calibrated preferences.

mod audience;
mod groups;
mod own;
pub(crate) mod plan;
pub(crate) mod room;
pub(crate) mod task;

use std::{sync::Arc, time::Instant};

use polyreward_backbone::{Backbone, BackboneError, Embedded, InputError};
use polyreward_domain::{
    Attributes, ModelRef, ModelSelector, Overflow, Prompt, StateVersion, TenantId, UserId,
};
use polyreward_heads::HeadError;
use tokio::sync::OwnedSemaphorePermit;

use self::{
    plan::Plan,
    room::{Room, Wanted},
    task::{Panel, Task, TaskError},
};
use crate::{
    aside::{Stopped, aside},
    judge::Judge,
    metrics,
    people::{
        Audience, Members, People, Person, Resolved, StatesError, Unusable, evidence::version_together,
    },
    registry::{Model, ModelRegistry, RegistryError},
};

/// Two responses to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What both answer.
    pub prompt: Arc<Prompt>,
    /// The first response.
    pub response_a: Arc<str>,
    /// The second response.
    pub response_b: Arc<str>,
}

/// Any number of responses to one prompt.
#[derive(Debug, Clone)]
pub struct Item {
    /// What they answer.
    pub prompt: Arc<Prompt>,
    /// The responses, at least one.
    pub responses: Vec<Arc<str>>,
}

/// What is to be scored.
#[derive(Debug, Clone)]
pub enum Work {
    /// A reward for each side, and the preference between them.
    Pairs(Vec<Pair>),
    /// A reward for each response, and their ranking.
    Items(Vec<Item>),
}

/// Whose reward is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Whose {
    /// Nobody's in particular: the trained prior.
    #[default]
    Population,
    /// One person's; the population's as long as the person is unknown.
    User(UserId),
    /// Each of several people's.
    Users(Vec<UserId>),
    /// A group's, reduced to a few numbers.
    Audience {
        /// What its members have in common; nothing is everybody.
        group: Attributes,
        /// Which numbers, at least one.
        aggregates: Vec<Aggregate>,
        /// By which parameters.
        welfare: Welfare,
    },
    /// Several groups', each of which is one voice: the mean of its members.
    Groups {
        /// Which, at least one.
        groups: Vec<WeightedGroup>,
        /// Which numbers, at least one.
        aggregates: Vec<Aggregate>,
        /// By which parameters.
        welfare: Welfare,
    },
}

/// A group that counts by a weight, however many members it has.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedGroup {
    /// What its members have in common.
    pub group: Attributes,
    /// How much it counts; weights of one query are above 0 together, and none is below.
    pub weight: f64,
}

/// Parameters of rules of welfare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Welfare {
    /// Of [`Aggregate::Softmin`], in the unit of the rewards.
    pub temperature: f64,
    /// What everybody has without an agreement, for [`Aggregate::Nash`].
    pub disagreement: f64,
}

impl Default for Welfare {
    fn default() -> Self {
        Self { temperature: 0.1, disagreement: 0.0 }
    }
}

/// How the rewards of an audience become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aggregate {
    /// The mean.
    Mean,
    /// The worst-off person's.
    Min,
    /// The 20th percentile, linear between two people; of groups, by weight: see [`polyreward_heads::welfare::p20`].
    P20,
    /// The share of people who prefer the response to all others of its prompt; of a pair, by their preferences.
    Share,
    /// The minimum, softened: see [`polyreward_heads::welfare::softmin`].
    Softmin,
    /// Nash's welfare above a disagreement point, as a mean: see [`polyreward_heads::welfare::nash`].
    Nash,
    /// Of several groups, the mean of the one that is worst off over the whole query: see
    /// [`polyreward_heads::welfare::worst_off`]. Of one group, its mean.
    MaxMin,
}

/// The scale rewards are given on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RewardScale {
    /// Logits, with an arbitrary origin.
    #[default]
    Raw,
    /// Standard deviations from the mean population reward of the training responses.
    Standard,
    /// Mean preference against the model's reference responses, in `[0, 1]`. A reward counts once for itself and once more
    /// for every 16 references.
    WinRate,
}

/// A request to score.
#[derive(Debug, Clone)]
pub struct ScoreQuery {
    /// Which model; `None` is the default.
    pub model: Option<ModelSelector>,
    /// Whose reward.
    pub whose: Whose,
    /// What to score.
    pub work: Work,
    /// On which scale.
    pub scale: RewardScale,
    /// On which other scale, too.
    pub also: Option<RewardScale>,
    /// What becomes of texts longer than the window.
    pub overflow: Overflow,
    /// Whether good items are answered beside bad ones.
    pub partial: bool,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
}

/// Which text of a pair or item a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first response of a pair.
    ResponseA,
    /// The second response of a pair.
    ResponseB,
    /// A response of an item, by position.
    Response(usize),
}

/// Why one pair or item has no result.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Position of the pair or item.
    pub at: usize,
    /// Which of its texts.
    pub part: Part,
    /// What is wrong.
    pub error: InputError,
}

/// The rewards of a pair for one person.
#[derive(Debug, Clone, PartialEq)]
pub struct PairScore {
    /// Reward of the first response, on the scale asked for.
    pub reward_a: f64,
    /// Reward of the second one.
    pub reward_b: f64,
    /// P(a preferred to b), calibrated.
    pub preference: f64,
    /// Posterior standard deviation of the preference.
    pub uncertainty: f64,
}

/// The rewards of an item for one person.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemScore {
    /// Rewards of the responses, in their order, on the scale asked for.
    pub rewards: Vec<f64>,
    /// Posterior standard deviation of each reward, on the same scale.
    pub uncertainties: Vec<f64>,
    /// Positions of the responses from the best to the worst; ties by position.
    pub ranking: Vec<usize>,
}

/// What an audience makes of a pair or an item.
#[derive(Debug, Clone, PartialEq)]
pub struct AudienceScore {
    /// Each aggregate asked for, of each response in their order.
    pub aggregates: Vec<(Aggregate, Vec<f64>)>,
    /// Positions of the responses from the best to the worst by the first aggregate; ties by position.
    pub ranking: Vec<usize>,
    /// Of a pair: the audience's mean P(a preferred to b) and its posterior standard deviation, people being independent
    /// unless they share a state.
    pub preference: Option<(f64, f64)>,
    /// `[group][response]`: the mean of each group's members, where several groups were asked for.
    pub groups: Vec<Vec<f64>>,
    /// Standard deviation among the members of the reward of each response.
    pub spreads: Vec<f64>,
}

/// What became of a pair or an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// A score for each person asked for, in their order; exactly one for the population and an audience.
    pub scores: Vec<T>,
    /// Whether a text was cut to the backbone's window.
    pub truncated: bool,
    /// Tokens that were read of it; those of a text that stands in it twice count twice.
    pub tokens: usize,
}

/// A result per pair or item, in the order of the request.
#[derive(Debug, Clone, PartialEq)]
pub enum Scored {
    /// For pairs.
    Pairs(Vec<Result<Answer<PairScore>, Fault>>),
    /// For items.
    Items(Vec<Result<Answer<ItemScore>, Fault>>),
    /// For either, of an audience.
    Audience(Vec<Result<Answer<AudienceScore>, Fault>>),
}

/// Whose reward it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSeen {
    /// Who was asked for.
    pub user_id: UserId,
    /// Examples behind the state.
    pub examples: usize,
    /// Whether there are any: an unknown person has the population's reward.
    pub known: bool,
}

impl UserSeen {
    pub(crate) fn of(person: &Person) -> Self {
        Self { user_id: UserId::clone(&person.user_id), examples: person.examples, known: person.is_known() }
    }
}

/// Whose rewards an answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The population's.
    Population,
    /// One person's.
    User(UserSeen),
    /// Each of several people's.
    Users(Vec<UserSeen>),
    /// Several people's together.
    Audience {
        /// Whose rewards were aggregated.
        users: usize,
        /// Members of the group who were left out, since their examples cannot be used.
        left_out: usize,
        /// Of `users`, those of each group, where several groups were asked for.
        groups: Vec<usize>,
        /// The group that [`Aggregate::MaxMin`] serves, by position, where it was asked for and anything was scored.
        worst_off: Option<usize>,
    },
}

/// What the answer cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Distinct texts that needed an embedding.
    pub texts: usize,
    /// Their tokens.
    pub tokens: usize,
    /// How many embeddings were known already.
    pub embeddings_cached: usize,
}

/// The answer to a [`ScoreQuery`].
#[derive(Debug)]
pub struct ScoreOutcome {
    /// Which model answered.
    pub model: ModelRef,
    /// On which backbone.
    pub backbone: String,
    /// Whose rewards it holds.
    pub seen: Seen,
    /// What the states behind it were derived from; of several people, together.
    pub state_version: StateVersion,
    /// The results.
    pub results: Scored,
    /// The same on the other scale, where the query asks for one.
    pub also: Option<Scored>,
    /// What it cost.
    pub usage: Usage,
    /// Rewards in it.
    pub rewards: usize,
    /// The room it takes, until it is written out.
    pub room: Option<HeldRoom>,
}

/// Room among the requests in flight; given back when it is dropped.
#[derive(Debug)]
pub struct HeldRoom {
    _units: OwnedSemaphorePermit,
}

/// One of the people a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The only one.
    User,
    /// One of several, by position.
    Users(usize),
    /// Every member of an audience.
    Audience,
    /// Every member of one of an audience's groups, by position.
    Group(usize),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// No such model.
    #[error(transparent)]
    Model(#[from] RegistryError),
    /// Texts that cannot be scored, and the request did not allow partial answers.
    #[error("{} of the texts cannot be scored", .0.len())]
    Faults(Vec<Fault>),
    /// The backbone is overloaded, too late, or broken.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// Nobody has all attributes of the audience's group, or of one of its groups, by position.
    #[error("nobody has these attributes")]
    EmptyAudience(Option<usize>),
    /// More rewards than one answer holds.
    #[error(
        "{rewards} rewards (responses by people, each counted {each} times on this scale), more than the {limit} of one request"
    )]
    TooManyRewards {
        /// How many were asked for, at least.
        rewards: usize,
        /// How often each counts.
        each: usize,
        /// The limit.
        limit: usize,
    },
    /// Other requests hold all the room there is for numbers.
    #[error("the rewards of other requests take all the room there is")]
    NoRoom,
    /// The deadline passed before the rewards were computed.
    #[error("the deadline passed before the rewards were computed")]
    DeadlineExceeded,
    /// People whose examples cannot be used.
    #[error("the examples of {} of the people cannot be used", .0.len())]
    UnusableExamples(Vec<(Asked, Unusable)>),
    /// The users' states cannot be derived from their examples now.
    #[error(transparent)]
    States(#[from] StatesError),
    /// The head refused what the backbone gave it.
    #[error("the head failed")]
    Head(#[from] HeadError),
}

impl From<Stopped> for ScoreError {
    fn from(_: Stopped) -> Self {
        Self::Backbone(BackboneError::Stopped)
    }
}

impl From<TaskError> for ScoreError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Head(error) => Self::Head(error),
            TaskError::Unwanted => Self::DeadlineExceeded,
        }
    }
}

impl ScoreError {
    /// The error of a group, as that of one of several.
    fn of_group(self, at: usize) -> Self {
        match self {
            Self::EmptyAudience(_) => Self::EmptyAudience(Some(at)),
            Self::UnusableExamples(people) => {
                Self::UnusableExamples(people.into_iter().map(|(_, why)| (Asked::Group(at), why)).collect())
            }
            other => other,
        }
    }

    /// The error as the counter of scores names it.
    pub(crate) fn label(&self) -> &'static str {
        let backbone = match self {
            Self::Model(_)
            | Self::Faults(_)
            | Self::EmptyAudience(_)
            | Self::TooManyRewards { .. }
            | Self::UnusableExamples(_) => return "refused",
            Self::NoRoom | Self::DeadlineExceeded | Self::States(StatesError::DeadlineExceeded) => {
                return "overloaded";
            }
            Self::Backbone(error) => error,
            Self::States(StatesError::Backbone(error)) => error,
            Self::States(_) | Self::Head(_) => return "failed",
        };
        match backbone {
            BackboneError::Overloaded { .. }
            | BackboneError::TooManyTexts { .. }
            | BackboneError::DeadlineExceeded => "overloaded",
            _ => "failed",
        }
    }
}

/// What scoring may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreLimits {
    /// Rewards of one request for several people: responses by people; see [`RewardScale::WinRate`] for its price.
    pub max_rewards: usize,
    /// Numbers of all requests together: people by responses and by the length of a state.
    pub max_pending_cells: usize,
}

impl Default for ScoreLimits {
    fn default() -> Self {
        Self { max_rewards: 1 << 20, max_pending_cells: 1 << 23 }
    }
}

/// Scores requests with the registered models.
#[derive(Debug, Clone)]
pub struct Scorer {
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    people: Arc<People>,
    max_rewards: usize,
    room: Room,
}

impl Scorer {
    /// Comparisons with reference responses that cost as much as a reward on another scale: on the `win_rate` scale,
    /// memory does not grow with the references, but time does.
    const REFERENCES_A_REWARD: usize = 16;

    /// A scorer of the registry's models on their backbone, for these people.
    pub fn new(
        registry: Arc<ModelRegistry>,
        backbone: Backbone,
        people: Arc<People>,
        limits: ScoreLimits,
    ) -> Self {
        let room = Room::new(limits.max_pending_cells);
        Self { registry, backbone, people, max_rewards: limits.max_rewards, room }
    }

    /// Rewards and preferences for a tenant's people, in the order of the request.
    ///
    /// # Errors
    /// See [`ScoreError`]. With `partial`, a bad text is no error but a [`Fault`] in its place.
    #[tracing::instrument(name = "service.score", skip_all)]
    pub async fn score(&self, tenant: &TenantId, query: ScoreQuery) -> Result<ScoreOutcome, ScoreError> {
        let outcome = match query.whose.clone() {
            Whose::Groups { groups, aggregates, welfare } => {
                self.of_groups(tenant, query, &groups, &aggregates, welfare).await
            }
            _ => self.judge(tenant, query).await,
        };
        let label = match &outcome {
            Ok(_) => "answered",
            Err(error) => error.label(),
        };
        ::metrics::counter!(metrics::SCORES_TOTAL, "outcome" => label).increment(1);
        outcome
    }

    async fn judge(&self, tenant: &TenantId, query: ScoreQuery) -> Result<ScoreOutcome, ScoreError> {
        let model = Arc::clone(self.registry.registered().find(query.model.as_ref())?);
        let plan = Plan::of(&query.work, model.head.text_forms());
        let responses = plan.rows.len();
        let each_on = |scale: RewardScale| match scale {
            RewardScale::WinRate => 1 + model.reference_features.nrows() / Self::REFERENCES_A_REWARD,
            RewardScale::Raw | RewardScale::Standard => 1,
        };
        let each = each_on(query.scale) + query.also.map_or(0, each_on);
        // Whoever asks for too much is told before a state is derived or a text embedded.
        let people = self.asked(tenant, &query.whose, self.max_rewards / (responses * each).max(1) + 1);
        let people = within(query.deadline, people).await??;
        let rewards = responses.saturating_mul(people.len().max(1));
        if people.len() > 1 && rewards.saturating_mul(each) > self.max_rewards {
            let rewards = rewards.saturating_mul(each);
            return Err(ScoreError::TooManyRewards { rewards, each, limit: self.max_rewards });
        }
        let state_len = model.head.population().mean().len();
        // One scale is done with before the other's turn comes; what it gave is kept.
        let scales = [Some(query.scale), query.also];
        let kept = responses * scales.iter().flatten().count();
        let of_references = |scale| Judge { model: &model, scale }.reference_cells(responses);
        let of_references = scales.into_iter().flatten().map(of_references).max().unwrap_or(0);
        let cells = people.len().max(1).saturating_mul(kept + state_len).saturating_add(of_references);
        let room = HeldRoom { _units: self.room.take(cells).ok_or(ScoreError::NoRoom)? };

        let Seated { panel, seen, state_version } =
            self.seated(tenant, &model, people, &query.whose, query.deadline).await?;
        let embedded = self.backbone.embed(plan.inputs.clone(), query.overflow, query.deadline).await?;
        let started = Instant::now();
        let usage = usage_of(&embedded);
        let faults = plan.faults(&embedded);
        if !query.partial && faults.iter().any(Option::is_some) {
            return Err(ScoreError::Faults(faults.into_iter().flatten().collect()));
        }
        let (wanted, _caller) = Wanted::until(query.deadline);
        let task = Task {
            model: Arc::clone(&model),
            plan,
            embedded,
            faults,
            scale: query.scale,
            also: query.also,
            panel,
            aggregates: match query.whose {
                Whose::Audience { aggregates, welfare, .. } => Some((aggregates, welfare)),
                _ => None,
            },
            wanted,
        };
        // The room goes with it, since a task is not broken off at once when its caller leaves.
        let (results, room) = aside(move || (task.run(), room)).await?;
        let (results, also) = results?;
        ::metrics::histogram!(metrics::HEAD_SECONDS).record(started.elapsed());
        ::metrics::counter!(metrics::REWARDS_TOTAL).increment(responses as u64);
        Ok(ScoreOutcome {
            model: model.reference.clone(),
            backbone: self.backbone.info().name.clone(),
            seen,
            state_version,
            results,
            also,
            usage,
            rewards,
            room: Some(room),
        })
    }

    /// Who is asked for, an audience up to a number of members.
    async fn asked(&self, tenant: &TenantId, whose: &Whose, most: usize) -> Result<Called, ScoreError> {
        Ok(match whose {
            Whose::Population => Called::Each(Vec::new()),
            Whose::User(user_id) => {
                Called::Each(self.people.find(tenant, std::slice::from_ref(user_id)).await?)
            }
            Whose::Users(user_ids) => Called::Each(self.people.find(tenant, user_ids).await?),
            Whose::Groups { .. } => unreachable!("each group is asked for as an audience"),
            Whose::Audience { group, .. } => {
                let members = self.people.members(tenant, group, most).await?;
                if members.people().is_empty() {
                    return Err(ScoreError::EmptyAudience(None));
                }
                Called::Members(members)
            }
        })
    }

    /// What the model believes of those who are asked for.
    async fn seated(
        &self,
        tenant: &TenantId,
        model: &Arc<Model>,
        called: Called,
        whose: &Whose,
        deadline: Option<Instant>,
    ) -> Result<Seated, ScoreError> {
        let people = match called {
            Called::Each(people) => people,
            Called::Members(members) => {
                let audience = self.people.audience(tenant, model, &members, deadline).await?;
                return Seated::audience(audience);
            }
        };
        let resolved = self.people.resolve(tenant, model, people, deadline).await?;
        let (people, seen) = seen(whose, resolved)?;
        let state_version = match &seen {
            Seen::User(_) => people[0].person.version,
            _ => version_together(people.iter().map(|one| one.person.version)),
        };
        let panel = match whose {
            Whose::Population => Panel::population(),
            _ => Panel::of(people.into_iter().map(|one| one.state)),
        };
        Ok(Seated { panel, seen, state_version })
    }
}

/// Those who are asked for.
enum Called {
    /// By name; nobody for the population.
    Each(Vec<Person>),
    /// As members of a group.
    Members(Arc<Members>),
}

impl Called {
    fn len(&self) -> usize {
        match self {
            Self::Each(people) => people.len(),
            Self::Members(members) => members.people().len(),
        }
    }
}

/// Those whose rewards are computed, and what the answer says of them.
struct Seated {
    panel: Panel,
    seen: Seen,
    state_version: StateVersion,
}

impl Seated {
    /// A member whose examples cannot be used is left out, and counted.
    fn audience(audience: Audience) -> Result<Self, ScoreError> {
        let users = audience.users();
        let Audience { rows, others, unusable, version } = audience;
        if users == 0 {
            let unusable = unusable.into_iter().take(1).map(|why| (Asked::Audience, why));
            return Err(ScoreError::UnusableExamples(unusable.collect()));
        }
        let seen = Seen::Audience { users, left_out: unusable.len(), groups: Vec::new(), worst_off: None };
        Ok(Self { panel: Panel::audience(rows, others), seen, state_version: version })
    }
}

/// What comes before the deadline.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Result<T, ScoreError> {
    match deadline {
        None => Ok(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline.into(), future)
            .await
            .map_err(|_elapsed| ScoreError::DeadlineExceeded),
    }
}

/// Those who were asked for by name, and what the answer says of them.
///
/// # Errors
/// Whoever's examples cannot be used.
fn seen(
    whose: &Whose,
    resolved: Vec<Result<Resolved, Unusable>>,
) -> Result<(Vec<Resolved>, Seen), ScoreError> {
    let (mut people, mut unusable) = (Vec::with_capacity(resolved.len()), Vec::new());
    for (at, one) in resolved.into_iter().enumerate() {
        match (one, whose) {
            (Ok(one), _) => people.push(one),
            (Err(error), Whose::Users(_)) => unusable.push((Asked::Users(at), error)),
            (Err(error), _) => unusable.push((Asked::User, error)),
        }
    }
    if !unusable.is_empty() {
        return Err(ScoreError::UnusableExamples(unusable));
    }
    let mut each = people.iter().map(|one| UserSeen::of(&one.person));
    let seen = match whose {
        Whose::Population => Seen::Population,
        Whose::User(_) => Seen::User(each.next().expect("one was asked for")),
        Whose::Users(_) => Seen::Users(each.collect()),
        Whose::Audience { .. } | Whose::Groups { .. } => unreachable!("members are not asked for by name"),
    };
    Ok((people, seen))
}

pub(crate) fn usage_of(embedded: &[Result<Embedded, InputError>]) -> Usage {
    let mut usage = Usage { texts: embedded.len(), ..Usage::default() };
    for text in embedded.iter().flatten() {
        usage.tokens += text.tokens;
        usage.embeddings_cached += usize::from(text.cached);
    }
    usage
}
