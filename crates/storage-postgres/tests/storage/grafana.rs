//! Every question of the Grafana dashboard has an answer, for a role that reads the views alone.

use std::{fs, path::PathBuf};

use polyreward_storage_postgres::testing::TestDatabase;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::connected;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text behind each `"key": ` of a JSON document, unescaped as far as SQL needs it.
fn texts(json: &str, key: &str) -> Vec<String> {
    let start = format!("\"{key}\": \"");
    let found = json.split(&start).skip(1).map(|rest| rest.split("\",\n").next().expect("a text ends"));
    found.map(|text| text.trim_end_matches('"').replace("\\n", "\n").replace("\\\"", "\"")).collect()
}

#[tokio::test]
async fn every_panel_and_variable_of_the_dashboard_is_answered_to_a_reader() {
    let database = TestDatabase::create().await;
    connected(&database).await.close().await;
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    connection.execute("SET polyreward.tenant = 'default'").await.unwrap();
    connection
        .execute(
            "INSERT INTO users VALUES ('default', 'ada', 1, 1, 1, now(), now());
             INSERT INTO user_attributes VALUES ('default', 'ada', 'country', 'UK');
             INSERT INTO examples (tenant_id, user_id, example_id, position, prompt, chosen, rejected, strength,
                                   label_confidence, chosen_name, rejected_name, created_at)
             VALUES ('default', 'ada', 'first', 0, '\"\"', 'a', 'b', 1, 1, 1, 2, now());
             INSERT INTO predictions (tenant_id, user_id, example_id, model, shot, preference, population_preference,
                                      baseline_preference, created_at)
             VALUES ('default', 'ada', 'first', 'bt@1', 0, 0.7, 0.6, 0.6, now())",
        )
        .await
        .unwrap();
    let json = fs::read_to_string(repository().join("docker/grafana/dashboards/accuracy.json")).unwrap();
    let (panels, variables) = (texts(&json, "rawSql"), texts(&json, "query"));
    assert_eq!((panels.len(), variables.len()), (8, 2));
    for sql in panels.iter().chain(&variables) {
        let sql = sql
            .replace("$model", "bt@1")
            .replace("$attribute", "country")
            .replace("$__timeFilter(day)", "day BETWEEN now() - INTERVAL '90 days' AND now()")
            .replace("users >= 5", "users >= 1");
        let rows = connection.fetch_all(AssertSqlSafe(sql.clone())).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}: {sql}"));
        assert_eq!(rows.len(), 1, "{sql}");
        assert!(!rows[0].columns().is_empty());
    }
    // What is asked for is what docker/reader.sh grants.
    let reader = fs::read_to_string(repository().join("docker/reader.sh")).unwrap();
    let granted = reader.split("GRANT SELECT ON ").nth(1).unwrap().split(" TO ").next().unwrap();
    let granted: Vec<&str> = granted.split(',').map(str::trim).collect();
    for sql in panels.iter().chain(&variables) {
        let view = sql.split("FROM ").nth(1).unwrap().split_whitespace().next().unwrap();
        assert!(granted.contains(&view), "{view} {granted:?}");
    }
    for view in granted {
        connection.execute(AssertSqlSafe(format!("SELECT * FROM {view}"))).await.unwrap();
    }
}
