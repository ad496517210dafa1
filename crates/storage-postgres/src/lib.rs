//! People in PostgreSQL, for more than one process.
//!
//! A read takes a connection, tells it whose rows it may see (row-level security, `migrations/postgres`) and asks: two
//! round trips, the first of which also finds out whether the connection still lives. What an earlier user of the
//! connection told it is never relied on. The setting belongs to the session, so a proxy in between must not pool by
//! transaction.
//!
//! A connection that broke is replaced before anybody notices; one that only reads, though the database may have come to
//! take writes since, is replaced too.

mod connections;
mod erasures;
mod error;
mod keys;
mod measures;
mod options;
mod queries;
mod reads;
mod rows;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;

pub use options::PostgresOptions;

use std::str::FromStr;

use async_trait::async_trait;
use polyreward_domain::TenantId;
use polyreward_storage::{Erasures, Keys, ModelKey, Storage, StorageError, Transaction};
use sqlx::{
    ConnectOptions, Connection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use time::OffsetDateTime;

use crate::{
    connections::{Connections, within},
    erasures::Listening,
    error::{failed, not_connected},
    transaction::PostgresTransaction,
};

/// Rows that one statement of [`Storage::expire`] removes, at most: each is short.
const EXPIRED_AT_ONCE: i64 = 10_000;

/// A pool of connections to one database.
#[derive(Debug, Clone)]
pub struct PostgresStorage {
    connections: Connections,
    /// Connections that add up predictions.
    measuring: Connections,
}

impl PostgresStorage {
    /// Connects to a database and applies what migrations it lacks.
    ///
    /// # Errors
    /// The URL is none, the database cannot be used, or it was made by something else.
    pub async fn connect(url: &str, options: &PostgresOptions) -> Result<Self, StorageError> {
        migrate(url).await?;
        let (connection, measuring) = (parse(url, &options.application_name)?, options.measuring());
        Ok(Self {
            connections: Connections::new(options.settle(connection.clone()), options),
            measuring: Connections::new(measuring.settle_measuring(connection), &measuring),
        })
    }

    /// Waits until every connection is returned, and closes them.
    pub async fn close(&self) {
        self.connections.pool().close().await;
        self.measuring.pool().close().await;
    }
}

/// Applies what migrations a database lacks. Of several processes at once one does it, and the others wait, as long as it
/// takes. A database that a newer release has migrated is left as it is: migrations work with the release before them.
///
/// # Errors
/// The URL is none, the database cannot be used, or it was made by something else.
#[tracing::instrument(name = "db.migrate", skip_all)]
pub async fn migrate(url: &str) -> Result<(), StorageError> {
    let mut connection = parse(url, "polyreward migrate")?.connect().await.map_err(not_connected)?;
    migrator().run(&mut connection).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        other => StorageError::Backend(other.into()),
    })?;
    connection.close().await.map_err(failed)
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations/postgres");
    migrator.set_ignore_missing(true);
    migrator
}

/// An application's name in the URL comes before ours.
fn parse(url: &str, name: &str) -> Result<PgConnectOptions, StorageError> {
    let options = PgConnectOptions::from_str(url).map_err(failed)?;
    Ok(if options.get_application_name().is_none() { options.application_name(name) } else { options })
}

#[async_trait]
impl Storage for PostgresStorage {
    #[tracing::instrument(name = "db.transaction.begin", skip_all)]
    async fn begin(&self, tenant: &TenantId) -> Result<Box<dyn Transaction>, StorageError> {
        let transaction = self.connections.begin(tenant.as_str()).await?;
        Ok(Box::new(PostgresTransaction::new(transaction, tenant.clone())))
    }

    #[tracing::instrument(name = "db.erasures", skip_all)]
    async fn erasures(&self) -> Result<Option<Box<dyn Erasures>>, StorageError> {
        Ok(Some(Box::new(Listening::begin(self.connections.pool()).await?)))
    }

    #[tracing::instrument(name = "db.ping", skip_all)]
    async fn ping(&self) -> Result<(), StorageError> {
        // That it begins says that the database takes writes.
        self.connections.begin("").await?.rollback().await.map_err(failed)
    }

    #[tracing::instrument(name = "db.state.prune", skip_all)]
    async fn prune_states(&self, tenant: &TenantId, kept: &[ModelKey]) -> Result<u64, StorageError> {
        let kept: Vec<Vec<u8>> = kept.iter().map(|key| key.to_vec()).collect();
        let mut transaction = self.connections.begin(tenant.as_str()).await?;
        let pruned = sqlx::query!(
            "DELETE FROM user_states WHERE tenant_id = $1 AND model_key <> ALL ($2)",
            tenant.as_str(),
            &kept,
        );
        let timeout = transaction.answer_timeout();
        let pruned = within(timeout, pruned.execute(&mut *transaction)).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(pruned.rows_affected())
    }

    #[tracing::instrument(name = "db.expire", skip_all)]
    async fn expire(
        &self,
        idempotency_before: OffsetDateTime,
        audit_before: OffsetDateTime,
    ) -> Result<u64, StorageError> {
        let mut removed = 0;
        for tenant in self.tenants().await? {
            loop {
                let rows = self.expire_some(&tenant, idempotency_before, audit_before).await?;
                removed += rows;
                if rows == 0 {
                    break;
                }
            }
        }
        Ok(removed)
    }
}

impl PostgresStorage {
    /// Rows that another process is removing are left to it.
    async fn expire_some(
        &self,
        tenant: &TenantId,
        idempotency_before: OffsetDateTime,
        audit_before: OffsetDateTime,
    ) -> Result<u64, StorageError> {
        let mut transaction = self.connections.begin(tenant.as_str()).await?;
        let answers = sqlx::query!(
            "DELETE FROM idempotency_keys
              WHERE ctid = ANY (ARRAY(
                    SELECT ctid
                      FROM idempotency_keys
                     WHERE tenant_id = $1 AND created_at < $2
                     LIMIT $3
                       FOR UPDATE SKIP LOCKED))",
            tenant.as_str(),
            idempotency_before,
            EXPIRED_AT_ONCE,
        );
        let answers =
            within(transaction.answer_timeout(), answers.execute(&mut *transaction)).await.map_err(failed)?;
        let lines = sqlx::query!(
            "DELETE FROM audit_log
              WHERE ctid = ANY (ARRAY(
                    SELECT ctid
                      FROM audit_log
                     WHERE tenant_id = $1 AND at < $2
                     LIMIT $3
                       FOR UPDATE SKIP LOCKED))",
            tenant.as_str(),
            audit_before,
            EXPIRED_AT_ONCE,
        );
        let lines =
            within(transaction.answer_timeout(), lines.execute(&mut *transaction)).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(answers.rows_affected() + lines.rows_affected())
    }
}
