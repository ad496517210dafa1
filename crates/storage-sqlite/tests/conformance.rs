//! Every rule of a backend, each on a file of its own.

use polyreward_storage::conformance;
use polyreward_storage_sqlite::{SqliteOptions, SqliteStorage};

macro_rules! on_a_file {
    ($($rule:ident,)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                let folder = tempfile::tempdir().unwrap();
                let storage =
                    SqliteStorage::open(folder.path().join("people.db"), &SqliteOptions::default()).await.unwrap();
                conformance::$rule(&storage).await;
                storage.close().await;
            }
        )*
    };
}

polyreward_storage::each_rule!(on_a_file);
