//! `POST /score` without HTTP: embeddings, user state, rewards, calibrated preferences.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Instant};

use ndarray::{Array2, s};
use polyreward_backbone::{Backbone, BackboneError, EmbedInput, Embedded, InputError};
use polyreward_domain::{Attributes, ModelRef, ModelSelector, Overflow, Prompt, TextForm, UserId};
use polyreward_heads::{HeadError, TextEmbeddings, UserState};

use crate::{
    judge::{Estimates, Judge, aggregate, ranking},
    metrics,
    people::{People, States, StatesError},
    registry::{Model, ModelRegistry, RegistryError},
};

/// Two responses to one prompt.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    },
}

/// How the rewards of an audience become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aggregate {
    /// The mean.
    Mean,
    /// The worst-off person's.
    Min,
    /// The 20th percentile, linear between two people.
    P20,
    /// The share of people who prefer the response to all others of its prompt.
    Share,
}

/// The scale rewards are given on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RewardScale {
    /// Logits, with an arbitrary origin.
    #[default]
    Raw,
    /// Standard deviations from the mean population reward of the training responses.
    Standard,
    /// Mean preference against the model's reference responses, in `[0, 1]`.
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
    /// Of a pair: the audience's mean P(a preferred to b) and its posterior standard deviation, people being independent.
    pub preference: Option<(f64, f64)>,
}

/// What became of a pair or an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// A score for each person asked for, in their order; exactly one for the population and an audience.
    pub scores: Vec<T>,
    /// Whether a text was cut to the backbone's window.
    pub truncated: bool,
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

/// Whose rewards an answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The population's.
    Population,
    /// One person's.
    User(UserSeen),
    /// Each of several people's.
    Users(Vec<UserSeen>),
    /// So many people's together.
    Audience(usize),
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
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreOutcome {
    /// Which model answered.
    pub model: ModelRef,
    /// On which backbone.
    pub backbone: String,
    /// Whose rewards it holds.
    pub seen: Seen,
    /// The results.
    pub results: Scored,
    /// What it cost.
    pub usage: Usage,
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
    /// Nobody has all attributes of the audience's group.
    #[error("nobody has these attributes")]
    EmptyAudience,
    /// More rewards than one answer holds.
    #[error(
        "{rewards} rewards (responses by people, by reference responses on the win_rate scale), more than the {limit} of one request"
    )]
    TooManyRewards {
        /// How many were asked for.
        rewards: usize,
        /// The limit.
        limit: usize,
    },
    /// The users' states cannot be derived from their examples.
    #[error("the users' states cannot be derived")]
    States(#[from] StatesError),
    /// The head refused what the backbone gave it.
    #[error("the head failed")]
    Head(#[from] HeadError),
}

/// Scores requests with the registered models.
#[derive(Debug, Clone)]
pub struct Scorer {
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    people: Arc<People>,
}

/// Whose states a request needs, by name: resolved before its texts are embedded.
struct Judged {
    /// Somebody unknown has none.
    users: Vec<Option<UserId>>,
    seen: Seen,
}

impl Scorer {
    /// Rewards in one answer at most: responses by people, each against every reference response on the `win_rate` scale.
    pub const MAX_REWARDS: usize = 1 << 22;

    /// A scorer of the registry's models on their backbone, for these people.
    pub fn new(registry: Arc<ModelRegistry>, backbone: Backbone, people: Arc<People>) -> Self {
        Self { registry, backbone, people }
    }

    /// Rewards and preferences, in the order of the request.
    ///
    /// # Errors
    /// See [`ScoreError`]. With `partial`, a bad text is no error but a [`Fault`] in its place.
    #[tracing::instrument(name = "service.score", skip_all)]
    pub async fn score(&self, query: ScoreQuery) -> Result<ScoreOutcome, ScoreError> {
        let outcome = self.judge(query).await;
        let label = match &outcome {
            Ok(_) => "answered",
            Err(error) => error.label(),
        };
        ::metrics::counter!(metrics::SCORES_TOTAL, "outcome" => label).increment(1);
        outcome
    }

    async fn judge(&self, query: ScoreQuery) -> Result<ScoreOutcome, ScoreError> {
        let model = Arc::clone(self.registry.registered().find(query.model.as_ref())?);
        let states = match query.whose {
            Whose::Population => Arc::default(),
            _ => self.people.states(&model, &self.backbone).await?,
        };
        let judged = self.judged(&query.whose, &states)?;
        let plan = Plan::of(&query.work, &model);
        let against = if query.scale == RewardScale::WinRate { model.reference_features.nrows() } else { 1 };
        let rewards = plan.rows.len().saturating_mul(judged.users.len()).saturating_mul(against);
        if judged.users.len() > 1 && rewards > Self::MAX_REWARDS {
            return Err(ScoreError::TooManyRewards { rewards, limit: Self::MAX_REWARDS });
        }
        let embedded = self.backbone.embed(plan.inputs.clone(), query.overflow, query.deadline).await?;
        let started = Instant::now();
        let usage = usage_of(&embedded);
        let faults = plan.faults(&embedded);
        if !query.partial && faults.iter().any(Option::is_some) {
            return Err(ScoreError::Faults(faults.into_iter().flatten().collect()));
        }
        let aggregates = match query.whose {
            Whose::Audience { aggregates, .. } => Some(aggregates),
            _ => None,
        };
        let task = Task { model: Arc::clone(&model), plan, embedded, faults, scale: query.scale, aggregates };
        // Seconds, for a large request on the win_rate scale: not on a thread that answers probes.
        let results = tokio::task::spawn_blocking(move || task.run(&judged.users, &states)).await;
        let results = match results {
            Ok(results) => results?,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Err(ScoreError::Backbone(BackboneError::Stopped)),
            },
        };
        ::metrics::histogram!(metrics::HEAD_SECONDS).record(started.elapsed());
        ::metrics::counter!(metrics::REWARDS_TOTAL).increment(rewards as u64);
        Ok(ScoreOutcome {
            model: model.reference.clone(),
            backbone: self.backbone.info().name.clone(),
            seen: judged.seen,
            results,
            usage,
        })
    }

    fn judged(&self, whose: &Whose, states: &States) -> Result<Judged, ScoreError> {
        let look_up = |user_id: &UserId| {
            let state = states.get(user_id);
            let seen = UserSeen {
                user_id: user_id.clone(),
                examples: state.map_or(0, UserState::examples),
                known: state.is_some(),
            };
            (state.map(|_| user_id.clone()), seen)
        };
        Ok(match whose {
            Whose::Population => Judged { users: vec![None], seen: Seen::Population },
            Whose::User(user_id) => {
                let (user, seen) = look_up(user_id);
                Judged { users: vec![user], seen: Seen::User(seen) }
            }
            Whose::Users(user_ids) => {
                let (users, seen) = user_ids.iter().map(look_up).unzip();
                Judged { users, seen: Seen::Users(seen) }
            }
            Whose::Audience { group, .. } => {
                let users: Vec<_> = self.people.group(group).cloned().map(Some).collect();
                if users.is_empty() {
                    return Err(ScoreError::EmptyAudience);
                }
                Judged { seen: Seen::Audience(users.len()), users }
            }
        })
    }
}

impl ScoreError {
    /// The error as the counter of scores names it.
    fn label(&self) -> &'static str {
        let backbone = match self {
            Self::Model(_) | Self::Faults(_) | Self::EmptyAudience | Self::TooManyRewards { .. } => {
                return "refused";
            }
            Self::Backbone(error) | Self::States(StatesError::Backbone(error)) => Some(error),
            Self::States(_) | Self::Head(_) => None,
        };
        match backbone {
            Some(
                BackboneError::Overloaded { .. }
                | BackboneError::TooManyTexts { .. }
                | BackboneError::DeadlineExceeded,
            ) => "overloaded",
            _ => "failed",
        }
    }
}

/// Everything after the embeddings.
struct Task {
    model: Arc<Model>,
    plan: Plan,
    embedded: Vec<Result<Embedded, InputError>>,
    faults: Vec<Option<Fault>>,
    scale: RewardScale,
    /// What an audience is reduced to.
    aggregates: Option<Vec<Aggregate>>,
}

impl Task {
    fn run(mut self, users: &[Option<UserId>], states: &States) -> Result<Scored, HeadError> {
        let features = self.features()?;
        let population = self.model.head.population();
        let users: Vec<&UserState> = users
            .iter()
            .map(|user| user.as_ref().and_then(|user_id| states.get(user_id)).unwrap_or(population))
            .collect();
        let judge = Judge { model: &self.model, users: &users, scale: self.scale };
        let rewards = judge.rewards(features.view())?;
        let preferences = if self.plan.pairs && !self.faults.is_empty() {
            Some(judge.preferences(features.slice(s![0..;2, ..]), features.slice(s![1..;2, ..]))?)
        } else {
            None
        };
        Ok(match (&self.aggregates, &preferences) {
            (Some(aggregates), _) => Scored::Audience(self.answers(&rewards, |at, group| {
                vec![audience_score(&rewards, preferences.as_ref().map(|p| (p, at)), group, aggregates)]
            })),
            (None, Some(preferences)) => Scored::Pairs(self.answers(&rewards, |at, (first, _)| {
                let score = |user: usize| PairScore {
                    reward_a: rewards.value[[user, first]],
                    reward_b: rewards.value[[user, first + 1]],
                    preference: preferences.value[[user, at]],
                    uncertainty: preferences.deviation[[user, at]],
                };
                (0..users.len()).map(score).collect()
            })),
            (None, None) => Scored::Items(self.answers(&rewards, |_, (first, len)| {
                let score = |user: usize| {
                    let of = |estimates: &Array2<f64>| estimates.slice(s![user, first..first + len]).to_vec();
                    let values = of(&rewards.value);
                    let ranking = ranking(&values);
                    ItemScore { rewards: values, uncertainties: of(&rewards.deviation), ranking }
                };
                (0..users.len()).map(score).collect()
            })),
        })
    }

    /// Features of every response, `[rows, F]`. A text whose features are not finite becomes its group's fault, and zeros,
    /// so that it spoils no other.
    fn features(&mut self) -> Result<Array2<f32>, HeadError> {
        match self.plan.features(&self.model, &self.embedded, &[]) {
            Err(HeadError::NotFinite(_)) => {}
            features => return features,
        }
        let alone = |row: usize| self.plan.features_of(&self.model, &self.embedded, row..row + 1, &[]);
        let mut bad = Vec::new();
        for row in 0..self.plan.rows.len() {
            match alone(row) {
                Ok(_) => {}
                Err(HeadError::NotFinite(_)) => bad.push(row),
                Err(error) => return Err(error),
            }
        }
        for (at, (first, len)) in self.plan.groups.iter().enumerate() {
            let spoilt = bad.iter().find(|row| (*first..first + len).contains(row));
            if let (Some(row), None) = (spoilt, &self.faults[at]) {
                self.faults[at] = Some(not_finite(at, self.plan.part(row - first)));
            }
        }
        self.plan.features(&self.model, &self.embedded, &bad)
    }

    /// An answer for every group without a fault and with finite rewards.
    fn answers<T>(
        &self,
        rewards: &Estimates,
        scores: impl Fn(usize, (usize, usize)) -> Vec<T>,
    ) -> Vec<Result<Answer<T>, Fault>> {
        let answer = |(at, (fault, group)): (usize, (&Option<Fault>, &(usize, usize)))| {
            if let Some(fault) = fault {
                return Err(fault.clone());
            }
            let (first, len) = *group;
            if let Some(bad) = (0..len).find(|position| !rewards.is_finite(first + position)) {
                return Err(not_finite(at, self.plan.part(bad)));
            }
            Ok(Answer { scores: scores(at, *group), truncated: self.plan.truncated(*group, &self.embedded) })
        };
        self.faults.iter().zip(&self.plan.groups).enumerate().map(answer).collect()
    }
}

/// What an audience makes of one group of responses.
fn audience_score(
    rewards: &Estimates,
    preferences: Option<(&Estimates, usize)>,
    (first, len): (usize, usize),
    aggregates: &[Aggregate],
) -> AudienceScore {
    let of_group = rewards.value.slice(s![.., first..first + len]);
    let aggregates: Vec<_> = aggregates.iter().map(|how| (*how, aggregate(&of_group, *how))).collect();
    let preference = preferences.map(|(preferences, at)| {
        let people = of_group.nrows() as f64;
        let variance: f64 = preferences.deviation.column(at).iter().map(|sd| sd * sd).sum();
        (preferences.value.column(at).sum() / people, variance.sqrt() / people)
    });
    let ranking = aggregates.first().map(|(_, values)| ranking(values)).unwrap_or_default();
    AudienceScore { aggregates, ranking, preference }
}

/// A number that would not be finite must not leave the server.
fn not_finite(at: usize, part: Part) -> Fault {
    Fault { at, part, error: InputError::NotFinite }
}

fn usage_of(embedded: &[Result<Embedded, InputError>]) -> Usage {
    let mut usage = Usage { texts: embedded.len(), ..Usage::default() };
    for text in embedded.iter().flatten() {
        usage.tokens += text.tokens;
        usage.embeddings_cached += usize::from(text.cached);
    }
    usage
}

/// Which texts a request needs, each once, and where they go.
struct Plan {
    /// What the backbone is asked for.
    inputs: Vec<EmbedInput>,
    /// For every response of the request in turn: its inputs, one a form of the head.
    rows: Vec<Vec<usize>>,
    /// The forms, in the order of the inputs of a row.
    forms: Vec<TextForm>,
    /// For every pair or item: its first row and number of rows.
    groups: Vec<(usize, usize)>,
    /// Whether the groups are pairs.
    pairs: bool,
}

impl Plan {
    fn of(work: &Work, model: &Model) -> Self {
        let mut plan = Self {
            inputs: Vec::new(),
            rows: Vec::new(),
            forms: model.head.text_forms().iter().collect(),
            groups: Vec::new(),
            pairs: matches!(work, Work::Pairs(_)),
        };
        let mut known = HashMap::new();
        match work {
            Work::Pairs(pairs) => {
                for pair in pairs {
                    plan.add_group(&pair.prompt, [&pair.response_a, &pair.response_b], &mut known);
                }
            }
            Work::Items(items) => {
                for item in items {
                    plan.add_group(&item.prompt, &item.responses, &mut known);
                }
            }
        }
        plan
    }

    fn add_group<'a>(
        &mut self,
        prompt: &'a Arc<Prompt>,
        responses: impl IntoIterator<Item = &'a Arc<str>>,
        known: &mut HashMap<(TextForm, Option<&'a Prompt>, Option<&'a str>), usize>,
    ) {
        let first = self.rows.len();
        for response in responses {
            let row = self.forms.iter().map(|form| {
                let key = match form {
                    TextForm::PromptResponse => (*form, Some(&**prompt), Some(&**response)),
                    TextForm::Prompt => (*form, Some(&**prompt), None),
                    TextForm::Response => (*form, None, Some(&**response)),
                };
                *known.entry(key).or_insert_with(|| {
                    let input = EmbedInput {
                        form: *form,
                        prompt: Arc::clone(prompt),
                        response: Arc::clone(response),
                    };
                    self.inputs.push(input);
                    self.inputs.len() - 1
                })
            });
            let row = row.collect();
            self.rows.push(row);
        }
        self.groups.push((first, self.rows.len() - first));
    }

    /// The first fault of every group, if it has one.
    fn faults(&self, embedded: &[Result<Embedded, InputError>]) -> Vec<Option<Fault>> {
        let fault = |at: usize, &(first, len): &(usize, usize)| {
            (0..len).find_map(|position| {
                let error =
                    self.rows[first + position].iter().find_map(|input| embedded[*input].as_ref().err())?;
                Some(Fault { at, part: self.part(position), error: error.clone() })
            })
        };
        self.groups.iter().enumerate().map(|(at, group)| fault(at, group)).collect()
    }

    /// What a position in a group is called.
    fn part(&self, position: usize) -> Part {
        match (self.pairs, position) {
            (true, 0) => Part::ResponseA,
            (true, _) => Part::ResponseB,
            (false, position) => Part::Response(position),
        }
    }

    /// Features of every response, `[rows, F]`; of zeros where a text has no embedding or its row is left out.
    fn features(
        &self,
        model: &Model,
        embedded: &[Result<Embedded, InputError>],
        left_out: &[usize],
    ) -> Result<Array2<f32>, HeadError> {
        self.features_of(model, embedded, 0..self.rows.len(), left_out)
    }

    fn features_of(
        &self,
        model: &Model,
        embedded: &[Result<Embedded, InputError>],
        rows: Range<usize>,
        left_out: &[usize],
    ) -> Result<Array2<f32>, HeadError> {
        let dim = model.head.embedding_dim();
        let mut matrices: Vec<Array2<f32>> =
            self.forms.iter().map(|_| Array2::zeros((rows.len(), dim))).collect();
        for (to, from) in rows.enumerate().filter(|(_, row)| !left_out.contains(row)) {
            for (matrix, input) in matrices.iter_mut().zip(&self.rows[from]) {
                if let Ok(text) = &embedded[*input] {
                    matrix.row_mut(to).assign(&ndarray::ArrayView1::from(&*text.embedding));
                }
            }
        }
        let texts = self
            .forms
            .iter()
            .zip(&matrices)
            .fold(TextEmbeddings::default(), |texts, (form, rows)| texts.with(*form, rows.view()));
        model.head.features(&texts)
    }

    fn truncated(&self, group: (usize, usize), embedded: &[Result<Embedded, InputError>]) -> bool {
        self.rows[group.0..group.0 + group.1]
            .iter()
            .flatten()
            .any(|input| embedded[*input].as_ref().is_ok_and(|text| text.truncated))
    }
}
