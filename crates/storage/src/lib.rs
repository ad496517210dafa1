//! What is kept of people and who may ask for it, as traits: a backend is a crate of its own.
//!
//! The examples are the truth. States and the accuracy counted from predictions are derived from them, and kept beside
//! them so that nobody waits. Every call names a tenant and sees nothing of another's.
//!
//! Reads stand alone. What must happen together happens in a [`Transaction`], which begins by taking hold of its person's
//! row: two writers of one person follow one another, writers of different people need not.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod keys;
mod measures;
mod reads;
mod records;
mod transaction;

pub use error::StorageError;
pub use keys::{KeyHash, KeyId, KeyRecord, Keys};
pub use measures::{
    CrowdSums, GroupValues, MeasuredModel, Measures, Mistake, Moment, PairVotes, PersonSums, Predictions,
    SHOTS, ShotSums, Span, Step, StepSums,
};
pub use reads::{LATEST_PREDICTIONS, MAX_FOUND, Reads};
pub use records::{
    AuditAction, AuditEntry, Crowd, Evidence, ExampleEmbedding, GroupCount, IdempotencyRecord, ModelKey,
    ModelTally, NewExample, PersonSummary, Prediction, RequestHash, StoredExample, StoredState, SubjectHash,
    UserRecord, Watermark,
};
pub use transaction::Transaction;

use async_trait::async_trait;
use polyreward_domain::TenantId;

/// A database of people, as a server uses it; clones of an `Arc` share it.
#[async_trait]
pub trait Storage: Reads + Keys + Measures {
    /// Begins to write for one tenant. Dropped without [`Transaction::commit`], it leaves no trace.
    ///
    /// # Errors
    /// No connection in time.
    async fn begin(&self, tenant: &TenantId) -> Result<Box<dyn Transaction>, StorageError>;

    /// Erasures by any process, from now on; none where no other process can have the database open.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn erasures(&self) -> Result<Option<Box<dyn Erasures>>, StorageError>;

    /// Whether the database answers and takes writes, for readiness.
    ///
    /// # Errors
    /// Why it does not.
    async fn ping(&self) -> Result<(), StorageError>;

    /// Removes one tenant's states of all models but these; returns how many.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn prune_states(&self, tenant: &TenantId, kept: &[ModelKey]) -> Result<u64, StorageError>;

    /// Removes idempotency records and audit lines older than given moments; returns how many.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn expire(
        &self,
        idempotency_before: time::OffsetDateTime,
        audit_before: time::OffsetDateTime,
    ) -> Result<u64, StorageError>;
}

/// What [`Storage::erasures`] tells.
#[async_trait]
pub trait Erasures: Send {
    /// Waits for the next: whose it was, or none where some may have been missed.
    ///
    /// # Errors
    /// The database cannot be asked; nothing follows.
    async fn next(&mut self) -> Result<Option<SubjectHash>, StorageError>;
}
