//! Questions that change nothing.

use std::fmt::Debug;

use async_trait::async_trait;
use polyreward_domain::{Attributes, ExampleId, ModelRef, TenantId, TextForms, UserId};

use crate::{
    error::StorageError,
    records::{
        Crowd, Evidence, GroupCount, ModelKey, ModelTally, PersonSummary, StoredExample, StoredState,
        UserRecord, Watermark,
    },
};

/// People that [`Reads::find`] is asked for at once, at most.
pub const MAX_FOUND: usize = 1 << 16;

/// Predictions among which [`Reads::unjudged_examples`] looks.
pub const LATEST_PREDICTIONS: usize = 500;

/// Each method is one statement and sees one moment; its error is that the database cannot be asked.
#[async_trait]
pub trait Reads: Debug + Send + Sync {
    /// These people, in their order; an unknown one is none. One look-up by the primary key each, in one statement.
    async fn find(
        &self,
        tenant: &TenantId,
        user_ids: &[UserId],
    ) -> Result<Vec<Option<PersonSummary>>, StorageError>;

    /// The first `limit` of the people who have all of these attributes, in the order of their ids (bytes, not a
    /// collation); no attributes is everybody.
    async fn members(
        &self,
        tenant: &TenantId,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<PersonSummary>, StorageError>;

    /// How far the writing has come, at the cost of no row: what was read after a watermark is good for as long as it is the
    /// same.
    async fn watermark(&self, tenant: &TenantId) -> Result<Watermark, StorageError>;

    /// What tells this moment of a group from another, at less cost than its members.
    async fn crowd(&self, tenant: &TenantId, group: &Attributes) -> Result<Crowd, StorageError>;

    /// One person, with attributes.
    async fn user(&self, tenant: &TenantId, user_id: &UserId) -> Result<Option<UserRecord>, StorageError>;

    /// The first `limit` of the people after one, in the order of their ids.
    async fn users(
        &self,
        tenant: &TenantId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<UserRecord>, StorageError>;

    /// How many people have each value of each attribute: the first `limit` after one, in the order of key and value
    /// (bytes).
    async fn groups(
        &self,
        tenant: &TenantId,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<GroupCount>, StorageError>;

    /// The first `limit` of a person's examples after a position, in the order in which they came.
    async fn examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError>;

    /// The texts of some of a person's examples, in the order in which they came.
    async fn examples_by_id(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<StoredExample>, StorageError>;

    /// Examples of other people that a model predicted lately, of pairs that this person did not judge, the latest first: the
    /// first `limit` out of the latest [`LATEST_PREDICTIONS`].
    async fn unjudged_examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelRef,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError>;

    /// What a head learns from all of a person's examples, in the order in which they came, with what embeddings are
    /// stored under a backbone in the forms asked for.
    async fn evidence(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError>;

    /// What a model believes of a person, of whatever version of their examples it was derived.
    async fn state(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError>;

    /// How often each model was right about a person, in the order of the models' names.
    async fn tallies(&self, tenant: &TenantId, user_id: &UserId) -> Result<Vec<ModelTally>, StorageError>;
}
