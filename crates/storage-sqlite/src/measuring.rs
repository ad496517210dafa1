//! Connections for long questions, which end in time.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use polyreward_storage::StorageError;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use crate::error::storage_error;

/// Steps of SQLite's machine between two looks at the clock: some hundred microseconds.
const STEPS: i32 = 20_000;

#[derive(Debug, Clone)]
pub(crate) struct Measuring {
    pool: SqlitePool,
    timeout: Duration,
}

impl Measuring {
    pub fn new(pool: SqlitePool, timeout: Duration) -> Self {
        Self { pool, timeout }
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A transaction that sees the database as it is at its first question.
    pub async fn begin(&self) -> Result<Snapshot, StorageError> {
        let mut connection = self.pool.acquire().await.map_err(storage_error)?;
        let left = Arc::new(AtomicBool::new(false));
        let (deadline, is_left) = (Instant::now() + self.timeout, Arc::clone(&left));
        // It takes the place of the one before, whose deadline has passed or will.
        connection.lock_handle().await.map_err(storage_error)?.set_progress_handler(STEPS, move || {
            !is_left.load(Ordering::Relaxed) && Instant::now() < deadline
        });
        let transaction = sqlx::Transaction::begin(connection, None);
        Ok(Snapshot { transaction: transaction.await.map_err(storage_error)?, _left: Left(left) })
    }
}

/// A transaction that reads. A statement ends at the deadline, or when nobody waits for it any longer.
pub(crate) struct Snapshot {
    // Before the transaction, which waits for what runs.
    _left: Left,
    transaction: sqlx::Transaction<'static, Sqlite>,
}

impl Deref for Snapshot {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

/// Tells a running statement that its caller is gone.
struct Left(Arc<AtomicBool>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
