//! Every rule of a backend, each in a database of its own.

use polyreward_storage::conformance;
use polyreward_storage_postgres::{PostgresOptions, PostgresStorage, testing::TestDatabase};

macro_rules! in_a_database {
    ($($rule:ident,)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                let database = TestDatabase::create().await;
                let storage =
                    PostgresStorage::connect(&database.url(), &PostgresOptions::default()).await.unwrap();
                conformance::$rule(&storage).await;
                storage.close().await;
            }
        )*
    };
}

polyreward_storage::each_rule!(in_a_database);
