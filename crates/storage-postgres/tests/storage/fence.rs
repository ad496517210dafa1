//! Row-level security, as a role like the server's meets it.

use polyreward_storage_postgres::testing::TestDatabase;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{add_person, add_tenant, connected};

async fn count(connection: &mut PgConnection, rows: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {rows}")))
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Every table and view that says whose its rows are, but those that say who there is.
async fn tables_of_tenants(connection: &mut PgConnection) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::TEXT
           FROM information_schema.columns
          WHERE table_schema = 'public'
            AND column_name = 'tenant_id'
            AND table_name NOT IN ('tenants', 'api_keys')",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    assert!(tables.len() >= 9, "{tables:?}");
    tables
}

#[tokio::test]
async fn a_connection_sees_one_tenants_rows_and_before_it_is_told_whose_none() {
    let database = TestDatabase::create().await;
    let storage = connected(&database).await;
    for name in ["a", "b"] {
        let tenant = add_tenant(&storage, name).await;
        add_person(&storage, &tenant, "ada").await;
    }
    let mut connection = database.connection().await;
    let is_super: bool = sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(!is_super, "a superuser would see over the fence");
    let tables = tables_of_tenants(&mut connection).await;
    for table in &tables {
        assert_eq!(count(&mut connection, table).await, 0, "{table}");
    }
    sqlx::query("SELECT set_config('polyreward.tenant', 'a', false)").execute(&mut connection).await.unwrap();
    for table in &tables {
        assert_ne!(count(&mut connection, table).await, 0, "{table}");
        assert_eq!(count(&mut connection, &format!("{table} WHERE tenant_id <> 'a'")).await, 0, "{table}");
    }
    let refused = sqlx::query("INSERT INTO users VALUES ('b', 'eve', 0, 0, 0, now(), now())")
        .execute(&mut connection)
        .await;
    assert_eq!(refused.unwrap_err().as_database_error().unwrap().code().unwrap(), "42501");
    let moved = sqlx::query("UPDATE users SET tenant_id = 'b'").execute(&mut connection).await;
    assert_eq!(moved.unwrap_err().as_database_error().unwrap().code().unwrap(), "42501");
}

#[tokio::test]
async fn every_text_is_compared_by_its_bytes() {
    let database = TestDatabase::create().await;
    connected(&database).await;
    let others: Vec<String> = sqlx::query_scalar(
        "SELECT table_name || '.' || column_name
           FROM information_schema.columns
          WHERE table_schema = 'public'
            AND table_name <> '_sqlx_migrations'
            AND data_type = 'text'
            AND collation_name IS DISTINCT FROM 'C'",
    )
    .fetch_all(&mut database.connection().await)
    .await
    .unwrap();
    assert_eq!(others, Vec::<String>::new());
}
