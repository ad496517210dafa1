//! Long questions, beside short ones.

use std::time::Duration;

use polyreward_storage::{Measures as _, Reads as _, StorageError};
use polyreward_storage_postgres::{PostgresOptions, PostgresStorage, testing::TestDatabase};
use sqlx::Connection as _;

use crate::{add_person, id};

#[tokio::test]
async fn a_question_that_takes_too_long_is_ended_and_nobody_else_waits_for_it() {
    let database = TestDatabase::create().await;
    let options =
        PostgresOptions { measure_timeout: Duration::from_millis(100), ..PostgresOptions::default() };
    let storage = PostgresStorage::connect(&database.url(), &options).await.unwrap();
    let tenant = id("default");
    add_person(&storage, &tenant, "ada").await;
    // A lock stands for a long statement.
    let mut other = database.connection().await;
    let mut locked = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await.unwrap();
    let questions = (0..4).map(|_| storage.measured_models(&tenant));
    let (slow, found) =
        futures::future::join(futures::future::join_all(questions), storage.find(&tenant, &[id("ada")]))
            .await;
    for answer in slow {
        assert!(matches!(answer, Err(StorageError::TooSlow(_))), "{answer:?}");
    }
    assert!(found.unwrap()[0].is_some());
    locked.rollback().await.unwrap();
    assert_eq!(storage.measured_models(&tenant).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_caller_who_leaves_a_question_leaves_a_connection_that_answers_the_next() {
    let database = TestDatabase::create().await;
    let storage = PostgresStorage::connect(&database.url(), &PostgresOptions::default()).await.unwrap();
    let tenant = id("default");
    add_person(&storage, &tenant, "ada").await;
    let asked =
        polyreward_storage::Predictions { model: crate::model(), span: polyreward_storage::Span::default() };
    for polls in 0..40 {
        let mut asking = Box::pin(storage.person_sums(&tenant, &asked, &[]));
        for _ in 0..polls {
            if futures::poll!(&mut asking).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(storage.person_sums(&tenant, &asked, &[]).await.unwrap().len(), 1);
}
