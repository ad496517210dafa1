//! `/accuracy` and `/evaluate` without HTTP: for which people a reward is right, and how sure one may be of that.

mod outcome;

use std::sync::Arc;

use polyreward_domain::{Attributes, ComparisonRecord, ModelRef, ModelSelector, TenantId};
use polyreward_storage::{MeasuredModel, Mistake, Span, Step, StorageError};

pub use outcome::{Accuracy, Curve, Curves, GroupFigures, Point, Shots, StepStart, Timeline, VersionChanges};

use crate::{
    people::People,
    registry::{ModelRegistry, RegistryError},
    score::{ScoreError, Scorer},
};

/// Attributes that make groups, at most.
pub const MAX_GROUP_BY: usize = 2;

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
    #[error("nobody has the attribute; there are {}", .known.join(", "))]
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
    Storage(#[from] StorageError),
    /// The work ended without a result.
    #[error("the work was given up")]
    GivenUp,
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
}

/// Measures.
#[derive(Debug, Clone)]
pub struct Measurer {
    registry: Arc<ModelRegistry>,
    people: Arc<People>,
    scorer: Scorer,
    options: MeasureOptions,
}

impl Measurer {
    /// Measures the registry's models on these people.
    pub fn new(
        registry: Arc<ModelRegistry>,
        people: Arc<People>,
        scorer: Scorer,
        options: MeasureOptions,
    ) -> Self {
        Self { registry, people, scorer, options }
    }

    /// How it measures.
    pub fn options(&self) -> &MeasureOptions {
        &self.options
    }

    /// Accuracy by group.
    ///
    /// # Errors
    /// The model or an attribute is unknown, the database cannot be asked or is too slow, too many wait.
    pub async fn accuracy(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
    ) -> Result<Arc<Accuracy>, MeasureError> {
        let _ = (tenant, query, &self.registry, &self.people, &self.scorer);
        todo!()
    }

    /// Accuracy against numbers of examples.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`].
    pub async fn shots(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
    ) -> Result<Arc<Curves<Shots>>, MeasureError> {
        let _ = (tenant, query);
        todo!()
    }

    /// Accuracy against time; a step of `None` is the shortest that gives a readable number of points.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`], and too many points.
    pub async fn timeline(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
        step: Option<Step>,
    ) -> Result<Arc<Timeline>, MeasureError> {
        let _ = (tenant, query, step);
        todo!()
    }

    /// How the headline figures differ from the version of the same name that predicted before; none where there is none.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`].
    pub async fn changes(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
    ) -> Result<Option<Arc<VersionChanges>>, MeasureError> {
        let _ = (tenant, query);
        todo!()
    }

    /// The predictions that were furthest from what was chosen, of people with all of these attributes.
    ///
    /// # Errors
    /// Those of [`Self::accuracy`].
    pub async fn mistakes(
        &self,
        tenant: &TenantId,
        query: &MeasureQuery,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<Mistake>, MeasureError> {
        let _ = (tenant, query, group, limit);
        todo!()
    }

    /// Models that have predicted, loaded or not, by their first prediction.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn measured_models(&self, tenant: &TenantId) -> Result<Vec<MeasuredModel>, MeasureError> {
        let _ = tenant;
        todo!()
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
        let _ = (tenant, selector);
        todo!()
    }

    /// Accuracy by group on comparisons that are not kept. Each is predicted with what the server believes of its person now;
    /// the people's examples among them are no fair test.
    ///
    /// # Errors
    /// The comparisons cannot be scored, and those of [`Self::accuracy`].
    pub async fn evaluate(&self, tenant: &TenantId, query: EvaluateQuery) -> Result<Accuracy, MeasureError> {
        let _ = (tenant, query);
        todo!()
    }
}
