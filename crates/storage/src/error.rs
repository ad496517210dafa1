//! Why the database did not do as it was asked.

use std::error::Error;

/// What went wrong, as far as a caller acts on it. No message quotes a stored text.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It may pass: the database is gone, slow, restarting, read-only, or all its connections are taken. Whether a commit
    /// that ends so was made is not known; nothing is half made.
    #[error("the database cannot be used now")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The statement took longer than it may; another one may be quicker.
    #[error("the database took longer than it may")]
    TooSlow(#[source] Box<dyn Error + Send + Sync>),
    /// Another writer was in the way, and the transaction is undone; the same again can succeed.
    #[error("another writer was in the way")]
    Contended(#[source] Box<dyn Error + Send + Sync>),
    /// A row is there already that must be one only.
    #[error("{0} is there already")]
    Exists(&'static str),
    /// A row holds what this program never writes.
    #[error("{0} in the database is not what was stored")]
    Corrupt(&'static str),
    /// The database refuses the statement: a fault of this program.
    #[error("the database refused a statement")]
    Backend(#[source] Box<dyn Error + Send + Sync>),
}

impl StorageError {
    /// Whether the same call can succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TooSlow(_) | Self::Contended(_))
    }
}
