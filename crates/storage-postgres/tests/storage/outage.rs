//! What goes wrong between us and the server, and that it passes.

use std::{error::Error, future::poll_fn, str::FromStr, task::Poll, time::Duration};

use polyreward_domain::TenantId;
use polyreward_storage::{Reads, Storage, StorageError};
use polyreward_storage_postgres::{PostgresOptions, PostgresStorage, testing::TestDatabase};
use sqlx::{ConnectOptions, PgConnection, Row, postgres::PgConnectOptions};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{NOW, add_person, connected, example, id};

async fn connected_with(database: &TestDatabase, options: PostgresOptions) -> PostgresStorage {
    PostgresStorage::connect(&database.url(), &options).await.unwrap()
}

/// Fills the pool with connections that nobody uses.
async fn open_connections(storage: &PostgresStorage) {
    let (tenant, user) = (TenantId::default(), id("ada"));
    let reads = futures::future::join_all((0..8).map(|_| storage.user(&tenant, &user))).await;
    assert!(reads.iter().all(Result::is_ok));
}

#[tokio::test]
async fn nobody_notices_that_idle_connections_were_ended() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    add_person(&storage, &TenantId::default(), "ada").await;
    open_connections(&storage).await;
    database.end_connections().await;
    storage.ping().await.unwrap();
    open_connections(&storage).await;
    database.end_connections().await;
    assert!(storage.user(&TenantId::default(), &id("ada")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_transaction_whose_connection_was_ended_fails_and_the_next_one_does_not() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    let mut transaction = storage.begin(&TenantId::default()).await.unwrap();
    transaction.hold_or_create_user(&id("ada"), NOW).await.unwrap();
    database.end_connections().await;
    let error = transaction.hold_user(&id("ada")).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
    assert!(transaction.commit().await.is_err());
    assert_eq!(storage.user(&TenantId::default(), &id("ada")).await.unwrap(), None);
    add_person(&storage, &TenantId::default(), "ada").await;
}

/// Passes connections on to the server until it is dropped, which ends them.
struct Proxy {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn start(server: (String, u16), port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut passed = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(&server).await.unwrap();
                passed.spawn(async move {
                    // Either side may end it as it likes.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, _tasks: tasks }
    }
}

#[tokio::test]
async fn a_server_that_went_away_is_used_again_once_it_is_back() {
    let database = TestDatabase::create().await;
    let direct = PgConnectOptions::from_str(&database.url()).unwrap();
    let server = (direct.get_host().to_owned(), direct.get_port());
    let proxy = Proxy::start(server.clone(), 0).await;
    let options = PostgresOptions { acquire_timeout: Duration::from_secs(2), ..PostgresOptions::default() };
    let url = direct.port(proxy.port).to_url_lossy().to_string();
    let storage = PostgresStorage::connect(&url, &options).await.unwrap();
    let tenant = TenantId::default();
    open_connections(&storage).await;
    let port = proxy.port;
    drop(proxy);
    let error = storage.user(&tenant, &id("ada")).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
    assert!(matches!(storage.begin(&tenant).await, Err(StorageError::Unavailable(_))));
    let _proxy = Proxy::start(server, port).await;
    storage.user(&tenant, &id("ada")).await.unwrap();
    storage.ping().await.unwrap();
}

#[tokio::test]
async fn a_database_that_only_reads_is_unavailable_for_writing_until_it_takes_writes_again() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    let tenant = TenantId::default();
    let set =
        |to: &str| format!("ALTER DATABASE {} SET default_transaction_read_only = {to}", database.name());
    database.run_on_server(set("on")).await;
    database.end_connections().await;
    for _ in 0..3 {
        let error = storage.ping().await.unwrap_err();
        assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
        assert!(matches!(storage.begin(&tenant).await, Err(StorageError::Unavailable(_))));
        assert_eq!(storage.user(&tenant, &id("ada")).await.unwrap(), None);
    }
    open_connections(&storage).await;
    // Those connections stay as they are: it is for us to replace them.
    database.run_on_server(set("off")).await;
    let recovered = async {
        while storage.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recovered).await.expect("it takes writes");
    add_person(&storage, &tenant, "ada").await;
}

#[tokio::test]
async fn whoever_waits_too_long_for_a_person_is_told_that_another_writer_is_in_the_way() {
    let database = TestDatabase::create().await;
    let options = PostgresOptions { lock_timeout: Duration::from_millis(50), ..PostgresOptions::default() };
    let storage = connected_with(&database, options).await;
    let tenant = TenantId::default();
    add_person(&storage, &tenant, "ada").await;
    let mut holder = storage.begin(&tenant).await.unwrap();
    holder.hold_user(&id("ada")).await.unwrap();
    let mut second = storage.begin(&tenant).await.unwrap();
    let error = second.hold_or_create_user(&id("ada"), NOW).await.unwrap_err();
    assert!(matches!(error, StorageError::Contended(_)), "{error:?}");
    holder.commit().await.unwrap();
    let error = second.commit().await.unwrap_err();
    assert!(matches!(error, StorageError::Backend(_)), "a failed transaction is not committed: {error:?}");
    let mut third = storage.begin(&tenant).await.unwrap();
    third.hold_user(&id("ada")).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_unavailable() {
    let database = TestDatabase::create().await;
    let options =
        PostgresOptions { statement_timeout: Duration::from_millis(500), ..PostgresOptions::default() };
    let storage = connected_with(&database, options).await;
    let tenant = TenantId::default();
    add_person(&storage, &tenant, "ada").await;
    let mut holder = storage.begin(&tenant).await.unwrap();
    holder.hold_user(&id("ada")).await.unwrap();
    let mut second = storage.begin(&tenant).await.unwrap();
    let error = second.hold_user(&id("ada")).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn whoever_finds_all_connections_taken_is_told_in_time() {
    let database = TestDatabase::create().await;
    let options = PostgresOptions {
        max_connections: 1,
        acquire_timeout: Duration::from_secs(1),
        ..PostgresOptions::default()
    };
    let storage = connected_with(&database, options).await;
    let _holder = storage.begin(&TenantId::default()).await.unwrap();
    let error = storage.user(&TenantId::default(), &id("ada")).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn an_error_quotes_nothing_of_the_row_it_is_about() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    let mut transaction = storage.begin(&TenantId::default()).await.unwrap();
    transaction.hold_or_create_user(&id("lovelace"), NOW).await.unwrap();
    let twice = [example("engine", 0), example("engine", 1)];
    let error = transaction.add_examples(&id("lovelace"), "backbone", &twice).await.unwrap_err();
    assert!(matches!(error, StorageError::Backend(_)), "{error:?}");
    let mut told = format!("{error:?}");
    let mut cause: Option<&dyn Error> = Some(&error);
    while let Some(error) = cause {
        told += &error.to_string();
        cause = error.source();
    }
    assert!(told.contains("23505") && told.contains("examples_pkey"), "{told}");
    for secret in ["lovelace", "engine", "Tea?", "Yes."] {
        assert!(!told.contains(secret), "{told}");
    }
}

/// States of the connections to the database, but for this one.
async fn states(connection: &mut PgConnection) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let rows = rows.fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_call_that_is_broken_off_leaves_no_transaction_behind() {
    let database = TestDatabase::create().await;
    let options = PostgresOptions { max_connections: 1, ..PostgresOptions::default() };
    let storage = connected_with(&database, options).await;
    let tenant = TenantId::default();
    let mut observer = database.connection().await;
    let (mut waits, mut broken_off) = (0, 0);
    // A server that answers before anybody waits is not broken off: then all of it is tried again.
    for _ in 0..1000 {
        let mut write = Box::pin(async {
            let mut transaction = storage.begin(&tenant).await.unwrap();
            transaction.hold_or_create_user(&id("ada"), NOW).await.unwrap();
            transaction.hold_user(&id("bob")).await.unwrap();
        });
        // Each time it may go on once more before it is dropped.
        let mut left = waits;
        let completed = poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            write.as_mut().poll(context).map(|()| true)
        })
        .await;
        drop(write);
        assert_eq!(storage.user(&tenant, &id("ada")).await.unwrap(), None);
        // What had begun may end by itself; what was left behind would stay.
        let ended = async {
            while states(&mut observer).await.iter().any(|state| state.contains("transaction")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert!(ended.is_ok(), "broken off in wait {waits}, it leaves a transaction open");
        if !completed {
            broken_off += 1;
        } else if broken_off > 2 {
            break;
        }
        waits = if completed { 0 } else { waits + 1 };
    }
    assert!(broken_off > 2, "it was never broken off");
}
