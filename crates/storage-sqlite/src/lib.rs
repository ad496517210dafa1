//! What is kept of people, in one SQLite file.
//!
//! Writers follow one another: one connection writes, and a transaction has it from its beginning (`BEGIN IMMEDIATE`), so
//! that holding a person's row is holding the file. Readers are others, see the last commit, and wait for nobody. Rows
//! that are erased are overwritten with zeros, and leave the write-ahead log too.

mod audit;
mod columns;
mod error;
mod keys;
mod measures;
mod measuring;
mod open;
mod people;
mod reads;
mod sweeper;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod watch;

pub use open::{OpenError, SqliteOptions};

use async_trait::async_trait;
use polyreward_domain::TenantId;
use polyreward_storage::{Erasures, ModelKey, Storage, StorageError, Transaction};
use sqlx::{Sqlite, SqlitePool};
use time::OffsetDateTime;

use crate::{
    columns::{json, micros},
    error::storage_error,
    measuring::Measuring,
    sweeper::Sweeper,
    transaction::SqliteTransaction,
    watch::Watch,
};

/// A database in a file; clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStorage {
    readers: SqlitePool,
    measuring: Measuring,
    writer: SqlitePool,
    sweeper: Sweeper,
    watch: Watch,
}

impl SqliteStorage {
    async fn write(&self) -> Result<sqlx::Transaction<'static, Sqlite>, StorageError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(storage_error)
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    #[tracing::instrument(name = "db.begin", skip_all)]
    async fn begin(&self, tenant: &TenantId) -> Result<Box<dyn Transaction>, StorageError> {
        let transaction = self.write().await?;
        Ok(Box::new(SqliteTransaction::new(transaction, tenant.clone(), self.sweeper.clone())))
    }

    /// Another process may have the file open, but no other server should: its readers are told nothing.
    async fn erasures(&self) -> Result<Option<Box<dyn Erasures>>, StorageError> {
        Ok(None)
    }

    #[tracing::instrument(name = "db.ping", skip_all)]
    async fn ping(&self) -> Result<(), StorageError> {
        let mut transaction = self.write().await?;
        // A write that changes nothing: a file that has become read-only refuses it.
        sqlx::query!("UPDATE tenants SET created_at = created_at WHERE tenant_id = 'default'")
            .execute(&mut *transaction)
            .await
            .map_err(storage_error)?;
        transaction.rollback().await.map_err(storage_error)
    }

    #[tracing::instrument(name = "db.state.prune", skip_all)]
    async fn prune_states(&self, tenant: &TenantId, kept: &[ModelKey]) -> Result<u64, StorageError> {
        let hex = |key: &ModelKey| key.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02X}"));
        let kept: Vec<String> = kept.iter().map(hex).collect();
        let (tenant, kept) = (tenant.as_str(), json(&kept)?);
        let mut transaction = self.write().await?;
        self.sweeper.owe();
        let pruned = sqlx::query!(
            "DELETE FROM user_states
              WHERE tenant_id = ? AND hex(model_key) NOT IN (SELECT value FROM json_each(?))",
            tenant,
            kept,
        );
        let pruned = pruned.execute(&mut *transaction).await.map_err(storage_error)?;
        transaction.commit().await.map_err(storage_error)?;
        self.sweeper.sweep_after(true).await;
        Ok(pruned.rows_affected())
    }

    #[tracing::instrument(name = "db.expire", skip_all)]
    async fn expire(
        &self,
        idempotency_before: OffsetDateTime,
        audit_before: OffsetDateTime,
    ) -> Result<u64, StorageError> {
        let (idempotency_before, audit_before) = (micros(idempotency_before), micros(audit_before));
        let mut transaction = self.write().await?;
        self.sweeper.owe();
        let answers = sqlx::query!("DELETE FROM idempotency_keys WHERE created_at < ?", idempotency_before)
            .execute(&mut *transaction)
            .await
            .map_err(storage_error)?;
        let lines = sqlx::query!("DELETE FROM audit_log WHERE at < ?", audit_before)
            .execute(&mut *transaction)
            .await
            .map_err(storage_error)?;
        transaction.commit().await.map_err(storage_error)?;
        self.sweeper.sweep_after(true).await;
        Ok(answers.rows_affected() + lines.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use polyreward_domain::UserId;
    use sqlx::AssertSqlSafe;
    use tempfile::TempDir;

    use super::*;

    async fn opened() -> (TempDir, SqliteStorage) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("people.db");
        let storage = SqliteStorage::open(file, &SqliteOptions::default()).await.unwrap();
        (folder, storage)
    }

    /// On the one connection that writes.
    async fn pragma(storage: &SqliteStorage, pragma: &str) {
        let pragma = sqlx::query(AssertSqlSafe(format!("PRAGMA {pragma}")));
        pragma.execute(&storage.writer).await.unwrap();
    }

    async fn fill(storage: &SqliteStorage, people: usize) -> Result<(), StorageError> {
        let mut writing = storage.begin(&TenantId::default()).await?;
        for number in 0..people {
            let id: UserId = format!("{number:0>128}").parse().expect("the id of a user");
            writing.hold_or_create_user(&id, OffsetDateTime::UNIX_EPOCH).await?;
        }
        writing.commit().await
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_undid_by_itself_does_not_stop_the_next_writer() {
        let (_folder, storage) = opened().await;
        let mut transaction = storage.write().await.unwrap();
        // As SQLite does it after some faults, unseen by the driver.
        sqlx::query("ROLLBACK").execute(&mut *transaction).await.unwrap();
        drop(transaction);
        storage.ping().await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_stops_writers_until_there_is_room_and_keeps_nothing_half() {
        let (_folder, storage) = opened().await;
        // SQLite's own limit stands for the disk's; it cannot be less than what is there.
        pragma(&storage, "max_page_count = 1").await;
        let full = fill(&storage, 10_000).await;
        assert!(matches!(full, Err(StorageError::Unavailable(_))), "{full:?}");
        let first: UserId = format!("{:0>128}", 0).parse().unwrap();
        let found = polyreward_storage::Reads::find(&storage, &TenantId::default(), &[first]).await.unwrap();
        assert_eq!(found, [None]);
        pragma(&storage, "max_page_count = 1000000").await;
        fill(&storage, 1000).await.unwrap();
    }

    #[tokio::test]
    async fn a_database_that_takes_no_writes_is_not_ready() {
        let (_folder, storage) = opened().await;
        pragma(&storage, "query_only = ON").await;
        for refused in [storage.ping().await, fill(&storage, 1).await] {
            assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
        }
        pragma(&storage, "query_only = OFF").await;
        storage.ping().await.unwrap();
    }
}
