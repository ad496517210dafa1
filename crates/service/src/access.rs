//! Who may ask: API keys, and a server without any.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use polyreward_domain::{Scope, Scopes, TenantId};
use polyreward_storage::{KeyHash, KeyId, KeyRecord, Storage, StorageError};
use rand::TryRng;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::Clock;

/// What every key begins with, so that a leaked one is recognised.
const PREFIX: &str = "pr_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// Hashes of keys remembered at once, unknown ones among them.
const REMEMBERED: u64 = 10_000;
/// Bytes of a key that are looked at; more is not one of ours.
const MAX_KEY_BYTES: usize = 256;

/// Who asks, and what they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose data they see.
    pub tenant: TenantId,
    /// With which key; none on a server without keys.
    pub key_id: Option<KeyId>,
    /// What they may.
    pub scopes: Scopes,
}

impl Caller {
    /// Anybody, on a server without keys.
    fn anybody() -> Self {
        Self { tenant: TenantId::default(), key_id: None, scopes: Scopes::all() }
    }

    /// Whether they may do what needs this scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }
}

/// Why somebody may not ask.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No key came with the request.
    #[error("no API key came with the request")]
    Missing,
    /// The key is unknown or revoked; which of the two is nobody's business.
    #[error("the API key is not valid")]
    Invalid,
    /// The keys cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// How keys are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessOptions {
    /// How long what is known of a key counts; a revoked one stops working after it.
    pub remember: Duration,
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self { remember: Duration::from_secs(5) }
    }
}

/// A key that was just made: the only time that it is seen.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The key itself.
    pub secret: String,
    /// What is kept of it.
    pub record: KeyRecord,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("record", &self.record).finish_non_exhaustive()
    }
}

/// The keys of a server.
#[derive(Debug, Clone)]
pub struct Access {
    storage: Arc<dyn Storage>,
    known: Cache<KeyHash, Option<KeyRecord>>,
    /// Whether there are no keys, as of a moment ago.
    open: Cache<(), bool>,
    /// Whether there was ever a key: that does not change back.
    has_keys: Arc<AtomicBool>,
}

impl Access {
    /// The keys of a database.
    pub fn new(storage: Arc<dyn Storage>, options: AccessOptions) -> Self {
        let cache = |max| Cache::builder().max_capacity(max).time_to_live(options.remember);
        Self {
            storage,
            known: cache(REMEMBERED).build(),
            open: Cache::builder().max_capacity(1).time_to_live(options.remember).build(),
            has_keys: Arc::default(),
        }
    }

    /// Who presents this key. Without any keys, anybody may ask, and a key that comes along is not looked at.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn identify(&self, key: Option<&str>) -> Result<Caller, AccessError> {
        if self.is_open().await? {
            return Ok(Caller::anybody());
        }
        let key = key.ok_or(AccessError::Missing)?;
        if key.len() > MAX_KEY_BYTES || !key.starts_with(PREFIX) {
            return Err(AccessError::Invalid);
        }
        let hash = hash_of(key);
        let record = if let Some(known) = self.known.get(&hash) {
            known
        } else {
            let found = self.storage.find_key(&hash).await?;
            self.known.insert(hash, found.clone());
            found
        };
        match record {
            Some(KeyRecord { key_id, tenant, scopes, revoked_at: None, .. }) => {
                Ok(Caller { tenant, key_id: Some(key_id), scopes })
            }
            _ => Err(AccessError::Invalid),
        }
    }

    /// Whether no key was ever made.
    ///
    /// # Errors
    /// The keys cannot be read.
    pub async fn is_open(&self) -> Result<bool, StorageError> {
        if self.has_keys.load(Ordering::Acquire) {
            return Ok(false);
        }
        if let Some(open) = self.open.get(&()) {
            return Ok(open);
        }
        let has_keys = self.storage.has_keys().await?;
        if has_keys {
            self.has_keys.store(true, Ordering::Release);
        }
        self.open.insert((), !has_keys);
        Ok(!has_keys)
    }

    /// Makes a key; its tenant comes into being with the first one.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn create(
        &self,
        tenant: TenantId,
        name: String,
        scopes: Scopes,
        clock: &dyn Clock,
    ) -> Result<NewKey, StorageError> {
        let mut random = [0_u8; KEY_BYTES];
        rand::rngs::SysRng
            .try_fill_bytes(&mut random)
            .map_err(|error| StorageError::Backend(error.into()))?;
        let secret = random.iter().fold(PREFIX.to_owned(), |key, byte| format!("{key}{byte:02x}"));
        let created_at = clock.now();
        let key_id = KeyId(Uuid::now_v7());
        let record = KeyRecord { key_id, tenant, name, scopes, created_at, revoked_at: None };
        self.storage.create_key(&record, &hash_of(&secret)).await?;
        Ok(NewKey { secret, record })
    }
}

fn hash_of(key: &str) -> KeyHash {
    KeyHash(Sha256::digest(key.as_bytes()).into())
}
