//! Connections that are fit for use, and see one tenant's rows.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use polyreward_storage::StorageError;
use sqlx::{
    Executor, PgConnection, PgPool, Postgres,
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
    answer_timeout: Duration,
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
            answer_timeout: options.answer_timeout(),
            attempts: options.max_connections + 1,
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection that sees the rows of one tenant.
    pub async fn read(&self, tenant: &str) -> Result<Held, StorageError> {
        self.in_time(async {
            let mut attempts = self.attempts;
            loop {
                attempts -= 1;
                let mut connection = self.hold().await.map_err(not_connected)?;
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
    pub async fn begin(&self, tenant: &str) -> Result<Held, StorageError> {
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

    /// A transaction that sees the rows of one tenant as they were at its first question.
    pub async fn snapshot(&self, tenant: &str) -> Result<Held, StorageError> {
        let mut transaction = self.read(tenant).await?;
        transaction.is_open = true;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        within(transaction.answer_timeout, transaction.execute(begin)).await.map_err(failed)?;
        Ok(transaction)
    }

    async fn try_begin(&self, tenant: &str) -> Result<(Held, Access), sqlx::Error> {
        let mut transaction = self.hold().await?;
        // Before it is known that it has begun: if nobody hears the answer, it is rolled back all the same.
        transaction.is_open = true;
        transaction.execute("BEGIN").await?;
        let access = show(&mut transaction, tenant, Lasts::Transaction).await?;
        Ok((transaction, access))
    }

    async fn hold(&self) -> Result<Held, sqlx::Error> {
        Ok(Held {
            connection: Some(self.pool.acquire().await?),
            is_open: false,
            answer_timeout: self.answer_timeout,
            return_timeout: self.acquire_timeout,
        })
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

/// A connection of the pool, or a transaction on it. It is given back as it was, or closed: of a server that has vanished
/// no answer comes, and no end of the connection, and the pool itself would wait for either.
pub(crate) struct Held {
    connection: Option<PoolConnection<Postgres>>,
    /// Whether a transaction may have begun, and has not ended.
    is_open: bool,
    answer_timeout: Duration,
    return_timeout: Duration,
}

impl Held {
    /// How long to wait for the answer to a statement, see [`within`].
    pub fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// Ends the transaction.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        within(self.answer_timeout, self.execute("COMMIT")).await?;
        self.is_open = false;
        Ok(())
    }

    /// Undoes the transaction.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        within(self.answer_timeout, self.execute("ROLLBACK")).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is held until it is dropped")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is held until it is dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (is_open, return_timeout) = (self.is_open, self.return_timeout);
        tokio::spawn(async move {
            let given_back = within(return_timeout, async {
                if is_open {
                    connection.execute("ROLLBACK").await?;
                }
                connection.return_to_pool().await;
                Ok(())
            });
            if given_back.await.is_err() {
                // Where the pool had it already, it is closed with the wait for it.
                connection.close_on_drop();
            }
        });
    }
}

/// The answer to a statement, waited for as long as the server may take to give it or to say that it does not.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let timed = tokio::time::timeout(limit, answer).await;
    timed.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
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
