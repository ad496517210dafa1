//! Questions about people, asked alone or inside a transaction.

use polyreward_domain::{StateVersion, TenantId, TextForms, UserId};
use polyreward_storage::{Evidence, ExampleEmbedding, ModelKey, StorageError, StoredState, UserRecord};
use sqlx::SqliteExecutor;

use crate::{
    columns::{counted, form_name, from_json, json, moment, numbers, parsed, text_form},
    error::storage_error,
};

/// A person with their attributes as a JSON object.
pub(crate) struct UserRow {
    pub user_id: String,
    pub state_version: i64,
    pub examples: i64,
    pub next_position: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub attributes: String,
}

impl TryFrom<UserRow> for UserRecord {
    type Error = StorageError;

    fn try_from(row: UserRow) -> Result<Self, StorageError> {
        Ok(Self {
            user_id: parsed(row.user_id, "a user id")?,
            version: StateVersion::from_number(row.state_version.cast_unsigned()),
            examples: counted(row.examples)?,
            next_position: counted(row.next_position)?,
            attributes: from_json(&row.attributes, "an attribute")?,
            created_at: moment(row.created_at)?,
            updated_at: moment(row.updated_at)?,
        })
    }
}

pub(crate) async fn user(
    executor: impl SqliteExecutor<'_>,
    tenant: &TenantId,
    user_id: &UserId,
) -> Result<Option<UserRecord>, StorageError> {
    let (tenant, user_id) = (tenant.as_str(), user_id.as_str());
    let row = sqlx::query_as!(
        UserRow,
        r#"SELECT user_id,
                  state_version,
                  examples,
                  next_position,
                  created_at,
                  updated_at,
                  (SELECT json_group_object(a.key, a.value)
                     FROM user_attributes a
                    WHERE a.tenant_id = u.tenant_id AND a.user_id = u.user_id) AS "attributes!: String"
             FROM users u
            WHERE tenant_id = ? AND user_id = ?"#,
        tenant,
        user_id,
    );
    row.fetch_optional(executor).await.map_err(storage_error)?.map(UserRecord::try_from).transpose()
}

/// An example with one of its embeddings, or with none.
struct EvidenceRow {
    example_id: String,
    chosen_name: i64,
    rejected_name: i64,
    strength: f64,
    label_confidence: f64,
    form: Option<String>,
    chosen: Option<Vec<u8>>,
    rejected: Option<Vec<u8>>,
}

pub(crate) async fn evidence(
    executor: impl SqliteExecutor<'_>,
    tenant: &TenantId,
    user_id: &UserId,
    backbone: &str,
    forms: TextForms,
) -> Result<Vec<Evidence>, StorageError> {
    let (tenant, user_id) = (tenant.as_str(), user_id.as_str());
    let forms = json(&forms.iter().map(form_name).collect::<Vec<_>>())?;
    let rows = sqlx::query_as!(
        EvidenceRow,
        r#"SELECT x.example_id,
                  x.chosen_name,
                  x.rejected_name,
                  x.strength,
                  x.label_confidence,
                  e.form AS "form?: String",
                  e.chosen AS "chosen?: Vec<u8>",
                  e.rejected AS "rejected?: Vec<u8>"
             FROM examples x
             LEFT JOIN example_embeddings e
               ON e.tenant_id = x.tenant_id
              AND e.user_id = x.user_id
              AND e.example_id = x.example_id
              AND e.backbone = ?3
              AND e.form IN (SELECT value FROM json_each(?4))
            WHERE x.tenant_id = ?1 AND x.user_id = ?2
            ORDER BY x.position"#,
        tenant,
        user_id,
        backbone,
        forms,
    );
    let rows = rows.fetch_all(executor).await.map_err(storage_error)?;
    let mut evidence: Vec<Evidence> = Vec::new();
    for row in rows {
        let embedding = embedding(row.form, row.chosen, row.rejected)?;
        match evidence.last_mut() {
            Some(last) if last.example_id.as_str() == row.example_id => last.embeddings.extend(embedding),
            _ => evidence.push(Evidence {
                example_id: parsed(row.example_id, "an example id")?,
                names: [row.chosen_name.cast_unsigned(), row.rejected_name.cast_unsigned()],
                strength: row.strength,
                label_confidence: row.label_confidence,
                embeddings: embedding.into_iter().collect(),
            }),
        }
    }
    Ok(evidence)
}

fn embedding(
    form: Option<String>,
    chosen: Option<Vec<u8>>,
    rejected: Option<Vec<u8>>,
) -> Result<Option<ExampleEmbedding>, StorageError> {
    let (Some(form), Some(chosen), Some(rejected)) = (form, chosen, rejected) else { return Ok(None) };
    Ok(Some(ExampleEmbedding {
        form: text_form(&form)?,
        chosen: numbers(&chosen, "an embedding")?,
        rejected: numbers(&rejected, "an embedding")?,
    }))
}

pub(crate) async fn state(
    executor: impl SqliteExecutor<'_>,
    tenant: &TenantId,
    user_id: &UserId,
    model: &ModelKey,
) -> Result<Option<StoredState>, StorageError> {
    let (tenant, user_id, model) = (tenant.as_str(), user_id.as_str(), model.as_slice());
    let row = sqlx::query!(
        "SELECT state_version, examples, mean, covariance
           FROM user_states
          WHERE tenant_id = ? AND user_id = ? AND model_key = ?",
        tenant,
        user_id,
        model,
    );
    let Some(row) = row.fetch_optional(executor).await.map_err(storage_error)? else { return Ok(None) };
    Ok(Some(StoredState {
        version: StateVersion::from_number(row.state_version.cast_unsigned()),
        examples: counted(row.examples)?,
        mean: numbers(&row.mean, "a state")?,
        covariance: numbers(&row.covariance, "a state")?,
    }))
}
