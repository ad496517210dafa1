//! Predictions added up: what accuracy is counted from.
//!
//! Every prediction was made before its example was learned from, so that nothing here grades a model on what it knew.
//! The database reduces predictions to one row per person (or per moment, or per number of examples); intervals are drawn
//! from those rows.

use std::fmt::Debug;

use async_trait::async_trait;
use polyreward_domain::{Attributes, ExampleId, ModelRef, Prompt, Tally, TenantId, UserId};
use time::OffsetDateTime;

use crate::error::StorageError;

/// From a moment on, and before another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first moment in it.
    pub from: Option<OffsetDateTime>,
    /// The first moment after it.
    pub to: Option<OffsetDateTime>,
}

/// Which predictions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Predictions {
    /// By which model.
    pub model: ModelRef,
    /// When they were made.
    pub span: Span,
}

/// The values that somebody has of the attributes asked for, in their order; none where nothing is known.
pub type GroupValues = Vec<Option<String>>;

/// One model's predictions about one person, added up.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonSums {
    /// Who.
    pub user_id: UserId,
    /// Of which group.
    pub group: GroupValues,
    /// The predictions.
    pub tally: Tally,
}

/// Predictions of some people, added up, with what the spread between people needs: each sum of squares adds one product
/// per person.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CrowdSums {
    /// People.
    pub users: u64,
    /// Predictions.
    pub n: u64,
    /// Of them right.
    pub correct: f64,
    /// Negative log preferences of what was chosen, in nats.
    pub log_loss: f64,
    /// How often the population's reward was right.
    pub population_correct: f64,
    /// Predictions for which the baseline's is known as well.
    pub baseline_n: u64,
    /// How often that was right.
    pub baseline_correct: f64,
    /// Sum over people of n^2.
    pub n_n: f64,
    /// Sum over people of n * correct.
    pub n_correct: f64,
    /// Sum over people of correct^2.
    pub correct_correct: f64,
    /// Sum over people of n * gain, where a person's gain is correct - population_correct.
    pub n_gain: f64,
    /// Sum over people of gain^2.
    pub gain_gain: f64,
}

/// Numbers of examples, from the first to before the second.
#[derive(Debug, Clone, PartialEq)]
pub struct ShotSums {
    /// Of which group.
    pub group: GroupValues,
    /// The class of numbers of examples, an index of [`SHOTS`].
    pub class: usize,
    /// The predictions made with as many examples.
    pub sums: CrowdSums,
}

/// Where classes of numbers of examples begin; the last has no end.
pub const SHOTS: [u64; 12] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128];

/// How long a step of a time line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// 60 minutes.
    Hour,
    /// A day of UTC.
    Day,
    /// From Monday to Sunday, UTC.
    Week,
}

/// A step of the time line of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSums {
    /// Of which group.
    pub group: GroupValues,
    /// When the step begins.
    pub start: OffsetDateTime,
    /// The predictions made in it.
    pub sums: CrowdSums,
}

/// How many people of a group took each side of one pair of responses to one prompt. A person who judged the pair more than
/// once has the side they took more often; a tie is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairVotes {
    /// Names the pair, whichever of the two was chosen: a digest.
    pub pair: i64,
    /// Of which group.
    pub group: GroupValues,
    /// People who took one side.
    pub first: u64,
    /// People who took the other.
    pub second: u64,
}

/// A prediction that was far from what somebody chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// Whose example.
    pub user_id: UserId,
    /// Which.
    pub example_id: ExampleId,
    /// How many examples the person had before it.
    pub shot: u64,
    /// P(chosen preferred to rejected) under the state before it.
    pub preference: f64,
    /// The same under the population's state.
    pub population_preference: f64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// What was asked.
    pub prompt: Prompt,
    /// The response that the person preferred.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
}

/// A model that has predicted, whether or not it is still loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredModel {
    /// Which.
    pub model: ModelRef,
    /// Its first prediction that is still there.
    pub first: OffsetDateTime,
    /// Its last.
    pub last: OffsetDateTime,
}

/// What tells one moment of a tenant's people and examples from another: two alike have the same predictions and attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Moment {
    /// How many people there are.
    pub users: u64,
    /// The upper halves of the versions of their examples, each as a signed number, added up.
    pub upper: i64,
    /// The lower halves, each as an unsigned number, added up.
    pub lower: i64,
    /// When the last of them changed.
    pub changed_at: Option<OffsetDateTime>,
    /// The microseconds within a minute at which each of them changed last, added up: a change is seen that was made by a
    /// clock which is behind another's.
    pub ticks: i64,
}

/// Each method sees one moment, has connections of its own so that nobody who scores waits for it, and ends with
/// [`StorageError::TooSlow`] after the time that is set for it.
#[async_trait]
pub trait Measures: Debug + Send + Sync {
    /// What tells this moment from another, at little cost.
    async fn moment(&self, tenant: &TenantId) -> Result<Moment, StorageError>;

    /// Predictions by person, in the order of their ids (bytes); people without one are left out.
    async fn person_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
    ) -> Result<Vec<PersonSums>, StorageError>;

    /// Predictions by group and class of numbers of examples, in no particular order; empty ones are left out.
    async fn shot_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
    ) -> Result<Vec<ShotSums>, StorageError>;

    /// Predictions by group and step of time, in no particular order; empty ones are left out. At most `limit` rows.
    async fn step_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
        step: Step,
        limit: usize,
    ) -> Result<Vec<StepSums>, StorageError>;

    /// Pairs that at least two people judged, by group, in the order of their digests, which is as good as a draw; at most
    /// `limit` rows, and each pair whole.
    async fn pair_votes(
        &self,
        tenant: &TenantId,
        span: Span,
        group_by: &[String],
        limit: usize,
    ) -> Result<Vec<PairVotes>, StorageError>;

    /// The `limit` predictions that gave the least to what was chosen, the worst first, of people who have all of these
    /// attributes.
    async fn mistakes(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<Mistake>, StorageError>;

    /// Models that have predicted, by their first prediction, the newest last.
    async fn measured_models(&self, tenant: &TenantId) -> Result<Vec<MeasuredModel>, StorageError>;

    /// The first `limit` of the attributes that people have, from this one on, in the order of their bytes. One look-up in
    /// an index each, however many people have it.
    async fn attribute_keys(
        &self,
        tenant: &TenantId,
        from: &str,
        limit: usize,
    ) -> Result<Vec<String>, StorageError>;
}
