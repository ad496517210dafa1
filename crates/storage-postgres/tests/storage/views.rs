//! What Grafana and psql see.

use polyreward_storage::conformance::{ViewFigures, people_in_views};
use polyreward_storage_postgres::testing::TestDatabase;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::{add_person, add_tenant, connected};

/// A migration that has no tenant and one before which a database had people in it.
const FIRST: &str = include_str!("../../../../migrations/postgres/0001_people.sql");
const SECOND: &str = include_str!("../../../../migrations/postgres/0002_accuracy.sql");

async fn as_tenant(database: &TestDatabase, tenant: &str) -> PgConnection {
    let mut connection = database.connection().await;
    let show = sqlx::query("SELECT set_config('polyreward.tenant', $1, false)").bind(tenant.to_owned());
    show.execute(&mut connection).await.unwrap();
    connection
}

async fn figures(connection: &mut PgConnection, rows: &str) -> ViewFigures {
    let columns = "accuracy, user_accuracy, log_loss, ece, population_accuracy, gain, bt_accuracy";
    let row = sqlx::query(AssertSqlSafe(format!("SELECT users, n, ARRAY[{columns}] FROM {rows}")));
    let row = row.fetch_one(connection).await.unwrap();
    let figures: Vec<f64> = row.get(2);
    ViewFigures { users: row.get(0), n: row.get(1), figures: figures.try_into().unwrap() }
}

#[tokio::test]
async fn views_hold_the_figures_of_the_sums_over_people() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    let [uk, fr, all] = people_in_views(&storage).await;
    assert!(uk.n >= 500 && fr.n < 500, "both rules of the calibration error");
    let mut connection = as_tenant(&database, "default").await;
    for (rows, expected) in [
        ("accuracy_by_group WHERE model = 'pal-a@1' AND attribute = 'country' AND value = 'UK'", &uk),
        ("accuracy_by_group WHERE model = 'pal-a@1' AND attribute = 'country' AND value = 'FR'", &fr),
        ("accuracy_overall WHERE model = 'pal-a@1'", &all),
    ] {
        figures(&mut connection, rows).await.assert_close(expected);
    }
    // The other views divide the same predictions.
    for rows in ["accuracy_by_shot", "accuracy_by_day", "reliability"] {
        let sums = format!("SELECT sum(n)::BIGINT, sum(n * accuracy) FROM {rows}");
        let row = sqlx::query(AssertSqlSafe(sums)).fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), all.n, "{rows}");
        assert!((row.get::<f64, _>(1) / all.n as f64 - all.figures[0]).abs() < 1e-9, "{rows}");
    }
}

#[tokio::test]
async fn a_role_that_reads_views_sees_the_tenant_that_was_set_for_it() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    for name in ["a", "b"] {
        let tenant = add_tenant(&storage, name).await;
        add_person(&storage, &tenant, "ada").await;
    }
    let mut connection = database.connection().await;
    for (tenant, seen) in [("a", vec!["a"]), ("", vec![])] {
        let show = sqlx::query("SELECT set_config('polyreward.tenant', $1, false)").bind(tenant);
        show.execute(&mut connection).await.unwrap();
        let tenants = sqlx::query_scalar::<_, String>("SELECT tenant_id FROM accuracy_by_group");
        assert_eq!(tenants.fetch_all(&mut connection).await.unwrap(), seen);
    }
}

#[tokio::test]
async fn predictions_of_before_get_the_baseline_that_was_made_with_them() {
    let database = TestDatabase::create().await;
    let mut owner = database.connection().await;
    let mut first = owner.begin().await.unwrap();
    first.execute(FIRST).await.unwrap();
    first.commit().await.unwrap();
    for tenant in ["a", "b"] {
        let fill = format!(
            "INSERT INTO tenants VALUES ('{tenant}', now());
             SELECT set_config('polyreward.tenant', '{tenant}', false);
             INSERT INTO users VALUES ('{tenant}', 'ada', 0, 2, 2, now(), now());
             INSERT INTO examples
             SELECT '{tenant}', 'ada', id, place, '\"?\"', 'x', 'y', 1, 1, NULL, 6, 3, now()
               FROM (VALUES ('e1', 0), ('e2', 1)) AS new (id, place);
             INSERT INTO predictions VALUES
                 ('{tenant}', 'ada', 'e1', 'bt@1', 0, 0.7, 0.7, now()),
                 ('{tenant}', 'ada', 'e1', 'btx@1', 0, 0.1, 0.7, now()),
                 ('{tenant}', 'ada', 'e1', 'pal-a@1', 0, 0.2, 0.7, now()),
                 ('{tenant}', 'ada', 'e2', 'pal-a@1', 1, 0.2, 0.7, now());"
        );
        owner.execute(AssertSqlSafe(fill)).await.unwrap();
    }
    owner.execute("RESET polyreward.tenant").await.unwrap();
    let mut second = owner.begin().await.unwrap();
    second.execute(SECOND).await.unwrap();
    second.commit().await.unwrap();
    for tenant in ["a", "b"] {
        let mut connection = as_tenant(&database, tenant).await;
        let known: Vec<Option<f64>> =
            sqlx::query_scalar("SELECT baseline_preference FROM predictions ORDER BY example_id, model")
                .fetch_all(&mut connection)
                .await
                .unwrap();
        assert_eq!(known, [Some(0.7), Some(0.7), Some(0.7), None]);
        let pairs: Vec<i64> =
            sqlx::query_scalar("SELECT pair_name FROM examples").fetch_all(&mut connection).await.unwrap();
        assert_eq!(pairs, [5, 5]);
    }
    let forced: bool =
        sqlx::query_scalar("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'predictions'")
            .fetch_one(&mut owner)
            .await
            .unwrap();
    assert!(forced, "the owner is held to one tenant again");
}
