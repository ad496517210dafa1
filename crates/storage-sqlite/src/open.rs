//! From a path to a database that is up to date.

use std::{
    error::Error,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    SqliteStorage,
    error::{is_busy, is_no_database},
    measuring::Measuring,
    sweeper::{self, Sweeper},
    watch::Watch,
};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Between two attempts at what SQLite does not wait for by itself.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// How a database is used.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Connections that read at the same time.
    pub readers: u32,
    /// How long a statement waits for another process's write.
    pub busy_timeout: Duration,
    /// How long a call waits for a connection: a writer for the writers before it in this process, a reader for readers.
    pub acquire_timeout: Duration,
    /// How long one question of [`polyreward_storage::Measures`] may take.
    pub measure_timeout: Duration,
    /// Connections that add up predictions, beside the others: one for each answer that is computed at once, and one for
    /// whoever asks whether a kept one is still good.
    pub measure_connections: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(5),
            measure_timeout: Duration::from_secs(10),
            measure_connections: 2,
        }
    }
}

/// Why a file cannot be used as a database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is missing.
    #[error("there is no folder {}", .0.display())]
    NoFolder(PathBuf),
    /// A path that names no file: a folder, or SQLite's name for a database in memory, which has one connection only.
    #[error("a database is a file, and {} is none", .0.display())]
    NoFile(PathBuf),
    /// A file of something else.
    #[error("{} is not an SQLite database", .0.display())]
    NoDatabase(PathBuf),
    /// A newer program was here.
    #[error("{} has migration {version}, which this program does not know: a newer one wrote it", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The migration.
        version: i64,
    },
    /// A migration was edited after it was applied.
    #[error("{} has another migration {version} than this program", .path.display())]
    Changed {
        /// The database.
        path: PathBuf,
        /// The migration.
        version: i64,
    },
    /// Anything else: permissions, a full disk, another process that does not let go.
    #[error("cannot open {}", .path.display())]
    Unusable {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SqliteStorage {
    /// Opens a database, makes it where there is no file, and brings it up to date. Several processes may do so at once.
    ///
    /// # Errors
    /// What is wrong with the file or its folder.
    pub async fn open(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let unusable = |source| OpenError::Unusable { path: path.to_owned(), source };
        create(path)?;
        // Absolute, so that no name reads as one of SQLite's own (`:memory:`, `file:`).
        let file = std::path::absolute(path).map_err(|error| unusable(error.into()))?;
        let connect = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(options.busy_timeout)
            // An acknowledged write survives a loss of power.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is erased is overwritten, and no text gets into a temporary file.
            .pragma("secure_delete", "ON")
            .pragma("temp_store", "MEMORY")
            .disable_statement_logging();
        let mut connection = connect_in_wal(&connect, options.busy_timeout).await.map_err(|error| {
            if is_no_database(&error) {
                OpenError::NoDatabase(path.to_owned())
            } else {
                unusable(error.into())
            }
        })?;
        migrate(&mut connection).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => OpenError::Newer { path: path.to_owned(), version },
            MigrateError::VersionMismatch(version) => OpenError::Changed { path: path.to_owned(), version },
            other => unusable(other.into()),
        })?;
        connection.close().await.map_err(|error| unusable(error.into()))?;

        let storage = Self {
            readers: pool(options.readers, options.acquire_timeout)
                .connect_lazy_with(connect.clone().pragma("query_only", "ON")),
            measuring: Measuring::new(
                pool(options.measure_connections, options.acquire_timeout)
                    .connect_lazy_with(connect.clone().pragma("query_only", "ON")),
                options.measure_timeout,
            ),
            watch: Watch::new(pool(1, options.acquire_timeout), connect.clone()),
            writer: pool(1, options.acquire_timeout).connect_lazy_with(connect.clone()),
            sweeper: Sweeper::new(
                pool(1, options.acquire_timeout).connect_lazy_with(connect.busy_timeout(sweeper::PATIENCE)),
            ),
        };
        // A process that ended between an erasure and its sweeping left the rest to this one.
        storage.sweeper.sweep_after(true).await;
        Ok(storage)
    }

    /// Waits for what is under way and closes every connection; the last one of the last process folds the write-ahead log
    /// into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.measuring.close().await;
        self.watch.close().await;
        self.writer.close().await;
        self.sweeper.close().await;
    }
}

/// Makes the file, for its owner's eyes only: SQLite gives the same mode to the files that it puts beside it.
fn create(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() || path.as_os_str().is_empty() || path == Path::new(":memory:") {
        return Err(OpenError::NoFile(path.to_owned()));
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::NoFolder(path.parent().unwrap_or(path).to_owned()))
        }
        Err(error) => Err(OpenError::Unusable { path: path.to_owned(), source: error.into() }),
    }
}

/// SQLite does not wait for other connections when it changes to write-ahead logging, so that it is tried again here.
async fn connect_in_wal(
    connect: &SqliteConnectOptions,
    busy_timeout: Duration,
) -> Result<SqliteConnection, sqlx::Error> {
    let deadline = Instant::now() + busy_timeout;
    loop {
        match attempt(connect).await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(RETRY_AFTER).await;
            }
            done => return done,
        }
    }
}

async fn attempt(connect: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = connect.connect().await?;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut connection).await?;
    if mode == "wal" {
        Ok(connection)
    } else {
        Err(sqlx::Error::Configuration(
            "this file system has no shared memory for write-ahead logging".into(),
        ))
    }
}

/// All migrations in one transaction, which no other process is in at the same time.
async fn migrate(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    MIGRATOR.run_direct(None, &mut *transaction, false).await?;
    Ok(transaction.commit().await?)
}

fn pool(connections: u32, acquire_timeout: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(acquire_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // After some faults (a full disk) SQLite rolls back by itself, and the driver believes to be in a transaction for
        // ever; such a connection is closed, and another opened.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
}
