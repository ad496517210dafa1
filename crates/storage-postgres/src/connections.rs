//! Connections that are fit for use, and see one tenant's rows.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use polyreward_storage::StorageError;
use sqlx::{
    PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    error::{failed, is_broken, not_connected},
    options::PostgresOptions,
};

/// How often all connections are replaced because they only read, at most.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: PgPool,
    renewal: Arc<Renewal>,
    acquire_timeout: Duration,
    /// As many connections may be broken, and one more that is not.
    attempts: u32,
}

impl Connections {
    /// Connects only when somebody asks.
    pub fn new(connection: PgConnectOptions, options: &PostgresOptions) -> Self {
        let renewal = Arc::new(Renewal::default());
        let renewed = Arc::clone(&renewal);
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            // What we say first to a connection is the test.
            .test_before_acquire(false)
            .before_acquire(move |_, connection| {
                let fit = renewed.is_younger(connection.age);
                Box::pin(async move { Ok(fit) })
            })
            .connect_lazy_with(connection);
        Self {
            pool,
            renewal,
            acquire_timeout: options.acquire_timeout,
            attempts: options.max_connections + 1,
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection that sees the rows of one tenant.
    pub async fn read(&self, tenant: &str) -> Result<PoolConnection<Postgres>, StorageError> {
        self.in_time(async {
            let mut attempts = self.attempts;
            loop {
                attempts -= 1;
                let mut connection = self.pool.acquire().await.map_err(not_connected)?;
                match show(&mut connection, tenant, Lasts::Session).await {
                    Ok(_) => return Ok(connection),
                    Err(error) if attempts > 0 && is_broken(&error) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        })
        .await
    }

    /// A transaction that sees the rows of one tenant, in a database that takes writes.
    pub async fn begin(&self, tenant: &str) -> Result<sqlx::Transaction<'static, Postgres>, StorageError> {
        self.in_time(async {
            let mut attempts = self.attempts;
            loop {
                attempts -= 1;
                match self.try_begin(tenant).await {
                    Ok((transaction, Access::Writes)) => return Ok(transaction),
                    // A connection keeps to what the database was when it was made; others may do better.
                    Ok((_, Access::Reads)) if self.renewal.begin() => {}
                    Ok((_, Access::Reads)) => {
                        return Err(StorageError::Unavailable("the database only reads".into()));
                    }
                    Err(error) if attempts > 0 && is_broken(&error) => {}
                    Err(error) => return Err(not_connected(error)),
                }
            }
        })
        .await
    }

    async fn try_begin(
        &self,
        tenant: &str,
    ) -> Result<(sqlx::Transaction<'static, Postgres>, Access), sqlx::Error> {
        let pool = self.pool.clone();
        // A task of its own, which nobody can break off: sqlx would return a connection to the pool with its transaction
        // open if that happened between BEGIN and the answer to it.
        let begun = tokio::spawn(async move { pool.begin().await });
        let mut transaction = begun.await.map_err(|_| sqlx::Error::WorkerCrashed)??;
        let access = show(&mut transaction, tenant, Lasts::Transaction).await?;
        Ok((transaction, access))
    }

    /// Also bounds the wait for a server that does not say that it is gone.
    async fn in_time<T>(
        &self,
        connected: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let timed = tokio::time::timeout(self.acquire_timeout, connected).await;
        timed.unwrap_or_else(|_| {
            Err(StorageError::Unavailable(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

/// What a connection allows.
enum Access {
    Reads,
    Writes,
}

/// Until when a tenant's rows are seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasts {
    Session,
    Transaction,
}

/// Lets a connection see the rows of one tenant alone.
async fn show(connection: &mut PgConnection, tenant: &str, lasts: Lasts) -> Result<Access, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT set_config('polyreward.tenant', $1, $2) AS "tenant!",
                  current_setting('transaction_read_only') = 'on' AS "only_reads!""#,
        tenant,
        lasts == Lasts::Transaction,
    );
    let row = row.fetch_one(connection).await?;
    Ok(if row.only_reads { Access::Reads } else { Access::Writes })
}

/// When connections were last found to be of a database that only reads: older ones are not used again.
#[derive(Debug, Default)]
struct Renewal(Mutex<Option<Instant>>);

impl Renewal {
    /// Begins one, unless one has begun just now.
    fn begin(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= RENEWED_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    /// Whether a connection of this age was made since.
    fn is_younger(&self, age: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| age < last.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_renewed_once_in_a_while() {
        let renewal = Renewal::default();
        assert!(renewal.is_younger(Duration::MAX));
        assert!(renewal.begin());
        assert!(!renewal.begin());
        assert!(!renewal.is_younger(Duration::from_mins(1)));
    }
}
