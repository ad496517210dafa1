//! Nothing stays of somebody who was erased.

use polyreward_storage::{Reads, Storage};
use polyreward_storage_postgres::testing::TestDatabase;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{add_person, add_tenant, connected, id};

/// How many rows each table has of a person.
async fn rows_of(connection: &mut PgConnection, user: &str) -> Vec<(String, i64)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::TEXT
           FROM information_schema.columns
          WHERE table_schema = 'public' AND column_name = 'user_id'
          ORDER BY table_name",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let mut rows = Vec::new();
    for table in tables {
        let statement = format!("SELECT count(*) FROM {table} WHERE user_id = $1");
        let count = sqlx::query_scalar(AssertSqlSafe(statement)).bind(user).fetch_one(&mut *connection).await;
        rows.push((table, count.unwrap()));
    }
    rows
}

#[tokio::test]
async fn no_table_has_a_row_of_an_erased_person() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    let tenant = add_tenant(&storage, "a").await;
    for user in ["ada", "bob"] {
        add_person(&storage, &tenant, user).await;
    }
    let mut connection = database.connection().await;
    sqlx::query("SELECT set_config('polyreward.tenant', 'a', false)").execute(&mut connection).await.unwrap();
    let before = rows_of(&mut connection, "ada").await;
    assert!(before.len() >= 8 && before.iter().all(|(_, rows)| *rows > 0), "{before:?}");

    let mut transaction = storage.begin(&tenant).await.unwrap();
    assert!(transaction.erase_user(&id("ada")).await.unwrap());
    transaction.commit().await.unwrap();

    let after = rows_of(&mut connection, "ada").await;
    assert!(after.iter().all(|(_, rows)| *rows == 0), "{after:?}");
    assert_eq!(rows_of(&mut connection, "bob").await, before);
    assert_eq!(storage.find(&tenant, &[id("ada")]).await.unwrap(), [None]);
}
