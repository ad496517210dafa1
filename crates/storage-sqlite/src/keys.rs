//! [`Keys`].

use async_trait::async_trait;
use polyreward_domain::TenantId;
use polyreward_storage::{AuditAction, AuditEntry, KeyHash, KeyId, KeyRecord, Keys, StorageError};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    SqliteStorage, audit,
    columns::{micros, moment, parsed},
    error::{or_exists, storage_error},
};

struct KeyRow {
    key_id: Vec<u8>,
    tenant_id: String,
    name: String,
    scopes: String,
    created_at: i64,
    revoked_at: Option<i64>,
}

impl TryFrom<KeyRow> for KeyRecord {
    type Error = StorageError;

    fn try_from(row: KeyRow) -> Result<Self, StorageError> {
        let key_id = Uuid::from_slice(&row.key_id).map_err(|_| StorageError::Corrupt("a key's id"))?;
        Ok(Self {
            key_id: KeyId(key_id),
            tenant: parsed(row.tenant_id, "a tenant")?,
            name: row.name,
            scopes: row.scopes.parse().map_err(|_| StorageError::Corrupt("a key's scopes"))?,
            created_at: moment(row.created_at)?,
            revoked_at: row.revoked_at.map(moment).transpose()?,
        })
    }
}

fn key_line(action: AuditAction, key_id: KeyId, at: OffsetDateTime) -> AuditEntry {
    AuditEntry { audit_id: Uuid::now_v7(), at, key_id: Some(key_id), action, subject: None, rows: 1 }
}

#[async_trait]
impl Keys for SqliteStorage {
    #[tracing::instrument(name = "db.key.find", skip_all)]
    async fn find_key(&self, hash: &KeyHash) -> Result<Option<KeyRecord>, StorageError> {
        let hash = hash.0.as_slice();
        let row = sqlx::query_as!(
            KeyRow,
            "SELECT key_id, tenant_id, name, scopes, created_at, revoked_at FROM api_keys WHERE key_hash = ?",
            hash,
        );
        let row = row.fetch_optional(&self.readers).await.map_err(storage_error)?;
        row.map(KeyRecord::try_from).transpose()
    }

    #[tracing::instrument(name = "db.key.any", skip_all)]
    async fn has_keys(&self) -> Result<bool, StorageError> {
        let any = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT 1 FROM api_keys) AS "any!: bool""#);
        any.fetch_one(&self.readers).await.map_err(storage_error)
    }

    #[tracing::instrument(name = "db.key.create", skip_all, fields(key.id = %key.key_id))]
    async fn create_key(&self, key: &KeyRecord, hash: &KeyHash) -> Result<(), StorageError> {
        let mut transaction = self.write().await?;
        let (key_id, tenant) = (key.key_id.0.as_bytes().as_slice(), key.tenant.as_str());
        let (hash, scopes) = (hash.0.as_slice(), key.scopes.to_string());
        let (created_at, revoked_at) = (micros(key.created_at), key.revoked_at.map(micros));
        sqlx::query!(
            "INSERT INTO tenants (tenant_id, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
            tenant,
            created_at,
        )
        .execute(&mut *transaction)
        .await
        .map_err(storage_error)?;
        sqlx::query!(
            "INSERT INTO api_keys (key_id, tenant_id, key_hash, name, scopes, created_at, revoked_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            key_id,
            tenant,
            hash,
            key.name,
            scopes,
            created_at,
            revoked_at,
        )
        .execute(&mut *transaction)
        .await
        .map_err(or_exists("a key with this id or hash"))?;
        let line = key_line(AuditAction::KeyCreated, key.key_id, key.created_at);
        audit::insert(&mut *transaction, Some(tenant), &line).await?;
        transaction.commit().await.map_err(storage_error)
    }

    #[tracing::instrument(name = "db.key.list", skip_all)]
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, StorageError> {
        let rows = sqlx::query_as!(
            KeyRow,
            "SELECT key_id, tenant_id, name, scopes, created_at, revoked_at
               FROM api_keys
              ORDER BY created_at, key_id",
        );
        let rows = rows.fetch_all(&self.readers).await.map_err(storage_error)?;
        rows.into_iter().map(KeyRecord::try_from).collect()
    }

    #[tracing::instrument(name = "db.key.revoke", skip_all, fields(key.id = %key_id))]
    async fn revoke_key(&self, key_id: KeyId, at: OffsetDateTime) -> Result<bool, StorageError> {
        let mut transaction = self.write().await?;
        let (id, revoked_at) = (key_id.0.as_bytes().as_slice(), micros(at));
        let key = sqlx::query!("SELECT tenant_id, revoked_at FROM api_keys WHERE key_id = ?", id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(storage_error)?;
        let Some(key) = key else { return Ok(false) };
        if key.revoked_at.is_none() {
            sqlx::query!("UPDATE api_keys SET revoked_at = ? WHERE key_id = ?", revoked_at, id)
                .execute(&mut *transaction)
                .await
                .map_err(storage_error)?;
            let line = key_line(AuditAction::KeyRevoked, key_id, at);
            audit::insert(&mut *transaction, Some(&key.tenant_id), &line).await?;
            transaction.commit().await.map_err(storage_error)?;
        }
        Ok(true)
    }

    #[tracing::instrument(name = "db.tenant.list", skip_all)]
    async fn tenants(&self) -> Result<Vec<TenantId>, StorageError> {
        let names = sqlx::query_scalar!("SELECT tenant_id FROM tenants ORDER BY tenant_id");
        let names = names.fetch_all(&self.readers).await.map_err(storage_error)?;
        names.into_iter().map(|name| parsed(name, "a tenant")).collect()
    }
}
