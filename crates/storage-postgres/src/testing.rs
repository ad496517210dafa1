//! A database for one test, in the server that `tools/with_postgres.py` runs.

mod inspect;

use std::{env, str::FromStr, thread, time::Duration};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

/// Names the server that tests may make databases in.
pub const SERVER_URL: &str = "TEST_POSTGRES_URL";

/// An empty database, which is dropped with its value, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    server: PgConnectOptions,
    name: String,
}

impl TestDatabase {
    /// Makes a database.
    ///
    /// # Panics
    /// There is no server: a test that needs one does not pass without.
    pub async fn create() -> Self {
        let url = env::var(SERVER_URL).unwrap_or_else(|_| {
            panic!(
                "{SERVER_URL} names no PostgreSQL server; `make test` runs one, or \
                `python3 tools/with_postgres.py -- cargo nextest run`"
            )
        });
        let server = PgConnectOptions::from_str(&url).expect("a URL of PostgreSQL");
        let name = format!("polyreward_test_{}", Uuid::now_v7().simple());
        let database = Self { server, name };
        database.run_on_server(format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    /// What connects to it.
    pub fn url(&self) -> String {
        self.server.clone().database(&self.name).to_url_lossy().to_string()
    }

    /// Its name, as SQL writes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection to it, beside those of the code under test.
    pub async fn connection(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.expect("the server runs")
    }

    /// Ends every connection to it.
    pub async fn end_connections(&self) {
        self.run_on_server(format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        ))
        .await;
        self.left_alone().await;
    }

    /// Waits until nobody is connected to it.
    pub async fn left_alone(&self) {
        let mut server = self.server.connect().await.expect("the server runs");
        let connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        loop {
            let count = sqlx::query_scalar::<_, i64>(connected).bind(&self.name).fetch_one(&mut server).await;
            if count.expect("the server runs") == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs a statement outside of it.
    pub async fn run_on_server(&self, statement: String) {
        run(&self.server, statement).await;
    }
}

async fn run(server: &PgConnectOptions, statement: String) {
    let mut connection = server.connect().await.expect("the server runs");
    connection.execute(AssertSqlSafe(statement)).await.expect("the statement is right");
    connection.close().await.expect("the server runs");
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let server = self.server.clone();
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // The test's own runtime may be about to end, and cannot be waited for in here.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(run(&server, statement));
        });
        assert!(dropped.join().is_ok() || thread::panicking(), "the database is dropped");
    }
}
