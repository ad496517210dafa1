//! A database behind the servers of a story.

use std::{collections::BTreeMap, path::PathBuf};

use polyreward_storage_postgres::testing::TestDatabase;
use polyreward_storage_sqlite::testing as sqlite;

use crate::support::{Place, Server};

pub enum Database {
    Sqlite(PathBuf),
    Postgres(Box<TestDatabase>),
}

impl Database {
    pub fn sqlite(place: &Place) -> Self {
        Self::Sqlite(place.path("people.db"))
    }

    pub async fn postgres() -> Self {
        Self::Postgres(Box::new(TestDatabase::create().await))
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
            Self::Postgres(database) => database.url(),
        }
    }

    /// Waits until nobody is connected: what a server that was killed had begun may end by itself in PostgreSQL.
    pub async fn left_alone(&self) {
        if let Self::Postgres(database) = self {
            database.left_alone().await;
        }
    }

    /// The one number that a statement gives.
    pub async fn number(&self, statement: &str) -> usize {
        match self {
            Self::Sqlite(file) => sqlite::number(file, statement).await,
            Self::Postgres(database) => database.number(statement).await,
        }
    }

    /// How many rows of which tables hold a text, in whatever column.
    pub async fn rows_with(&self, text: &str) -> BTreeMap<String, i64> {
        match self {
            Self::Sqlite(file) => sqlite::rows_with(file, text).await,
            Self::Postgres(database) => database.rows_with(text).await,
        }
    }
}

/// A server of a place's models whose people are in a database.
pub fn serve(place: &Place, database_url: &str) -> Server {
    let arguments = ["serve", "--bind", "127.0.0.1:0", "--models", "models", "--database-url", database_url];
    // Nobody waits for a balancer here.
    Server::start(place.command(&arguments).env("POLYREWARD_SERVER__GRACE_SECONDS", "0"))
}
