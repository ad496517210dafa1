//! The configured database, whichever it is: the one place that knows both.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use polyreward_service::{Clock, SystemClock};
use polyreward_storage::Storage;
use polyreward_storage_postgres::{PostgresOptions, PostgresStorage};
use polyreward_storage_sqlite::{SqliteOptions, SqliteStorage};

use crate::config::{Config, UsageError};

/// How often what is too old is removed.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);
/// How long the answer to a request that may be repeated is kept.
const KEEP_ANSWERS: Duration = Duration::from_hours(24);

/// An open database.
pub enum Open {
    /// A file of this machine.
    Sqlite(SqliteStorage),
    /// A server.
    Postgres(PostgresStorage),
}

impl Open {
    /// Opens the database that a configuration names, makes it where there is none, and brings it up to date.
    pub async fn of(config: &Config) -> anyhow::Result<Self> {
        let (measure_timeout, measure_connections) =
            (config.accuracy.timeout(), config.accuracy.connections());
        let config = &config.database;
        if let Some(path) = sqlite_path(config.url.expose()) {
            let options = SqliteOptions {
                acquire_timeout: config.acquire_timeout(),
                measure_timeout,
                measure_connections,
                ..SqliteOptions::default()
            };
            let storage = SqliteStorage::open(path, &options).await.context("database.url")?;
            return Ok(Self::Sqlite(storage));
        }
        if is_postgres(config.url.expose()) {
            let options = PostgresOptions {
                max_connections: config.max_connections,
                acquire_timeout: config.acquire_timeout(),
                statement_timeout: Duration::from_millis(config.statement_timeout_ms),
                measure_timeout,
                measure_connections,
                ..PostgresOptions::default()
            };
            let connected = PostgresStorage::connect(config.url.expose(), &options).await;
            return Ok(Self::Postgres(connected.context("database.url: the PostgreSQL database")?));
        }
        let detail = "database.url: begins with sqlite: and a path, or is a postgres:// URL";
        Err(UsageError(detail.to_owned()).into())
    }

    /// The database as the service knows it.
    pub fn storage(&self) -> Arc<dyn Storage> {
        match self {
            Self::Sqlite(storage) => Arc::new(storage.clone()),
            Self::Postgres(storage) => Arc::new(storage.clone()),
        }
    }

    /// Waits for what is under way, and closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(storage) => storage.close().await,
            Self::Postgres(storage) => storage.close().await,
        }
    }
}

/// The path of a `sqlite:` URL.
fn sqlite_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?;
    Some(path.strip_prefix("//").unwrap_or(path)).filter(|path| !path.is_empty())
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Removes what is too old, now and from then on.
pub async fn expire(storage: Arc<dyn Storage>, keep_audit: Duration) {
    let mut ticks = tokio::time::interval(EXPIRE_EVERY);
    loop {
        ticks.tick().await;
        let now = SystemClock.now();
        match storage.expire(now - KEEP_ANSWERS, now - keep_audit).await {
            Ok(removed) if removed > 0 => {
                tracing::info!(rows = removed, "removed {removed} rows that were too old");
            }
            Ok(_) => {}
            // The next hour tries again.
            Err(error) => tracing::warn!(error = %error, "what is too old was not removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_which_database() {
        assert_eq!(sqlite_path("sqlite:people.db"), Some("people.db"));
        assert_eq!(sqlite_path("sqlite:///var/people.db"), Some("/var/people.db"));
        assert_eq!((sqlite_path("sqlite:"), sqlite_path("postgres://h/d")), (None, None));
        assert!(is_postgres("postgresql://h/d") && !is_postgres("mysql://h/d"));
    }
}
