//! Takes erased text out of the write-ahead log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::SqlitePool;

/// How long a sweep waits for readers and writers that are in its way.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// Erased rows are overwritten in the database file, but the write-ahead log still holds the pages on which they came. A
/// sweep copies the log into the file and cuts it to nothing. A reader of an older moment, such as a backup by another
/// process, forbids that; the sweep is then owed, and tried again after each later commit. What remains in copies of the
/// file, and on a disk below the file system, is beyond it.
#[derive(Debug, Clone)]
pub(crate) struct Sweeper {
    pool: SqlitePool,
    owed: Arc<AtomicBool>,
}

impl Sweeper {
    /// On a pool of one connection, whose busy timeout is [`PATIENCE`].
    pub(crate) fn new(pool: SqlitePool) -> Self {
        Self { pool, owed: Arc::default() }
    }

    /// Something is about to be erased: before its commit, so that a caller who leaves during it leaves the debt behind.
    pub(crate) fn owe(&self) {
        self.owed.store(true, Ordering::Release);
    }

    /// Sweeps after a commit that erased something, or where it is owed from an earlier one. A sweep by another task in
    /// the middle of this commit may have taken the debt of it, so that the flag alone would not do.
    #[tracing::instrument(name = "db.sweep", skip_all)]
    pub(crate) async fn sweep_after(&self, erased: bool) {
        if !self.owed.swap(false, Ordering::AcqRel) && !erased {
            return;
        }
        let checkpoint = sqlx::query_as::<_, (i64, i64, i64)>("PRAGMA wal_checkpoint(TRUNCATE)");
        match checkpoint.fetch_one(&self.pool).await {
            Ok((0, _, _)) => {}
            Ok(_) => {
                self.owe();
                tracing::debug!("erased text stays in the write-ahead log until its readers are done");
            }
            Err(error) => {
                self.owe();
                tracing::debug!(%error, "the write-ahead log was not swept");
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
