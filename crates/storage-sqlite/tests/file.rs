//! What is SQLite's own: the file, its write-ahead log, and others who have it open.

use std::{
    fs,
    future::poll_fn,
    path::{Path, PathBuf},
    task::Poll,
    time::Duration,
};

use polyreward_domain::{
    Attributes, Comparison, LabelConfidence, ModelRef, Prompt, StateVersion, Strength, TenantId, TextForm,
    UserId,
};
use polyreward_storage::{
    ExampleEmbedding, IdempotencyRecord, NewExample, Prediction, Reads as _, Storage as _, StorageError,
    StoredState, Transaction,
};
use polyreward_storage_sqlite::{OpenError, SqliteOptions, SqliteStorage};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use time::OffsetDateTime;

/// Stands in every text that is written here.
const MARK: &str = "q7Zx-unmistakable";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("people.db")
    }

    async fn open(&self) -> SqliteStorage {
        SqliteStorage::open(self.file(), &SqliteOptions::default()).await.unwrap()
    }

    async fn raw(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.file()).connect().await.unwrap()
    }

    /// How often the mark stands in the bytes of the database, its log and whatever else lies beside it.
    fn marks(&self) -> usize {
        let files =
            fs::read_dir(self.0.path()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        files.map(|bytes| bytes.windows(MARK.len()).filter(|window| *window == MARK.as_bytes()).count()).sum()
    }
}

fn tenant() -> TenantId {
    TenantId::default()
}

fn user(id: &str) -> UserId {
    id.parse().unwrap()
}

async fn begin(storage: &SqliteStorage) -> Box<dyn Transaction> {
    storage.begin(&tenant()).await.unwrap()
}

/// Writes a row of every kind; texts of each length, so that some fill pages and some share one.
async fn write(writing: &mut dyn Transaction, id: &str, examples: u64) {
    let now = OffsetDateTime::UNIX_EPOCH;
    let id = user(id);
    let model = ModelRef { name: "bt".parse().unwrap(), version: "1".parse().unwrap() };
    writing.hold_or_create_user(&id, now).await.unwrap();
    writing.put_attributes(&id, &Attributes::from([(MARK.to_owned(), MARK.to_owned())])).await.unwrap();
    for position in 0..examples {
        let text = MARK.repeat(1 + (position as usize * 37) % 400);
        let example = NewExample {
            example_id: format!("{MARK}-{position}").parse().unwrap(),
            position,
            comparison: Comparison {
                prompt: Prompt::Text(text.clone()),
                chosen: text.clone(),
                rejected: format!("{text}!"),
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: Some(text),
            },
            names: [1, 2],
            embeddings: vec![ExampleEmbedding {
                form: TextForm::Response,
                chosen: vec![1.0; 384],
                rejected: vec![2.0; 384],
            }],
            created_at: now,
        };
        let prediction = Prediction {
            example_id: example.example_id.clone(),
            model: model.clone(),
            shot: position,
            preference: 0.5,
            population_preference: 0.5,
            baseline_preference: None,
            created_at: now,
        };
        writing.add_examples(&id, "minilm@1", &[example]).await.unwrap();
        writing.add_predictions(&id, &[prediction]).await.unwrap();
    }
    let state = StoredState {
        version: StateVersion::from_number(1),
        examples,
        mean: vec![1.0; 8],
        covariance: vec![1.0; 64],
    };
    writing.put_state(&id, &[1; 32], &model, &state).await.unwrap();
    let answer = IdempotencyRecord {
        key: format!("{MARK}-{id}"),
        request: [1; 32],
        status: 201,
        body: MARK.to_owned(),
        created_at: now,
    };
    writing.keep_idempotency(&id, &answer).await.unwrap();
}

async fn stored(storage: &SqliteStorage, id: &str, examples: u64) {
    let mut writing = begin(storage).await;
    write(&mut *writing, id, examples).await;
    writing.commit().await.unwrap();
}

async fn erased(storage: &SqliteStorage, id: &str) {
    let mut writing = begin(storage).await;
    assert!(writing.erase_user(&user(id)).await.unwrap());
    writing.commit().await.unwrap();
}

async fn examples(storage: &SqliteStorage, id: &str) -> usize {
    storage.examples(&tenant(), &user(id), None, usize::MAX).await.unwrap().len()
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let folder = Folder::new();
    let storage = folder.open().await;
    stored(&storage, "ada", 3).await;
    storage.close().await;
    assert_eq!(examples(&folder.open().await, "ada").await, 3);
}

#[tokio::test]
async fn a_crash_after_a_commit_loses_nothing_and_keeps_nothing_half_made() {
    let folder = Folder::new();
    let storage = folder.open().await;
    stored(&storage, "ada", 3).await;
    let mut writing = begin(&storage).await;
    write(&mut *writing, "bob", 200).await;

    // The files as they lie while the process still runs: what another would find after a `kill -9`.
    let crashed = Folder::new();
    for entry in fs::read_dir(folder.0.path()).unwrap() {
        let name = entry.unwrap().file_name();
        if !name.to_string_lossy().ends_with("-shm") {
            fs::copy(folder.0.path().join(&name), crashed.0.path().join(&name)).unwrap();
        }
    }
    let recovered = crashed.open().await;
    assert_eq!((examples(&recovered, "ada").await, examples(&recovered, "bob").await), (3, 0));
    stored(&recovered, "bob", 1).await;
    drop(writing);
}

#[tokio::test]
async fn every_table_with_a_user_is_empty_of_one_who_was_erased() {
    let folder = Folder::new();
    let storage = folder.open().await;
    for id in ["ada", "bob"] {
        stored(&storage, id, 2).await;
    }
    let mut raw = folder.raw().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT t.name
           FROM sqlite_schema t
           JOIN pragma_table_info(t.name) c ON c.name = 'user_id'
          WHERE t.type = 'table'
          ORDER BY t.name",
    )
    .fetch_all(&mut raw)
    .await
    .unwrap();
    let known = [
        "example_embeddings",
        "examples",
        "idempotency_keys",
        "predictions",
        "user_attributes",
        "user_states",
        "users",
    ];
    assert_eq!(tables, known, "a new table needs a row of `write`");
    let rows = async |raw: &mut SqliteConnection, table: &str, id: &str| -> i64 {
        let count = format!("SELECT count(*) FROM {table} WHERE user_id = ?");
        let count = sqlx::query(sqlx::AssertSqlSafe(count)).bind(id.to_owned());
        count.fetch_one(raw).await.unwrap().get(0)
    };
    for table in &tables {
        assert!(rows(&mut raw, table, "ada").await > 0, "nothing was written to {table}");
    }
    erased(&storage, "ada").await;
    for table in &tables {
        assert_eq!(rows(&mut raw, table, "ada").await, 0, "{table}");
        assert!(rows(&mut raw, table, "bob").await > 0, "{table}");
    }
}

#[tokio::test]
async fn no_byte_of_an_erased_text_is_left_in_any_file() {
    let folder = Folder::new();
    let storage = folder.open().await;
    for round in 0..3 {
        // Several transactions, so that pages split, are rewritten and lie in the log more than once.
        for id in ["ada", "bob", "cyd"] {
            stored(&storage, id, 40 * (round + 1)).await;
        }
        assert!(folder.marks() > 1000);
        for id in ["bob", "ada", "cyd"] {
            erased(&storage, id).await;
        }
        assert_eq!(folder.marks(), 0, "round {round}");
    }
}

#[tokio::test]
async fn no_byte_of_an_erased_example_is_left_among_others() {
    let folder = Folder::new();
    let storage = folder.open().await;
    stored(&storage, "ada", 60).await;
    let mut plain = begin(&storage).await;
    plain.hold_or_create_user(&user("bob"), OffsetDateTime::UNIX_EPOCH).await.unwrap();
    plain.commit().await.unwrap();
    for position in (0..60).rev() {
        let mut writing = begin(&storage).await;
        assert!(
            writing
                .erase_example(&user("ada"), &format!("{MARK}-{position}").parse().unwrap())
                .await
                .unwrap()
        );
        writing.commit().await.unwrap();
    }
    // The attribute, twice in its table and twice in its index, and the answer: its key, its key in the index, its body.
    assert_eq!(folder.marks(), 4 + 3);
    let found = storage.find(&tenant(), &[user("ada"), user("bob")]).await.unwrap();
    assert!(found.iter().all(Option::is_some));
}

#[tokio::test]
async fn an_erasure_that_a_reader_holds_up_is_swept_after_a_later_commit() {
    let folder = Folder::new();
    let storage = folder.open().await;
    stored(&storage, "ada", 5).await;
    let mut backup = folder.raw().await;
    let mut reading = backup.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM users").fetch_one(&mut *reading).await.unwrap();
    erased(&storage, "ada").await;
    assert!(folder.marks() > 0, "the reader still sees them");
    reading.rollback().await.unwrap();
    let mut writing = begin(&storage).await;
    writing.hold_or_create_user(&user("bob"), OffsetDateTime::UNIX_EPOCH).await.unwrap();
    writing.commit().await.unwrap();
    assert_eq!(folder.marks(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_who_open_a_new_file_at_once_all_find_it_up_to_date() {
    for _ in 0..10 {
        let folder = Folder::new();
        let opening = (0..8).map(|_| {
            let file = folder.file();
            tokio::spawn(async move { SqliteStorage::open(file, &SqliteOptions::default()).await })
        });
        for opened in opening.collect::<Vec<_>>() {
            opened.await.unwrap().unwrap().ping().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_who_share_no_connection_lose_nothing() {
    let folder = Folder::new();
    let writers = (0..4).map(|_| {
        let file = folder.file();
        tokio::spawn(async move {
            let storage = SqliteStorage::open(file, &SqliteOptions::default()).await.unwrap();
            for _ in 0..20 {
                let now = OffsetDateTime::UNIX_EPOCH;
                let mut writing = begin(&storage).await;
                let known = writing.hold_user(&user("ada")).await.unwrap();
                let examples = known.map_or(1, |ada| ada.examples + 1);
                writing.hold_or_create_user(&user("ada"), now).await.unwrap();
                writing
                    .save_user(&user("ada"), StateVersion::POPULATION, examples, examples, now)
                    .await
                    .unwrap();
                writing.commit().await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(folder.open().await.user(&tenant(), &user("ada")).await.unwrap().unwrap().examples, 80);
}

/// Polls a story so many times and drops it, wherever that is: while waiting, in a statement, in the commit. Whether it
/// was finished before.
async fn broken_off(story: impl Future<Output = ()>, polls: usize) -> bool {
    let mut story = Box::pin(story);
    let mut remaining = polls;
    poll_fn(|context| {
        if remaining == 0 {
            return Poll::Ready(false);
        }
        remaining -= 1;
        story.as_mut().poll(context).map(|()| true)
    })
    .await
}

#[tokio::test]
async fn a_caller_who_leaves_at_any_moment_leaves_a_clean_connection_behind() {
    let folder = Folder::new();
    let storage = folder.open().await;
    let (rounds, mut left) = (20, 0);
    for _ in 0..rounds {
        for polls in 1.. {
            let finished = broken_off(stored(&storage, "ada", 2), polls).await;
            // All or nothing, and the next writer finds a connection that is in no transaction.
            let mut writing = begin(&storage).await;
            let known = writing.hold_user(&user("ada")).await.unwrap();
            let there = examples(&storage, "ada").await;
            assert_eq!(there, if known.is_some() { 2 } else { 0 }, "after {polls} polls");
            writing.erase_user(&user("ada")).await.unwrap();
            writing.commit().await.unwrap();
            if finished {
                assert!(known.is_some());
                break;
            }
            left += 1;
        }
    }
    assert!(left >= rounds, "the story was broken off {left} times");
}

#[tokio::test]
async fn a_transaction_after_an_error_cannot_be_committed() {
    let folder = Folder::new();
    let storage = folder.open().await;
    stored(&storage, "ada", 1).await;
    let mut writing = begin(&storage).await;
    writing.put_attributes(&user("ada"), &Attributes::new()).await.unwrap();
    let missing =
        writing.save_user(&user("bob"), StateVersion::POPULATION, 0, 0, OffsetDateTime::UNIX_EPOCH).await;
    assert!(matches!(missing, Err(StorageError::Backend(_))));
    assert!(writing.hold_user(&user("ada")).await.is_err());
    assert!(writing.commit().await.is_err());
    assert_eq!(storage.user(&tenant(), &user("ada")).await.unwrap().unwrap().attributes.len(), 1);
}

#[tokio::test]
async fn a_writer_who_waits_too_long_is_told_so_and_readers_do_not_wait() {
    let folder = Folder::new();
    let (acquire_timeout, busy_timeout) = (Duration::from_secs(1), Duration::from_millis(50));
    let options = SqliteOptions { acquire_timeout, busy_timeout, ..SqliteOptions::default() };
    let storage = SqliteStorage::open(folder.file(), &options).await.unwrap();
    let other = SqliteStorage::open(folder.file(), &options).await.unwrap();
    stored(&storage, "ada", 1).await;
    let writing = begin(&storage).await;
    let queued = storage.begin(&tenant()).await;
    assert!(matches!(queued, Err(StorageError::Unavailable(_))), "behind a writer of the same process");
    let busy = other.begin(&tenant()).await;
    assert!(matches!(busy, Err(StorageError::Contended(_))), "behind a writer of another process");
    assert!(matches!(other.ping().await, Err(StorageError::Contended(_))));
    assert_eq!(examples(&storage, "ada").await, 1);
    drop(writing);
    stored(&other, "bob", 1).await;
    other.ping().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let folder = Folder::new();
    let open = async |path: &Path| SqliteStorage::open(path, &SqliteOptions::default()).await.map(drop);
    let at = |name: &str| folder.0.path().join(name);
    assert!(matches!(open(&at("missing/people.db")).await, Err(OpenError::NoFolder(_))));
    assert!(matches!(open(folder.0.path()).await, Err(OpenError::NoFile(_))));
    for name in ["", ":memory:"] {
        assert!(matches!(open(Path::new(name)).await, Err(OpenError::NoFile(_))));
    }
    fs::write(at("notes.txt"), "dear diary, ".repeat(1000)).unwrap();
    assert!(matches!(open(&at("notes.txt")).await, Err(OpenError::NoDatabase(_))));
    assert!(fs::read_to_string(at("notes.txt")).unwrap().starts_with("dear diary"), "and leaves it alone");

    open(&folder.file()).await.unwrap();
    let mut raw = folder.raw().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&mut raw).await.unwrap();
    let refused = open(&folder.file()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer { version: 9999, .. }), "{refused}");
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 9999").execute(&mut raw).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&mut raw).await.unwrap();
    assert!(matches!(open(&folder.file()).await, Err(OpenError::Changed { version: 1, .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    let storage = folder.open().await;
    stored(&storage, "ada", 1).await;
    let modes: Vec<_> = fs::read_dir(folder.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777)
        .collect();
    assert_eq!(modes, [0o600; 3], "the database, its log and their index");
}

#[tokio::test]
async fn no_error_and_no_debug_output_quotes_what_was_written() {
    let folder = Folder::new();
    let storage = folder.open().await;
    let mut writing = begin(&storage).await;
    let attributes = Attributes::from([(MARK.to_owned(), MARK.to_owned())]);
    let refused = writing.put_attributes(&user(MARK), &attributes).await.unwrap_err();
    let mut said = format!("{storage:?} {refused} {refused:?}");
    let mut cause: Option<&dyn std::error::Error> = Some(&refused);
    while let Some(error) = cause {
        said += &error.to_string();
        cause = error.source();
    }
    assert!(said.contains("FOREIGN KEY") && !said.contains(MARK), "{said}");
}
