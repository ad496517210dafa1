//! What PostgreSQL says, as far as a caller acts on it and a log may hold it.

use std::fmt;

use polyreward_storage::StorageError;
use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

/// SQLSTATE of a statement that its timeout, or an operator, ended.
const QUERY_CANCELED: &str = "57014";

/// A refusal by the server without what it may quote: sqlx's own error carries PostgreSQL's DETAIL, which holds the values
/// of a row.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: String,
    message: String,
    constraint: Option<String>,
}

impl From<&PgDatabaseError> for Refusal {
    fn from(error: &PgDatabaseError) -> Self {
        let code = error.code().to_owned();
        // Messages name tables and constraints; those about data (class 22) quote it.
        let message = if code.starts_with("22") { "data that cannot be stored" } else { error.message() };
        Self {
            message: message.to_owned(),
            constraint: DatabaseError::constraint(error).map(str::to_owned),
            code,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {}", self.message, self.code)?;
        if let Some(constraint) = &self.constraint {
            write!(f, ", constraint {constraint}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Refusal {}

/// What a caller is told of an error.
pub(crate) fn failed(error: sqlx::Error) -> StorageError {
    if let Some(refused) = refusal(&error) {
        let cause = Box::new(Refusal::from(refused));
        return match refused.code() {
            code if is_contention(code) => StorageError::Contended(cause),
            code if may_pass(code) => StorageError::Unavailable(cause),
            _ => StorageError::Backend(cause),
        };
    }
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => StorageError::Unavailable(error.into()),
        _ => StorageError::Backend(error.into()),
    }
}

/// As [`failed`], of a statement that may take as long as [`crate::PostgresOptions::measure_timeout`].
pub(crate) fn not_measured(error: sqlx::Error) -> StorageError {
    match refusal(&error) {
        Some(refused) if refused.code() == QUERY_CANCELED => {
            StorageError::TooSlow(Refusal::from(refused).into())
        }
        _ => failed(error),
    }
}

/// What a caller is told when no connection can be had: whatever the reason, another may be had later.
pub(crate) fn not_connected(error: sqlx::Error) -> StorageError {
    match failed(error) {
        StorageError::Backend(cause) => StorageError::Unavailable(cause),
        other => other,
    }
}

/// Whether the connection is gone, so that another one may do better.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match refusal(error) {
        Some(refused) => matches!(refused.code(), "57P01" | "57P02" | "57P03" | "25P03" | "57P05"),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed),
    }
}

/// Whether a row is there already that must be one only.
pub(crate) fn is_duplicate(error: &sqlx::Error) -> bool {
    refusal(error).is_some_and(|refused| refused.code() == "23505")
}

fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Serialization failure, deadlock, lock timeout.
fn is_contention(code: &str) -> bool {
    matches!(code, "40001" | "40P01" | "55P03")
}

/// Lost connections, a read-only database, idle transactions ended by the server, lack of space or connections, the
/// operator or a timeout at work, a failing disk.
fn may_pass(code: &str) -> bool {
    matches!(code, "25006" | "25P03" | "40003")
        || ["08", "53", "57", "58"].iter().any(|c| code.starts_with(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_by_what_helps() {
        for code in ["40001", "40P01", "55P03"] {
            assert!(is_contention(code) && !may_pass(code), "{code}");
        }
        for code in ["08006", "25006", "53100", "53300", "57014", "57P01", "57P03"] {
            assert!(may_pass(code) && !is_contention(code), "{code}");
        }
        for code in ["23505", "42P01", "22001", "42501"] {
            assert!(!may_pass(code) && !is_contention(code), "{code}");
        }
    }

    #[test]
    fn what_fails_between_us_and_the_server_may_pass() {
        let gone = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert!(is_broken(&gone()) && failed(gone()).may_pass());
        assert!(failed(sqlx::Error::PoolTimedOut).may_pass());
        assert!(!failed(sqlx::Error::RowNotFound).may_pass());
        assert!(not_connected(sqlx::Error::RowNotFound).may_pass());
    }
}
