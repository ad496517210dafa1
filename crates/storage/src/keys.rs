//! API keys: who may ask, and for what.

use std::fmt;

use async_trait::async_trait;
use polyreward_domain::{Scopes, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::StorageError;

/// SHA-256 of a key: keys are random, so a hash need not be slow; the key itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// Says no more than a log may.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// Names a key without being one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub Uuid);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its name for logs and lists; UUIDv7.
    pub key_id: KeyId,
    /// Whose data it opens.
    pub tenant: TenantId,
    /// What it was made for, in words.
    pub name: String,
    /// What it allows.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Keys of every tenant: the one place where the tenant is an answer, not a question.
#[async_trait]
pub trait Keys: Send + Sync {
    /// The key with this hash, revoked or not.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn find_key(&self, hash: &KeyHash) -> Result<Option<KeyRecord>, StorageError>;

    /// Whether a key was ever made; revoked ones count, so that revoking the last one opens nothing.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn has_keys(&self) -> Result<bool, StorageError>;

    /// Stores a new key and makes its tenant where there is none, with one audit line.
    ///
    /// # Errors
    /// The database cannot be asked; [`StorageError::Exists`] for a hash or id that is there.
    async fn create_key(&self, key: &KeyRecord, hash: &KeyHash) -> Result<(), StorageError>;

    /// Every key, the oldest first.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, StorageError>;

    /// Revokes a key, with one audit line; false where there is none with this id. Revoking twice keeps the first moment.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn revoke_key(&self, key_id: KeyId, at: OffsetDateTime) -> Result<bool, StorageError>;

    /// Every tenant there is, in order.
    ///
    /// # Errors
    /// The database cannot be asked.
    async fn tenants(&self) -> Result<Vec<TenantId>, StorageError>;
}
