//! What a database holds, past all of the code under test.

use std::collections::BTreeMap;

use polyreward_domain::TenantId;
use sqlx::{AssertSqlSafe, PgConnection};

use super::TestDatabase;

impl TestDatabase {
    /// The one number, of 64 bits and not negative, that a statement gives, as the default tenant sees it.
    ///
    /// # Panics
    /// The statement is wrong, or the server is gone.
    pub async fn number(&self, statement: &str) -> usize {
        let number = sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement.to_owned()));
        let number = number.fetch_one(&mut self.as_tenant().await).await;
        usize::try_from(number.expect("a statement that gives a number")).expect("a count")
    }

    /// How many rows of which tables hold a text, in whatever column; tables without one are left out.
    ///
    /// # Panics
    /// The server is gone.
    pub async fn rows_with(&self, text: &str) -> BTreeMap<String, i64> {
        let mut connection = self.as_tenant().await;
        let tables = "SELECT table_name::text FROM information_schema.tables
                       WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
        let tables: Vec<String> =
            sqlx::query_scalar(tables).fetch_all(&mut connection).await.expect("tables");
        let mut rows = BTreeMap::new();
        for table in tables {
            let count = format!("SELECT count(*) FROM \"{table}\" AS r WHERE position($1 IN r::text) > 0");
            let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count)).bind(text);
            rows.insert(table, count.fetch_one(&mut connection).await.expect("rows"));
        }
        rows.retain(|_, count| *count > 0);
        rows
    }

    /// A connection to which the default tenant's rows are there.
    async fn as_tenant(&self) -> PgConnection {
        let mut connection = self.connection().await;
        let show = sqlx::query("SELECT set_config('polyreward.tenant', $1, false)");
        show.bind(TenantId::default().as_str()).execute(&mut connection).await.expect("a setting");
        connection
    }
}
