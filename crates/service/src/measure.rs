//! `/accuracy` and `/evaluate` without HTTP: for which people a reward is right, and how sure one may be of that.

mod desk;
mod evaluate;
mod figures;
mod outcome;
mod rounding;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use polyreward_domain::{Attributes, ComparisonRecord, ModelRef, ModelSelector, TenantId};
use polyreward_storage::{
    MeasuredModel, Mistake, PersonSums, Predictions, SHOTS, Span, Step, Storage, StorageError,
};

pub use outcome::{Accuracy, Curve, Curves, GroupFigures, Point, Shots, StepStart, Timeline, VersionChanges};

use self::desk::{Desk, Stamp, Turns, Undone};
use crate::{
    aside::aside,
    people::People,
    registry::{ModelRegistry, RegistryError},
    score::{ScoreError, Scorer},
};

/// Attributes that make groups, at most.
pub const MAX_GROUP_BY: usize = 2;
/// Points of a time line that a reader can still make out; the default step is the shortest that gives no more.
const READABLE_POINTS: i64 = 60;
/// Steps of a time line at most.
const MAX_STEPS: i64 = 400;
/// Points of a time line at most, over all groups.
const MAX_POINTS: usize = 20_000;
/// Rows of votes that agreement is computed from at most; they come as if drawn, so that a part stands for all.
const MAX_VOTES: usize = 400_000;
/// Attributes that a message lists.
const LISTED_KEYS: usize = 16;
/// Attributes that anybody is offered to choose from.
const MAX_KEYS: usize = 1000;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeasureQuery {
    /// Which model; `None` is the default. A version that is no longer loaded can be asked for by its full name.
    pub model: Option<ModelSelector>,
    /// Attributes that make the groups, at most [`MAX_GROUP_BY`], each once.
    pub group_by: Vec<String>,
    /// When predictions were made.
    pub span: Span,
    /// People that a shown group has at least; `None` is the server's floor.
    pub min_users: Option<usize>,
}

/// How a server measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasureOptions {
    /// People that a shown group has at least, whatever a query says.
    pub min_users: usize,
    /// Answers that are computed at the same time; others wait for their turn.
    pub max_concurrent: usize,
    /// Queries that may wait for their turn; more are refused.
    pub max_waiting: usize,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self { min_users: 5, max_concurrent: 1, max_waiting: 64 }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// Nobody knows the model.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Nobody has the attribute.
    #[error("nobody has the attribute; {}", listed(.known))]
    UnknownAttribute {
        /// Its place in the query's `group_by`.
        at: usize,
        /// Attributes that people have, as many as fit in a message.
        known: Vec<String>,
    },
    /// There would be too many steps of time.
    #[error("there are more than {0} points; take a longer step, a shorter time or fewer groups")]
    TooManyPoints(usize),
    /// As many queries wait as may.
    #[error("as many queries wait as may")]
    Overloaded,
    /// The comparisons cannot be scored.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The database cannot be asked, or took too long.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The work ended without a result.
    #[error("the work was given up")]
    GivenUp,
}

/// Attributes in words.
fn listed(known: &[String]) -> String {
    if known.is_empty() { "there is none".to_owned() } else { format!("there are {}", known.join(", ")) }
}

impl From<StorageError> for MeasureError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<Undone> for MeasureError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::UnknownAttribute { at, known } => Self::UnknownAttribute { at, known },
            Undone::TooManyPoints(most) => Self::TooManyPoints(most),
            Undone::Overloaded => Self::Overloaded,
            Undone::Storage(error) => Self::Storage(error),
            Undone::GivenUp => Self::GivenUp,
        }
    }
}

/// Comparisons to evaluate.
#[derive(Debug, Clone)]
pub struct EvaluateQuery {
    /// Which model; `None` is the default.
    pub model: Option<ModelSelector>,
    /// Attributes that make the groups.
    pub group_by: Vec<String>,
    /// People that a shown group has at least; `None` is the server's floor.
    pub min_users: Option<usize>,
    /// What people preferred. A person with examples here is asked for with the state that these made.
    pub comparisons: Vec<ComparisonRecord>,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
}

/// A question whose model is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    model: ModelRef,
    group_by: Vec<String>,
    span: Span,
    min_users: usize,
}

impl Asked {
    fn predictions(&self) -> Predictions {
        Predictions { model: self.model.clone(), span: self.span }
    }
}

/// Measures.
#[derive(Debug, Clone)]
pub struct Measurer {
    registry: Arc<ModelRegistry>,
    people: Arc<People>,
    scorer: Scorer,
    options: MeasureOptions,
    turns: Turns,
    desks: Desks,
}

type Models = Arc<Vec<MeasuredModel>>;
type AskedByTime = (Asked, Option<Step>);

/// A desk for each kind of question.
#[derive(Debug, Clone)]
struct Desks {
    accuracy: Arc<Desk<Asked, Arc<Accuracy>>>,
    shots: Arc<Desk<Asked, Arc<Curves<Shots>>>>,
    timeline: Arc<Desk<AskedByTime, Arc<Timeline>>>,
    changes: Arc<Desk<Asked, Option<Arc<VersionChanges>>>>,
    models: Arc<Desk<(), Models>>,
}

fn points<X>(curves: &Curves<X>) -> usize {
    curves.overall.len() + curves.groups.iter().map(|curve| curve.points.len()).sum::<usize>()
}

impl Desks {
    fn new(turns: &Turns) -> Self {
        Self {
            accuracy: Desk::new("accuracy", turns.clone(), |answer| answer.groups.len()),
            shots: Desk::new("shots", turns.clone(), |answer| points(answer)),
            timeline: Desk::new("timeline", turns.clone(), |answer| points(&answer.curves)),
            changes: Desk::new("changes", turns.clone(), |_| 1),
            models: Desk::new("models", turns.clone(), |models| models.len()),
        }
    }
}

impl Measurer {
    /// Measures the registry's models on these people.
    pub fn new(
        registry: Arc<ModelRegistry>,
        people: Arc<People>,
        scorer: Scorer,
        options: MeasureOptions,
    ) -> Self {
        let turns = Turns::new(&options);
        let desks = Desks::new(&turns);
        Self { registry, people, scorer, options, turns, desks }
    }

    /// How it measures.
    pub fn options(&self) -> &MeasureOptions {
        &self.options
    }

    /// Accuracy by group.
    ///
    /// # Errors
    /// The model or an attribute is unknown, the database cannot be asked or is too slow, too many wait.
    #[tracing::instrument(name = "service.accuracy", skip_all)]
    pub async fn accuracy(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
    ) -> Result<Arc<Accuracy>, MeasureError> {
        let (stamp, asked) = self.asked(tenant, query).await?;
        let (storage, tenant, question) = (self.storage(), tenant.clone(), asked.clone());
        let of = tenant.clone();
        let compute = || {
            async move {
                check_attributes(&*storage, &tenant, &question.group_by).await?;
                let predictions = question.predictions();
                let people = storage.person_sums(&tenant, &predictions, &question.group_by).await?;
                let votes = storage.pair_votes(&tenant, question.span, &question.group_by, MAX_VOTES).await?;
                let answer = aside(move || {
                    let agreement = figures::agreement_on(&votes);
                    Arc::new(figures::accuracy(&question, figures::rows(people), agreement))
                })
                .await?;
                Ok(answer)
            }
            .boxed()
        };
        Ok(self.desks.accuracy.ask(&of, asked, stamp, compute).await?)
    }

    /// Accuracy against numbers of examples.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`].
    #[tracing::instrument(name = "service.accuracy_by_shots", skip_all)]
    pub async fn shots(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
    ) -> Result<Arc<Curves<Shots>>, MeasureError> {
        let (stamp, asked) = self.asked(tenant, query).await?;
        let (storage, tenant, question) = (self.storage(), tenant.clone(), asked.clone());
        let of = tenant.clone();
        let compute = || {
            async move {
                check_attributes(&*storage, &tenant, &question.group_by).await?;
                let sums = storage.shot_sums(&tenant, &question.predictions(), &question.group_by).await?;
                let sums = sums.into_iter().map(|row| (row.group, class(row.class), row.sums)).collect();
                Ok(Arc::new(figures::curves(&question, sums)))
            }
            .boxed()
        };
        Ok(self.desks.shots.ask(&of, asked, stamp, compute).await?)
    }

    /// Accuracy against time; a step of `None` is the shortest that gives a readable number of points.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`], and too many points.
    #[tracing::instrument(name = "service.accuracy_by_time", skip_all)]
    pub async fn timeline(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
        step: Option<Step>,
    ) -> Result<Arc<Timeline>, MeasureError> {
        let (stamp, asked) = self.asked(tenant, query).await?;
        let models = self.models_at(tenant, stamp).await?;
        let (storage, tenant, question) = (self.storage(), tenant.clone(), asked.clone());
        let of = tenant.clone();
        let compute = move || {
            async move {
                check_attributes(&*storage, &tenant, &question.group_by).await?;
                let known = models.iter().find(|known| known.model == question.model);
                let step = chosen_step(known, question.span, step)?;
                let sums = storage
                    .step_sums(&tenant, &question.predictions(), &question.group_by, step, MAX_POINTS + 1)
                    .await?;
                if sums.len() > MAX_POINTS {
                    return Err(Undone::TooManyPoints(MAX_POINTS));
                }
                let sums = sums.into_iter().map(|row| (row.group, StepStart(row.start), row.sums)).collect();
                let versions = models.iter().filter(|known| known.model.name == question.model.name);
                Ok(Arc::new(Timeline {
                    step,
                    curves: figures::curves(&question, sums),
                    versions: versions.map(|known| (known.model.clone(), known.first)).collect(),
                }))
            }
            .boxed()
        };
        Ok(self.desks.timeline.ask(&of, (asked, step), stamp, compute).await?)
    }

    /// How the headline figures differ from the version of the same name that predicted before; none where there is none.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`].
    #[tracing::instrument(name = "service.accuracy_changes", skip_all)]
    pub async fn changes(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
    ) -> Result<Option<Arc<VersionChanges>>, MeasureError> {
        let (stamp, asked) = self.asked(tenant, query).await?;
        let models = self.models_at(tenant, stamp).await?;
        let Some(previous) = version_before(&models, &asked.model) else { return Ok(None) };
        let (storage, tenant, question) = (self.storage(), tenant.clone(), asked.clone());
        let of = tenant.clone();
        let compute = || {
            async move {
                check_attributes(&*storage, &tenant, &question.group_by).await?;
                let earlier = Predictions { model: previous.clone(), span: question.span };
                let sums = async |of: &Predictions| -> Result<Vec<PersonSums>, StorageError> {
                    storage.person_sums(&tenant, of, &question.group_by).await
                };
                let (current, before) = (sums(&question.predictions()).await?, sums(&earlier).await?);
                let min_users = question.min_users;
                let changes = aside(move || figures::changed(min_users, &current, &before)).await?;
                Ok(Some(Arc::new(VersionChanges { previous, changes })))
            }
            .boxed()
        };
        Ok(self.desks.changes.ask(&of, asked, stamp, compute).await?)
    }

    /// The predictions that were furthest from what was chosen, of people with all of these attributes.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`].
    #[tracing::instrument(name = "service.accuracy_mistakes", skip_all)]
    pub async fn mistakes(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<Mistake>, MeasureError> {
        let model = self.model(tenant, query.model.as_ref()).await?;
        let _turn = self.turns.turn(self.turns.place()?).await;
        let predictions = Predictions { model, span: query.span };
        Ok(self.storage().mistakes(tenant, &predictions, group, limit).await?)
    }

    /// Models that have predicted, loaded or not, by their first prediction.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn measured_models(&self, tenant: &TenantId) -> Result<Vec<MeasuredModel>, MeasureError> {
        let stamp = self.stamp(tenant).await?;
        Ok(self.models_at(tenant, stamp).await?.to_vec())
    }

    /// The attributes that people have, in the order of their bytes; the first thousand.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn attributes(&self, tenant: &TenantId) -> Result<Vec<String>, MeasureError> {
        Ok(self.storage().attribute_keys(tenant, "", MAX_KEYS).await?)
    }

    /// The model that a query is about: loaded, or one that has predicted.
    ///
    /// # Errors
    /// It is neither.
    pub async fn model(
        &self,
        tenant: &TenantId,
        selector: Option<&ModelSelector>,
    ) -> Result<ModelRef, MeasureError> {
        match self.registry.registered().find(selector) {
            Ok(model) => Ok(model.reference.clone()),
            Err(error) => {
                let stamp = self.stamp(tenant).await?;
                self.measured(tenant, stamp, selector, error).await
            }
        }
    }

    /// The moment of a question, read after it was asked, and its model.
    async fn asked(&self, tenant: &TenantId, query: &MeasureQuery) -> Result<(Stamp, Asked), MeasureError> {
        let stamp = self.stamp(tenant).await?;
        let found =
            self.registry.registered().find(query.model.as_ref()).map(|model| model.reference.clone());
        let model = match found {
            Ok(model) => model,
            Err(error) => self.measured(tenant, stamp, query.model.as_ref(), error).await?,
        };
        let asked = Asked {
            model,
            group_by: query.group_by.clone(),
            span: query.span,
            min_users: self.min_users(query.min_users),
        };
        Ok((stamp, asked))
    }

    /// The newest of the models that a selector may mean and that have predicted; else `unknown`.
    async fn measured(
        &self,
        tenant: &TenantId,
        stamp: Stamp,
        selector: Option<&ModelSelector>,
        unknown: RegistryError,
    ) -> Result<ModelRef, MeasureError> {
        let Some(selector) = selector else { return Err(unknown.into()) };
        let models = self.models_at(tenant, stamp).await?;
        let is_meant = |known: &&MeasuredModel| {
            known.model.name == selector.name
                && selector.version.as_ref().is_none_or(|version| *version == known.model.version)
        };
        let newest = models.iter().rev().find(is_meant);
        newest.map(|known| known.model.clone()).ok_or_else(|| unknown.into())
    }

    fn min_users(&self, asked: Option<usize>) -> usize {
        asked.unwrap_or(0).max(self.options.min_users)
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(self.people.storage())
    }

    async fn stamp(&self, tenant: &TenantId) -> Result<Stamp, MeasureError> {
        let erasures = self.people.erasures();
        Ok(Stamp { moment: self.people.storage().moment(tenant).await?, erasures })
    }

    async fn models_at(&self, tenant: &TenantId, stamp: Stamp) -> Result<Models, MeasureError> {
        let (storage, of) = (self.storage(), tenant.clone());
        let compute = || async move { Ok(Arc::new(storage.measured_models(&of).await?)) }.boxed();
        Ok(self.desks.models.ask(tenant, (), stamp, compute).await?)
    }
}

/// That somebody has each of the attributes that make groups.
async fn check_attributes(
    storage: &dyn Storage,
    tenant: &TenantId,
    group_by: &[String],
) -> Result<(), Undone> {
    for (at, key) in group_by.iter().enumerate() {
        if storage.attribute_keys(tenant, key, 1).await?.first() != Some(key) {
            let known = storage.attribute_keys(tenant, "", LISTED_KEYS).await?;
            return Err(Undone::UnknownAttribute { at, known });
        }
    }
    Ok(())
}

/// Numbers of examples of a class.
fn class(class: usize) -> Shots {
    Shots { from: SHOTS[class], to: SHOTS.get(class + 1).map(|next| next - 1) }
}

fn length(step: Step) -> Duration {
    match step {
        Step::Hour => Duration::from_hours(1),
        Step::Day => Duration::from_hours(24),
        Step::Week => Duration::from_hours(7 * 24),
    }
}

/// The step asked for, or the shortest that is readable, over the time in which there are predictions.
fn chosen_step(known: Option<&MeasuredModel>, span: Span, asked: Option<Step>) -> Result<Step, Undone> {
    let Some(known) = known else { return Ok(asked.unwrap_or(Step::Day)) };
    let first = span.from.map_or(known.first, |from| from.max(known.first));
    let last = span.to.map_or(known.last, |to| to.min(known.last));
    // A time that is no whole number of steps may touch one more.
    let points = |step: Step| (last - first).whole_seconds() / length(step).as_secs().cast_signed() + 2;
    let readable = [Step::Hour, Step::Day].into_iter().find(|step| points(*step) <= READABLE_POINTS);
    let step = asked.or(readable).unwrap_or(Step::Week);
    if points(step) > MAX_STEPS { Err(Undone::TooManyPoints(MAX_STEPS as usize)) } else { Ok(step) }
}

/// The latest other version of a model's name that predicted before it.
fn version_before(models: &[MeasuredModel], model: &ModelRef) -> Option<ModelRef> {
    let since = models.iter().find(|known| known.model == *model)?.first;
    let earlier = models
        .iter()
        .filter(|known| known.model.name == model.name && known.model != *model && known.first < since);
    earlier.max_by_key(|known| known.first).map(|known| known.model.clone())
}
