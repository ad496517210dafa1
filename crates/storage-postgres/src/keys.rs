//! API keys, before it is known whose data they open: no row-level security on them.

use async_trait::async_trait;
use polyreward_domain::TenantId;
use polyreward_storage::{AuditAction, KeyHash, KeyId, KeyRecord, Keys, StorageError};
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use crate::{
    PostgresStorage,
    connections::{Held, within},
    error::{failed, is_duplicate},
    rows::id_of,
};

/// No tenant: whoever asks for keys sees none's rows.
const NOBODY: &str = "";

struct KeyRow {
    key_id: Uuid,
    tenant_id: String,
    name: String,
    scopes: String,
    created_at: OffsetDateTime,
    revoked_at: Option<OffsetDateTime>,
}

impl TryFrom<KeyRow> for KeyRecord {
    type Error = StorageError;

    fn try_from(row: KeyRow) -> Result<Self, StorageError> {
        Ok(Self {
            key_id: KeyId(row.key_id),
            tenant: id_of(&row.tenant_id, "a tenant")?,
            name: row.name,
            scopes: id_of(&row.scopes, "the scopes of a key")?,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
        })
    }
}

#[async_trait]
impl Keys for PostgresStorage {
    #[tracing::instrument(name = "db.key.find", skip_all)]
    async fn find_key(&self, hash: &KeyHash) -> Result<Option<KeyRecord>, StorageError> {
        let mut connection = self.connections.read(NOBODY).await?;
        let row = sqlx::query_as!(
            KeyRow,
            "SELECT key_id, tenant_id, name, scopes, created_at, revoked_at FROM api_keys WHERE key_hash = $1",
            &hash.0,
        );
        within(connection.answer_timeout(), row.fetch_optional(&mut *connection))
            .await
            .map_err(failed)?
            .map(TryInto::try_into)
            .transpose()
    }

    #[tracing::instrument(name = "db.key.any", skip_all)]
    async fn has_keys(&self) -> Result<bool, StorageError> {
        let mut connection = self.connections.read(NOBODY).await?;
        let any = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT 1 FROM api_keys) AS "any!""#);
        within(connection.answer_timeout(), any.fetch_one(&mut *connection)).await.map_err(failed)
    }

    #[tracing::instrument(name = "db.key.create", skip_all)]
    async fn create_key(&self, key: &KeyRecord, hash: &KeyHash) -> Result<(), StorageError> {
        let mut transaction = self.connections.begin(key.tenant.as_str()).await?;
        let tenant = sqlx::query!(
            "INSERT INTO tenants (tenant_id, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            key.tenant.as_str(),
            key.created_at,
        );
        within(transaction.answer_timeout(), tenant.execute(&mut *transaction)).await.map_err(failed)?;
        let row = sqlx::query!(
            "INSERT INTO api_keys (key_id, tenant_id, key_hash, name, scopes, created_at, revoked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            key.key_id.0,
            key.tenant.as_str(),
            &hash.0,
            key.name,
            key.scopes.to_string(),
            key.created_at,
            key.revoked_at,
        );
        within(transaction.answer_timeout(), row.execute(&mut *transaction)).await.map_err(|error| {
            if is_duplicate(&error) { StorageError::Exists("the key") } else { failed(error) }
        })?;
        audit(&mut transaction, key.tenant.as_str(), AuditAction::KeyCreated, key.key_id, key.created_at)
            .await?;
        transaction.commit().await.map_err(failed)
    }

    #[tracing::instrument(name = "db.key.list", skip_all)]
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, StorageError> {
        let mut connection = self.connections.read(NOBODY).await?;
        let rows = sqlx::query_as!(
            KeyRow,
            "SELECT key_id, tenant_id, name, scopes, created_at, revoked_at
               FROM api_keys
              ORDER BY created_at, key_id",
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    #[tracing::instrument(name = "db.key.revoke", skip_all)]
    async fn revoke_key(&self, key_id: KeyId, at: OffsetDateTime) -> Result<bool, StorageError> {
        let mut transaction = self.connections.begin(NOBODY).await?;
        let revoked = sqlx::query_scalar!(
            "UPDATE api_keys SET revoked_at = $2 WHERE key_id = $1 AND revoked_at IS NULL RETURNING tenant_id",
            key_id.0,
            at,
        );
        let Some(tenant) = within(transaction.answer_timeout(), revoked.fetch_optional(&mut *transaction))
            .await
            .map_err(failed)?
        else {
            let known = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT 1 FROM api_keys WHERE key_id = $1) AS "known!""#,
                key_id.0,
            );
            return within(transaction.answer_timeout(), known.fetch_one(&mut *transaction))
                .await
                .map_err(failed);
        };
        audit(&mut transaction, &tenant, AuditAction::KeyRevoked, key_id, at).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    #[tracing::instrument(name = "db.tenant.list", skip_all)]
    async fn tenants(&self) -> Result<Vec<TenantId>, StorageError> {
        let mut connection = self.connections.read(NOBODY).await?;
        let rows = sqlx::query_scalar!("SELECT tenant_id FROM tenants ORDER BY tenant_id");
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        rows.iter().map(|tenant| id_of(tenant, "a tenant")).collect()
    }
}

/// A line about a key, which names it as the key of the line.
async fn audit(
    connection: &mut Held,
    tenant: &str,
    action: AuditAction,
    KeyId(key_id): KeyId,
    at: OffsetDateTime,
) -> Result<(), StorageError> {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap_or_default();
    let done = sqlx::query!(
        "INSERT INTO audit_log (audit_id, tenant_id, at, key_id, action, row_count) VALUES ($1, $2, $3, $4, $5, 1)",
        Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond())),
        tenant,
        at,
        key_id,
        action.as_str(),
    );
    within(connection.answer_timeout(), done.execute(&mut **connection)).await.map_err(failed)?;
    Ok(())
}
