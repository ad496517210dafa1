//! Whether anything was written, by whichever connection of whichever process: a question that reads no row.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use polyreward_storage::{StorageError, Watermark};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::error::storage_error;

/// A connection that never writes. SQLite tells it by `data_version` whether others did, in numbers that mean something on
/// this connection alone: so there is one, and another in its place is another count.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pool: SqlitePool,
    connections: Arc<AtomicU64>,
}

impl Watch {
    /// `pool` has one connection, opened when it is first asked.
    pub fn new(pool: SqlitePoolOptions, connect: SqliteConnectOptions) -> Self {
        let connections = Arc::new(AtomicU64::new(0));
        let opened = Arc::clone(&connections);
        let pool = pool.max_connections(1).after_connect(move |_, _| {
            opened.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(()) })
        });
        Self { pool: pool.connect_lazy_with(connect.pragma("query_only", "ON")), connections }
    }

    pub async fn watermark(&self) -> Result<Watermark, StorageError> {
        let mut connection = self.pool.acquire().await.map_err(storage_error)?;
        // Nobody can open another while this one is held.
        let connections = self.connections.load(Ordering::SeqCst);
        let version: i64 = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut *connection)
            .await
            .map_err(storage_error)?;
        Ok(Watermark::new(format!("{connections}:{version}")))
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}
