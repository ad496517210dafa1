//! Views of the file, and long questions to it.

use std::{path::PathBuf, time::Duration};

use polyreward_storage::{
    Measures as _, Reads as _, StorageError,
    conformance::{ViewFigures, people_in_views},
};
use polyreward_storage_sqlite::{SqliteOptions, SqliteStorage};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("people.db")
}

async fn raw(folder: &TempDir) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file(folder)).create_if_missing(true).connect().await.unwrap()
}

async fn figures(connection: &mut SqliteConnection, rows: &str) -> ViewFigures {
    let columns = "accuracy, user_accuracy, log_loss, ece, population_accuracy, gain, bt_accuracy";
    let row = sqlx::query(AssertSqlSafe(format!("SELECT users, n, {columns} FROM {rows}")));
    let row = row.fetch_one(connection).await.unwrap();
    ViewFigures { users: row.get(0), n: row.get(1), figures: std::array::from_fn(|at| row.get(at + 2)) }
}

#[tokio::test]
async fn views_hold_the_figures_of_the_sums_over_people() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(file(&folder), &SqliteOptions::default()).await.unwrap();
    let [uk, fr, all] = people_in_views(&storage).await;
    assert!(uk.n >= 500 && fr.n < 500, "both rules of the calibration error");
    let mut raw = raw(&folder).await;
    for (rows, expected) in [
        ("accuracy_by_group WHERE model = 'pal-a@1' AND attribute = 'country' AND value = 'UK'", &uk),
        ("accuracy_by_group WHERE model = 'pal-a@1' AND attribute = 'country' AND value = 'FR'", &fr),
        ("accuracy_overall WHERE model = 'pal-a@1'", &all),
    ] {
        figures(&mut raw, rows).await.assert_close(expected);
    }
    // The other views divide the same predictions.
    for rows in ["accuracy_by_shot", "accuracy_by_day", "reliability"] {
        let sums = format!("SELECT sum(n), sum(n * accuracy) FROM {rows}");
        let row = sqlx::query(AssertSqlSafe(sums)).fetch_one(&mut raw).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), all.n, "{rows}");
        assert!((row.get::<f64, _>(1) / all.n as f64 - all.figures[0]).abs() < 1e-9, "{rows}");
    }
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { measure_timeout: Duration::ZERO, ..SqliteOptions::default() };
    let storage = SqliteStorage::open(file(&folder), &options).await.unwrap();
    let fill = "INSERT INTO users
                  WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 20000)
                SELECT 'default', 'u' || number, 0, 0, 0, 0, 0 FROM numbers";
    raw(&folder).await.execute(fill).await.unwrap();
    let tenant = "default".parse().unwrap();
    for _ in 0..3 {
        let answer = storage.moment(&tenant).await;
        assert!(matches!(answer, Err(StorageError::TooSlow(_))), "{answer:?}");
    }
    assert!(storage.find(&tenant, &["u1".parse().unwrap()]).await.unwrap()[0].is_some());
    storage.close().await;
    let patient = SqliteStorage::open(file(&folder), &SqliteOptions::default()).await.unwrap();
    assert_eq!(patient.moment(&tenant).await.unwrap().users, 20_000);
}

#[tokio::test]
async fn predictions_of_before_get_the_baseline_that_was_made_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut raw = raw(&folder).await;
    raw.execute(include_str!("../../../migrations/sqlite/0001_people.sql")).await.unwrap();
    raw.execute(
        "INSERT INTO users VALUES ('default', 'ada', 0, 2, 2, 0, 0);
         INSERT INTO examples (tenant_id, user_id, example_id, position, strength, label_confidence, chosen_name,
                               rejected_name, created_at, prompt, chosen, rejected)
         VALUES ('default', 'ada', 'e1', 0, 1, 1, 6, 3, 0, '\"?\"', 'x', 'y'),
                ('default', 'ada', 'e2', 1, 1, 1, -1, 3, 0, '\"?\"', 'x', 'y');
         INSERT INTO predictions VALUES ('default', 'ada', 'e1', 'bt@1', 0, 0.7, 0.7, 0),
                                        ('default', 'ada', 'e1', 'btx@1', 0, 0.1, 0.7, 0),
                                        ('default', 'ada', 'e1', 'pal-a@1', 0, 0.2, 0.7, 0),
                                        ('default', 'ada', 'e2', 'pal-a@1', 1, 0.2, 0.7, 0)",
    )
    .await
    .unwrap();
    raw.execute(include_str!("../../../migrations/sqlite/0002_accuracy.sql")).await.unwrap();
    let known: Vec<Option<f64>> =
        sqlx::query_scalar("SELECT baseline_preference FROM predictions ORDER BY example_id, model")
            .fetch_all(&mut raw)
            .await
            .unwrap();
    assert_eq!(known, [Some(0.7), Some(0.7), Some(0.7), None]);
    let pairs: Vec<i64> = sqlx::query_scalar("SELECT pair_name FROM examples ORDER BY position")
        .fetch_all(&mut raw)
        .await
        .unwrap();
    assert_eq!(pairs, [6 ^ 3, -1 ^ 3]);
}
