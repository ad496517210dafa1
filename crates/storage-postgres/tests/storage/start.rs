//! The first moments of a server.

use std::time::Duration;

use polyreward_storage::{Storage, StorageError};
use polyreward_storage_postgres::{PostgresOptions, PostgresStorage, testing::TestDatabase};

use crate::connected;

#[tokio::test]
async fn replicas_that_start_at_once_migrate_once() {
    let database = TestDatabase::create().await;
    let replicas = futures::future::join_all((0..4).map(|_| connected(&database))).await;
    for replica in replicas {
        replica.ping().await.unwrap();
    }
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
        .fetch_one(&mut database.connection().await)
        .await
        .unwrap();
    assert_eq!(applied, 2);
}

#[tokio::test]
async fn a_database_that_a_newer_release_has_migrated_is_used() {
    let database = TestDatabase::create().await;
    connected(&database).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of tomorrow', true, '', 0)",
    )
    .execute(&mut database.connection().await)
    .await
    .unwrap();
    connected(&database).await.ping().await.unwrap();
}

#[tokio::test]
async fn a_database_whose_schema_is_another_is_refused() {
    let database = TestDatabase::create().await;
    connected(&database).await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = ''")
        .execute(&mut database.connection().await)
        .await
        .unwrap();
    let error = PostgresStorage::connect(&database.url(), &PostgresOptions::default()).await.unwrap_err();
    assert!(matches!(error, StorageError::Backend(_)), "{error:?}");
}

#[tokio::test]
async fn the_server_ends_a_transaction_that_does_nothing() {
    let database = TestDatabase::create().await;
    let options = PostgresOptions {
        idle_in_transaction_timeout: Duration::from_millis(100),
        ..PostgresOptions::default()
    };
    let storage = PostgresStorage::connect(&database.url(), &options).await.unwrap();
    let mut transaction = storage.begin(&"default".parse().unwrap()).await.unwrap();
    database.left_alone().await;
    let error = transaction.hold_user(&"ada".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come() {
    // The port is free again once the listener is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://nobody:secret@127.0.0.1:{port}/none");
    let error = PostgresStorage::connect(&url, &PostgresOptions::default()).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("secret"));
}
