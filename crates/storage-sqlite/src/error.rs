//! What SQLite's result codes mean to a caller.

use polyreward_storage::StorageError;

// https://www.sqlite.org/rescode.html
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const READONLY: i32 = 8;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const PROTOCOL: i32 = 15;
const NOTADB: i32 = 26;

/// SQLite's messages name tables and columns, never a value.
pub(crate) fn storage_error(error: sqlx::Error) -> StorageError {
    match (&error, primary_code(&error)) {
        (_, Some(BUSY | LOCKED | PROTOCOL)) => StorageError::Contended(error.into()),
        (_, Some(INTERRUPT)) => StorageError::TooSlow(error.into()),
        (_, Some(NOMEM | READONLY | IOERR | FULL | CANTOPEN))
        | (
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Io(_),
            None,
        ) => StorageError::Unavailable(error.into()),
        _ => StorageError::Backend(error.into()),
    }
}

/// As [`storage_error`], where one more row of a kind is an answer.
pub(crate) fn or_exists(what: &'static str) -> impl FnOnce(sqlx::Error) -> StorageError {
    move |error| match error.as_database_error() {
        Some(refused) if refused.is_unique_violation() => StorageError::Exists(what),
        _ => storage_error(error),
    }
}

pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(BUSY | LOCKED | PROTOCOL))
}

pub(crate) fn is_no_database(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(NOTADB)
}

/// The low byte of an extended result code.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}
