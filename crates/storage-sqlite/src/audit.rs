//! Lines of the audit log.

use polyreward_storage::{AuditEntry, StorageError};
use sqlx::SqliteExecutor;

use crate::{
    columns::{count, micros},
    error::storage_error,
};

pub(crate) async fn insert(
    executor: impl SqliteExecutor<'_>,
    tenant: Option<&str>,
    entry: &AuditEntry,
) -> Result<(), StorageError> {
    let audit_id = entry.audit_id.as_bytes().as_slice();
    let key_id = entry.key_id.as_ref().map(|key_id| key_id.0.as_bytes().as_slice());
    let subject = entry.subject.as_ref().map(<[u8; 32]>::as_slice);
    let (at, action, rows) = (micros(entry.at), entry.action.as_str(), count(entry.rows)?);
    sqlx::query!(
        "INSERT INTO audit_log (audit_id, tenant_id, at, key_id, action, subject_hash, row_count)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        audit_id,
        tenant,
        at,
        key_id,
        action,
        subject,
        rows,
    )
    .execute(executor)
    .await
    .map_err(storage_error)?;
    Ok(())
}
