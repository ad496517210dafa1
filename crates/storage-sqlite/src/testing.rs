//! What a file holds, past all of the code under test.

use std::{collections::BTreeMap, path::Path};

use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

/// The one number, of 64 bits and not negative, that a statement gives.
///
/// # Panics
/// There is no such file, or the statement is wrong.
pub async fn number(file: &Path, statement: &str) -> usize {
    let number = sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement.to_owned()));
    let number = number.fetch_one(&mut connect(file).await).await;
    usize::try_from(number.expect("a statement that gives a number")).expect("a count")
}

/// How many rows of which tables hold a text, in whatever column; tables without one are left out.
///
/// # Panics
/// There is no such file.
pub async fn rows_with(file: &Path, text: &str) -> BTreeMap<String, i64> {
    let mut connection = connect(file).await;
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.expect("tables");
    let mut rows = BTreeMap::new();
    for table in tables {
        let columns = sqlx::query_scalar::<_, String>("SELECT name FROM pragma_table_info(?)").bind(&table);
        let columns = columns.fetch_all(&mut connection).await.expect("columns");
        let holds: Vec<String> = columns
            .iter()
            .map(|column| format!("instr(CAST(\"{column}\" AS BLOB), CAST(?1 AS BLOB)) > 0"))
            .collect();
        let count = format!("SELECT count(*) FROM \"{table}\" WHERE {}", holds.join(" OR "));
        let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count)).bind(text);
        rows.insert(table, count.fetch_one(&mut connection).await.expect("rows"));
    }
    rows.retain(|_, count| *count > 0);
    rows
}

async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.expect("a database")
}
