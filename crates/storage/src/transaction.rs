//! What happens together, or not at all.

use async_trait::async_trait;
use polyreward_domain::{Attributes, ExampleId, ModelRef, StateVersion, TextForms, UserId};
use time::OffsetDateTime;

use crate::{
    error::StorageError,
    records::{
        AuditEntry, Evidence, ExampleEmbedding, IdempotencyRecord, ModelKey, NewExample, Prediction,
        StoredState, SubjectHash, UserRecord,
    },
};

/// Writes for one tenant. A method's error undoes the whole: nothing may follow but dropping it.
#[async_trait]
pub trait Transaction: Send {
    /// Takes hold of a person's row until the end, and makes the person where there is none; whether it did.
    async fn hold_or_create_user(
        &mut self,
        user_id: &UserId,
        now: OffsetDateTime,
    ) -> Result<(UserRecord, bool), StorageError>;

    /// Takes hold of a person's row until the end.
    async fn hold_user(&mut self, user_id: &UserId) -> Result<Option<UserRecord>, StorageError>;

    /// Which of these examples a person has already.
    async fn known_examples(
        &mut self,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<ExampleId>, StorageError>;

    /// As [`crate::Reads::evidence`].
    async fn evidence(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError>;

    /// As [`crate::Reads::state`].
    async fn state(
        &mut self,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError>;

    /// Stores examples with their embeddings under a backbone.
    async fn add_examples(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        examples: &[NewExample],
    ) -> Result<(), StorageError>;

    /// Stores embeddings of examples that are stored already; those that are there, or whose example is not, are left as
    /// they are.
    async fn add_embeddings(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        embeddings: &[(ExampleId, Vec<ExampleEmbedding>)],
    ) -> Result<(), StorageError>;

    /// Stores predictions about examples of one person.
    async fn add_predictions(
        &mut self,
        user_id: &UserId,
        predictions: &[Prediction],
    ) -> Result<(), StorageError>;

    /// Stores what a model believes of a person, in place of what it believed.
    async fn put_state(
        &mut self,
        user_id: &UserId,
        model: &ModelKey,
        name: &ModelRef,
        state: &StoredState,
    ) -> Result<(), StorageError>;

    /// Removes every model's state of a person.
    async fn remove_states(&mut self, user_id: &UserId) -> Result<u64, StorageError>;

    /// Sets all of a person's attributes.
    async fn put_attributes(&mut self, user_id: &UserId, attributes: &Attributes)
    -> Result<(), StorageError>;

    /// Sets what is counted on a person's row.
    async fn save_user(
        &mut self,
        user_id: &UserId,
        version: StateVersion,
        examples: u64,
        next_position: u64,
        now: OffsetDateTime,
    ) -> Result<(), StorageError>;

    /// Erases an example with its embeddings and the predictions about it; false where there is none.
    async fn erase_example(&mut self, user_id: &UserId, example_id: &ExampleId)
    -> Result<bool, StorageError>;

    /// Erases a person with everything that is theirs: attributes, examples, embeddings, states, predictions, answers
    /// kept for repeated requests. False where there is nobody.
    async fn erase_user(&mut self, user_id: &UserId) -> Result<bool, StorageError>;

    /// The first answer to a request that named itself so.
    async fn idempotency(&mut self, key: &str) -> Result<Option<IdempotencyRecord>, StorageError>;

    /// Keeps the first answer about a person to a request that may be repeated; [`StorageError::Exists`] where one with
    /// this key is kept.
    async fn keep_idempotency(
        &mut self,
        user_id: &UserId,
        record: &IdempotencyRecord,
    ) -> Result<(), StorageError>;

    /// Tells the other processes, with the commit, to let go of what they keep of a person in memory.
    async fn announce_erasure(&mut self, subject: &SubjectHash) -> Result<(), StorageError>;

    /// Adds a line to the audit log.
    async fn audit(&mut self, entry: &AuditEntry) -> Result<(), StorageError>;

    /// Makes all of it true at once, and lasting. After an error it is not known whether it did, but never half of it.
    async fn commit(self: Box<Self>) -> Result<(), StorageError>;
}
