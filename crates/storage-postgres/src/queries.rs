//! What both reads and transactions ask.

use polyreward_domain::{StateVersion, TenantId, TextForms, UserId};
use polyreward_storage::{Evidence, ModelKey, StorageError, StoredState};

use crate::{
    connections::{Held, within},
    error::failed,
    rows::{EvidenceRow, count_of, digest_of, evidence_of, floats_of, form_name},
};

pub(crate) async fn evidence(
    connection: &mut Held,
    tenant: &TenantId,
    user_id: &UserId,
    backbone: &str,
    forms: TextForms,
) -> Result<Vec<Evidence>, StorageError> {
    let forms: Vec<String> = forms.iter().map(|form| form_name(form).to_owned()).collect();
    let rows = sqlx::query_as!(
        EvidenceRow,
        r#"SELECT examples.example_id,
                  examples.chosen_name,
                  examples.rejected_name,
                  examples.strength,
                  examples.label_confidence,
                  embeddings.form AS "form?",
                  embeddings.chosen AS "chosen?",
                  embeddings.rejected AS "rejected?"
             FROM examples
             LEFT JOIN example_embeddings AS embeddings
                    ON embeddings.tenant_id = examples.tenant_id
                   AND embeddings.user_id = examples.user_id
                   AND embeddings.example_id = examples.example_id
                   AND embeddings.backbone = $3
                   AND embeddings.form = ANY ($4)
            WHERE examples.tenant_id = $1 AND examples.user_id = $2
            ORDER BY examples.position"#,
        tenant.as_str(),
        user_id.as_str(),
        backbone,
        &forms,
    );
    evidence_of(within(connection.answer_timeout(), rows.fetch_all(&mut **connection)).await.map_err(failed)?)
}

pub(crate) async fn state(
    connection: &mut Held,
    tenant: &TenantId,
    user_id: &UserId,
    model: &ModelKey,
) -> Result<Option<StoredState>, StorageError> {
    let row = sqlx::query!(
        "SELECT state_version, examples, mean, covariance
           FROM user_states
          WHERE tenant_id = $1 AND user_id = $2 AND model_key = $3",
        tenant.as_str(),
        user_id.as_str(),
        model,
    );
    let row =
        within(connection.answer_timeout(), row.fetch_optional(&mut **connection)).await.map_err(failed)?;
    row.map(|row| {
        Ok(StoredState {
            version: StateVersion::from_number(digest_of(row.state_version)),
            examples: count_of(row.examples)?,
            mean: floats_of(&row.mean)?,
            covariance: floats_of(&row.covariance)?,
        })
    })
    .transpose()
}
