//! `POST /score` without HTTP: embeddings, user state, rewards, calibrated preferences.

use std::{collections::HashMap, sync::Arc, time::Instant};

use ndarray::{Array2, ArrayView2, s};
use polyreward_backbone::{Backbone, BackboneError, EmbedInput, Embedded, InputError};
use polyreward_domain::{ModelRef, ModelSelector, Overflow, Prompt, TextForm, UserId};
use polyreward_heads::{HeadError, TextEmbeddings, UserState};

use crate::{
    metrics,
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

/// The rewards of a pair.
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
    /// Whether a text was cut to the backbone's window.
    pub truncated: bool,
}

/// The rewards of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemScore {
    /// Rewards of the responses, in their order, on the scale asked for.
    pub rewards: Vec<f64>,
    /// Posterior standard deviation of each reward, on the same scale.
    pub uncertainties: Vec<f64>,
    /// Positions of the responses from the best to the worst; ties by position.
    pub ranking: Vec<usize>,
    /// Whether a text was cut to the backbone's window.
    pub truncated: bool,
}

/// A result per pair or item, in the order of the request.
#[derive(Debug, Clone, PartialEq)]
pub enum Scored {
    /// For pairs.
    Pairs(Vec<Result<PairScore, Fault>>),
    /// For items.
    Items(Vec<Result<ItemScore, Fault>>),
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
    /// Whose reward it was, unless the population's.
    pub user: Option<UserSeen>,
    /// Version of the user state; 0 is the population.
    pub user_state_version: u64,
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
    /// The head refused what the backbone gave it.
    #[error("the head failed")]
    Head(#[from] HeadError),
}

/// Scores requests with the registered models.
#[derive(Debug, Clone)]
pub struct Scorer {
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
}

impl Scorer {
    /// A scorer of the registry's models on their backbone.
    pub fn new(registry: Arc<ModelRegistry>, backbone: Backbone) -> Self {
        Self { registry, backbone }
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
            Err(ScoreError::Model(_) | ScoreError::Faults(_)) => "refused",
            Err(ScoreError::Backbone(
                BackboneError::Overloaded { .. }
                | BackboneError::TooManyTexts { .. }
                | BackboneError::DeadlineExceeded,
            )) => "overloaded",
            Err(ScoreError::Backbone(_) | ScoreError::Head(_)) => "failed",
        };
        ::metrics::counter!(metrics::SCORES_TOTAL, "outcome" => label).increment(1);
        outcome
    }

    async fn judge(&self, query: ScoreQuery) -> Result<ScoreOutcome, ScoreError> {
        let model = Arc::clone(self.registry.registered().find(query.model.as_ref())?);
        let plan = Plan::of(&query.work, &model);
        let embedded = self.backbone.embed(plan.inputs.clone(), query.overflow, query.deadline).await?;
        let started = Instant::now();
        let usage = usage_of(&embedded);
        let faults = plan.faults(&embedded);
        if !query.partial && faults.iter().any(Option::is_some) {
            return Err(ScoreError::Faults(faults.into_iter().flatten().collect()));
        }
        let rows = plan.rows.len();
        let judged = Arc::clone(&model);
        // Seconds, for a large request on the win_rate scale: not on a thread that answers probes.
        let results =
            tokio::task::spawn_blocking(move || judge(&judged, &plan, &embedded, faults, query.scale)).await;
        let results = match results {
            Ok(results) => results?,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Err(ScoreError::Backbone(BackboneError::Stopped)),
            },
        };
        ::metrics::histogram!(metrics::HEAD_SECONDS).record(started.elapsed());
        ::metrics::counter!(metrics::REWARDS_TOTAL).increment(rows as u64);
        let user = match query.whose {
            Whose::Population => None,
            Whose::User(user_id) => Some(UserSeen { user_id, examples: 0, known: false }),
        };
        Ok(ScoreOutcome {
            model: model.reference.clone(),
            backbone: self.backbone.info().name.clone(),
            user,
            user_state_version: 0,
            results,
            usage,
        })
    }
}

/// Everything after the embeddings.
fn judge(
    model: &Model,
    plan: &Plan,
    embedded: &[Result<Embedded, InputError>],
    faults: Vec<Option<Fault>>,
    scale: RewardScale,
) -> Result<Scored, HeadError> {
    let features = plan.features(model, embedded)?;
    let judge = Judge { model, user: model.head.population(), scale };
    Ok(if plan.pairs {
        Scored::Pairs(judge.pairs(plan, &features, embedded, faults)?)
    } else {
        Scored::Items(judge.items(plan, &features, embedded, faults)?)
    })
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
                let part = match (self.pairs, position) {
                    (true, 0) => Part::ResponseA,
                    (true, _) => Part::ResponseB,
                    (false, position) => Part::Response(position),
                };
                Some(Fault { at, part, error: error.clone() })
            })
        };
        self.groups.iter().enumerate().map(|(at, group)| fault(at, group)).collect()
    }

    /// Features of every response, `[rows, F]`; zero where a text has no embedding.
    fn features(
        &self,
        model: &Model,
        embedded: &[Result<Embedded, InputError>],
    ) -> Result<Array2<f32>, HeadError> {
        let dim = model.head.embedding_dim();
        let mut matrices: Vec<Array2<f32>> =
            self.forms.iter().map(|_| Array2::zeros((self.rows.len(), dim))).collect();
        for (at, row) in self.rows.iter().enumerate() {
            for (matrix, input) in matrices.iter_mut().zip(row) {
                if let Ok(text) = &embedded[*input] {
                    matrix.row_mut(at).assign(&ndarray::ArrayView1::from(&*text.embedding));
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

/// One model judging for one user on one scale.
struct Judge<'a> {
    model: &'a Model,
    user: &'a UserState,
    scale: RewardScale,
}

/// A number that would not be finite must not leave the server.
fn not_finite(at: usize, part: Part) -> Fault {
    Fault { at, part, error: InputError::NotFinite }
}

impl Judge<'_> {
    fn pairs(
        &self,
        plan: &Plan,
        features: &Array2<f32>,
        embedded: &[Result<Embedded, InputError>],
        faults: Vec<Option<Fault>>,
    ) -> Result<Vec<Result<PairScore, Fault>>, HeadError> {
        if faults.is_empty() {
            return Ok(Vec::new());
        }
        let (a, b) = (features.slice(s![0..;2, ..]), features.slice(s![1..;2, ..]));
        let margins = self.model.head.margins(&[self.user], a, b)?;
        let (rewards_a, rewards_b) = (self.rewards(a)?, self.rewards(b)?);
        let score = |(at, fault): (usize, Option<Fault>)| {
            if let Some(fault) = fault {
                return Err(fault);
            }
            let (mean, variance) = (f64::from(margins.mean[[0, at]]), f64::from(margins.variance[[0, at]]));
            let preference = self.model.card.calibration.preference(mean, variance);
            let score = PairScore {
                reward_a: rewards_a[at].0,
                reward_b: rewards_b[at].0,
                preference: preference.probability,
                uncertainty: preference.uncertainty,
                truncated: plan.truncated(plan.groups[at], embedded),
            };
            let finite = [score.reward_a, score.reward_b, score.preference, score.uncertainty];
            if finite.into_iter().all(f64::is_finite) {
                Ok(score)
            } else {
                Err(not_finite(at, Part::ResponseA))
            }
        };
        Ok(faults.into_iter().enumerate().map(score).collect())
    }

    fn items(
        &self,
        plan: &Plan,
        features: &Array2<f32>,
        embedded: &[Result<Embedded, InputError>],
        faults: Vec<Option<Fault>>,
    ) -> Result<Vec<Result<ItemScore, Fault>>, HeadError> {
        let mut results = Vec::with_capacity(faults.len());
        for (at, (fault, group)) in faults.into_iter().zip(&plan.groups).enumerate() {
            if let Some(fault) = fault {
                results.push(Err(fault));
                continue;
            }
            let rewards = self.rewards(features.slice(s![group.0..group.0 + group.1, ..]))?;
            if let Some(bad) = rewards.iter().position(|(reward, spread)| !(reward + spread).is_finite()) {
                results.push(Err(not_finite(at, Part::Response(bad))));
                continue;
            }
            let mut ranking: Vec<usize> = (0..rewards.len()).collect();
            ranking.sort_by(|x, y| rewards[*y].0.total_cmp(&rewards[*x].0).then(x.cmp(y)));
            results.push(Ok(ItemScore {
                uncertainties: rewards.iter().map(|(_, spread)| *spread).collect(),
                rewards: rewards.into_iter().map(|(reward, _)| reward).collect(),
                ranking,
                truncated: plan.truncated(*group, embedded),
            }));
        }
        Ok(results)
    }

    /// Rewards on the scale asked for, each with its posterior standard deviation.
    fn rewards(&self, features: ArrayView2<'_, f32>) -> Result<Vec<(f64, f64)>, HeadError> {
        if self.scale == RewardScale::WinRate {
            return features
                .rows()
                .into_iter()
                .map(|row| self.win_rate(row.insert_axis(ndarray::Axis(0))))
                .collect();
        }
        let moments = self.model.head.rewards(&[self.user], features)?;
        let statistics = &self.model.card.reward_statistics;
        let scaled = moments.mean.iter().zip(&moments.variance).map(|(mean, variance)| {
            let (mean, deviation) = (f64::from(*mean), f64::from(*variance).sqrt());
            match self.scale {
                RewardScale::Standard => (
                    (mean - statistics.mean) / statistics.standard_deviation,
                    deviation / statistics.standard_deviation,
                ),
                RewardScale::Raw | RewardScale::WinRate => (mean, deviation),
            }
        });
        Ok(scaled.collect())
    }

    /// Mean preference for one response against the reference responses, and the mean of the preferences' own
    /// deviations: they share the user, so they do not average out.
    fn win_rate(&self, response: ArrayView2<'_, f32>) -> Result<(f64, f64), HeadError> {
        let references = &self.model.reference_features;
        let rows = response.broadcast(references.dim()).expect("one row broadcasts to many of its length");
        let margins = self.model.head.margins(&[self.user], rows, references.view())?;
        let (mut mean, mut spread) = (0.0, 0.0);
        for (m, v) in margins.mean.iter().zip(&margins.variance) {
            let preference = self.model.card.calibration.preference(f64::from(*m), f64::from(*v));
            mean += preference.probability;
            spread += preference.uncertainty;
        }
        let count = references.nrows() as f64;
        Ok((mean / count, spread / count))
    }
}
