//! What happens together, or not at all.

use async_trait::async_trait;
use polyreward_domain::{Attributes, ExampleId, ModelRef, StateVersion, TenantId, TextForms, UserId};
use polyreward_storage::{
    AuditEntry, Evidence, ExampleEmbedding, IdempotencyRecord, KeyId, ModelKey, NewExample, Prediction,
    StorageError, StoredState, SubjectHash, Transaction, UserRecord,
};
use time::OffsetDateTime;

use crate::{
    connections::{Held, within},
    erasures,
    error::failed,
    queries,
    rows::{UserRow, bytes_of, form_name, id_of, json_of, stored_count},
};

pub(crate) struct PostgresTransaction {
    transaction: Held,
    tenant: TenantId,
    /// PostgreSQL answers COMMIT with success where a statement failed before, and undoes all of it.
    undone: bool,
}

impl PostgresTransaction {
    pub fn new(transaction: Held, tenant: TenantId) -> Self {
        Self { transaction, tenant, undone: false }
    }

    /// Remembers that a statement failed.
    fn checked<T, E: Into<Failure>>(&mut self, done: Result<T, E>) -> Result<T, StorageError> {
        done.map_err(|error| {
            self.undone = true;
            error.into().0
        })
    }

    async fn held_user(&mut self, user_id: &UserId) -> Result<Option<UserRecord>, StorageError> {
        let held = sqlx::query!(
            "SELECT state_version, examples, next_position, created_at, updated_at
               FROM users
              WHERE tenant_id = $1 AND user_id = $2
                FOR UPDATE",
            self.tenant.as_str(),
            user_id.as_str(),
        );
        let held =
            within(self.transaction.answer_timeout(), held.fetch_optional(&mut *self.transaction)).await;
        let Some(held) = self.checked(held)? else { return Ok(None) };
        // Apart from the first, which may have waited for another writer and would show the attributes of before that.
        let attributes = sqlx::query!(
            "SELECT key, value FROM user_attributes WHERE tenant_id = $1 AND user_id = $2",
            self.tenant.as_str(),
            user_id.as_str(),
        );
        let attributes =
            within(self.transaction.answer_timeout(), attributes.fetch_all(&mut *self.transaction)).await;
        let (keys, values) = self.checked(attributes)?.into_iter().map(|row| (row.key, row.value)).unzip();
        let row = UserRow {
            user_id: user_id.to_string(),
            state_version: held.state_version,
            examples: held.examples,
            next_position: held.next_position,
            created_at: held.created_at,
            updated_at: held.updated_at,
            keys,
            values,
        };
        row.try_into().map(Some)
    }

    /// Whether there was nobody. Who is made is held.
    async fn create_user(&mut self, user_id: &UserId, now: OffsetDateTime) -> Result<bool, StorageError> {
        let done = sqlx::query!(
            "INSERT INTO users (tenant_id, user_id, state_version, examples, next_position, created_at, updated_at)
             VALUES ($1, $2, $3, 0, 0, $4, $4)
                 ON CONFLICT DO NOTHING",
            self.tenant.as_str(),
            user_id.as_str(),
            StateVersion::POPULATION.get().cast_signed(),
            now,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        Ok(self.checked(done)?.rows_affected() == 1)
    }

    /// Embeddings of examples that there are; those that are there are left as they are.
    async fn store_embeddings(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        columns: EmbeddingColumns,
    ) -> Result<(), StorageError> {
        let EmbeddingColumns { example_ids, forms, chosen, rejected } = columns;
        if example_ids.is_empty() {
            return Ok(());
        }
        let done = sqlx::query!(
            "INSERT INTO example_embeddings (tenant_id, user_id, example_id, backbone, form, chosen, rejected)
             SELECT examples.tenant_id, examples.user_id, examples.example_id, $3, new.form, new.chosen, new.rejected
               FROM unnest($4::TEXT[], $5::TEXT[], $6::BYTEA[], $7::BYTEA[])
                    AS new (example_id, form, chosen, rejected)
               JOIN examples
                 ON examples.tenant_id = $1 AND examples.user_id = $2 AND examples.example_id = new.example_id
                 ON CONFLICT DO NOTHING",
            self.tenant.as_str(),
            user_id.as_str(),
            backbone,
            &example_ids,
            &forms,
            &chosen,
            &rejected,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        Ok(())
    }
}

/// Embeddings as a statement takes them.
#[derive(Default)]
struct EmbeddingColumns {
    example_ids: Vec<String>,
    forms: Vec<String>,
    chosen: Vec<Vec<u8>>,
    rejected: Vec<Vec<u8>>,
}

impl EmbeddingColumns {
    fn push(&mut self, example_id: &ExampleId, embeddings: &[ExampleEmbedding]) {
        for embedding in embeddings {
            self.example_ids.push(example_id.to_string());
            self.forms.push(form_name(embedding.form).to_owned());
            self.chosen.push(bytes_of(&embedding.chosen));
            self.rejected.push(bytes_of(&embedding.rejected));
        }
    }
}

/// Of either kind, so that one function remembers it.
struct Failure(StorageError);

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self(failed(error))
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self(error)
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    #[tracing::instrument(name = "db.user.hold_or_create", skip_all)]
    async fn hold_or_create_user(
        &mut self,
        user_id: &UserId,
        now: OffsetDateTime,
    ) -> Result<(UserRecord, bool), StorageError> {
        let mut created = false;
        loop {
            // Between the two somebody else may make the person, or erase them again.
            if let Some(user) = self.held_user(user_id).await? {
                return Ok((user, created));
            }
            created = self.create_user(user_id, now).await?;
        }
    }

    #[tracing::instrument(name = "db.user.hold", skip_all)]
    async fn hold_user(&mut self, user_id: &UserId) -> Result<Option<UserRecord>, StorageError> {
        self.held_user(user_id).await
    }

    #[tracing::instrument(name = "db.example.known", skip_all, fields(examples = example_ids.len()))]
    async fn known_examples(
        &mut self,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<ExampleId>, StorageError> {
        let asked: Vec<String> = example_ids.iter().map(ToString::to_string).collect();
        let known = sqlx::query_scalar!(
            "SELECT example_id
               FROM examples
              WHERE tenant_id = $1 AND user_id = $2 AND example_id = ANY ($3)
              ORDER BY position",
            self.tenant.as_str(),
            user_id.as_str(),
            &asked,
        );
        let known = within(self.transaction.answer_timeout(), known.fetch_all(&mut *self.transaction)).await;
        self.checked(known)?.iter().map(|example_id| id_of(example_id, "an example id")).collect()
    }

    #[tracing::instrument(name = "db.example.evidence", skip_all)]
    async fn evidence(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError> {
        let read = queries::evidence(&mut self.transaction, &self.tenant, user_id, backbone, forms).await;
        self.checked(read)
    }

    #[tracing::instrument(name = "db.state.get", skip_all)]
    async fn state(
        &mut self,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError> {
        let read = queries::state(&mut self.transaction, &self.tenant, user_id, model).await;
        self.checked(read)
    }

    #[tracing::instrument(name = "db.example.add", skip_all, fields(examples = examples.len()))]
    async fn add_examples(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        examples: &[NewExample],
    ) -> Result<(), StorageError> {
        let example_ids: Vec<String> = examples.iter().map(|new| new.example_id.to_string()).collect();
        let positions: Vec<i64> = examples.iter().map(|new| stored_count(new.position)).collect();
        let prompts: Vec<String> = examples.iter().map(|new| json_of(&new.comparison.prompt)).collect();
        let chosen: Vec<String> = examples.iter().map(|new| new.comparison.chosen.clone()).collect();
        let rejected: Vec<String> = examples.iter().map(|new| new.comparison.rejected.clone()).collect();
        let strengths: Vec<f64> = examples.iter().map(|new| new.comparison.strength.get()).collect();
        let confidences: Vec<f64> =
            examples.iter().map(|new| new.comparison.label_confidence.get()).collect();
        let rationales: Vec<Option<String>> =
            examples.iter().map(|new| new.comparison.rationale.clone()).collect();
        let chosen_names: Vec<i64> = examples.iter().map(|new| new.names[0].cast_signed()).collect();
        let rejected_names: Vec<i64> = examples.iter().map(|new| new.names[1].cast_signed()).collect();
        let created: Vec<OffsetDateTime> = examples.iter().map(|new| new.created_at).collect();
        let done = sqlx::query!(
            "INSERT INTO examples (
                    tenant_id,
                    user_id,
                    example_id,
                    position,
                    prompt,
                    chosen,
                    rejected,
                    strength,
                    label_confidence,
                    rationale,
                    chosen_name,
                    rejected_name,
                    created_at)
             SELECT $1, $2, new.*
               FROM unnest(
                    $3::TEXT[],
                    $4::BIGINT[],
                    $5::TEXT[],
                    $6::TEXT[],
                    $7::TEXT[],
                    $8::DOUBLE PRECISION[],
                    $9::DOUBLE PRECISION[],
                    $10::TEXT[],
                    $11::BIGINT[],
                    $12::BIGINT[],
                    $13::TIMESTAMPTZ[]) AS new",
            self.tenant.as_str(),
            user_id.as_str(),
            &example_ids,
            &positions,
            &prompts,
            &chosen,
            &rejected,
            &strengths,
            &confidences,
            &rationales as &[Option<String>],
            &chosen_names,
            &rejected_names,
            &created,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        let mut embeddings = EmbeddingColumns::default();
        for new in examples {
            embeddings.push(&new.example_id, &new.embeddings);
        }
        self.store_embeddings(user_id, backbone, embeddings).await
    }

    #[tracing::instrument(name = "db.embedding.add", skip_all, fields(examples = embeddings.len()))]
    async fn add_embeddings(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        embeddings: &[(ExampleId, Vec<ExampleEmbedding>)],
    ) -> Result<(), StorageError> {
        let mut columns = EmbeddingColumns::default();
        for (example_id, forms) in embeddings {
            columns.push(example_id, forms);
        }
        self.store_embeddings(user_id, backbone, columns).await
    }

    #[tracing::instrument(name = "db.prediction.add", skip_all, fields(predictions = predictions.len()))]
    async fn add_predictions(
        &mut self,
        user_id: &UserId,
        predictions: &[Prediction],
    ) -> Result<(), StorageError> {
        let example_ids: Vec<String> = predictions.iter().map(|new| new.example_id.to_string()).collect();
        let models: Vec<String> = predictions.iter().map(|new| new.model.to_string()).collect();
        let shots: Vec<i64> = predictions.iter().map(|new| stored_count(new.shot)).collect();
        let preferences: Vec<f64> = predictions.iter().map(|new| new.preference).collect();
        let population: Vec<f64> = predictions.iter().map(|new| new.population_preference).collect();
        let baseline: Vec<Option<f64>> = predictions.iter().map(|new| new.baseline_preference).collect();
        let created: Vec<OffsetDateTime> = predictions.iter().map(|new| new.created_at).collect();
        let done = sqlx::query!(
            "INSERT INTO predictions (
                    tenant_id,
                    user_id,
                    example_id,
                    model,
                    shot,
                    preference,
                    population_preference,
                    baseline_preference,
                    created_at)
             SELECT $1, $2, new.*
               FROM unnest(
                    $3::TEXT[],
                    $4::TEXT[],
                    $5::BIGINT[],
                    $6::DOUBLE PRECISION[],
                    $7::DOUBLE PRECISION[],
                    $8::DOUBLE PRECISION[],
                    $9::TIMESTAMPTZ[]) AS new",
            self.tenant.as_str(),
            user_id.as_str(),
            &example_ids,
            &models,
            &shots,
            &preferences,
            &population,
            &baseline as &[Option<f64>],
            &created,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        Ok(())
    }

    #[tracing::instrument(name = "db.state.put", skip_all)]
    async fn put_state(
        &mut self,
        user_id: &UserId,
        model: &ModelKey,
        name: &ModelRef,
        state: &StoredState,
    ) -> Result<(), StorageError> {
        let done = sqlx::query!(
            "INSERT INTO user_states (
                    tenant_id, user_id, model_key, model, state_version, examples, mean, covariance)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (tenant_id, user_id, model_key) DO UPDATE
                SET model = EXCLUDED.model,
                    state_version = EXCLUDED.state_version,
                    examples = EXCLUDED.examples,
                    mean = EXCLUDED.mean,
                    covariance = EXCLUDED.covariance",
            self.tenant.as_str(),
            user_id.as_str(),
            model,
            name.to_string(),
            state.version.get().cast_signed(),
            stored_count(state.examples),
            bytes_of(&state.mean),
            bytes_of(&state.covariance),
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        Ok(())
    }

    #[tracing::instrument(name = "db.state.remove", skip_all)]
    async fn remove_states(&mut self, user_id: &UserId) -> Result<u64, StorageError> {
        let done = sqlx::query!(
            "DELETE FROM user_states WHERE tenant_id = $1 AND user_id = $2",
            self.tenant.as_str(),
            user_id.as_str(),
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        Ok(self.checked(done)?.rows_affected())
    }

    #[tracing::instrument(name = "db.user.put_attributes", skip_all)]
    async fn put_attributes(
        &mut self,
        user_id: &UserId,
        attributes: &Attributes,
    ) -> Result<(), StorageError> {
        let (keys, values): (Vec<String>, Vec<String>) =
            attributes.iter().map(|(key, value)| (key.clone(), value.clone())).unzip();
        let done = sqlx::query!(
            "DELETE FROM user_attributes WHERE tenant_id = $1 AND user_id = $2 AND key <> ALL ($3)",
            self.tenant.as_str(),
            user_id.as_str(),
            &keys,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        if keys.is_empty() {
            return Ok(());
        }
        let done = sqlx::query!(
            "INSERT INTO user_attributes (tenant_id, user_id, key, value)
             SELECT $1, $2, new.*
               FROM unnest($3::TEXT[], $4::TEXT[]) AS new
                 ON CONFLICT (tenant_id, user_id, key) DO UPDATE
                SET value = EXCLUDED.value",
            self.tenant.as_str(),
            user_id.as_str(),
            &keys,
            &values,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        Ok(())
    }

    #[tracing::instrument(name = "db.user.save", skip_all)]
    async fn save_user(
        &mut self,
        user_id: &UserId,
        version: StateVersion,
        examples: u64,
        next_position: u64,
        now: OffsetDateTime,
    ) -> Result<(), StorageError> {
        let done = sqlx::query!(
            "UPDATE users
                SET state_version = $3,
                    examples = $4,
                    next_position = $5,
                    updated_at = $6
              WHERE tenant_id = $1 AND user_id = $2",
            self.tenant.as_str(),
            user_id.as_str(),
            version.get().cast_signed(),
            stored_count(examples),
            stored_count(next_position),
            now,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        match self.checked(done)?.rows_affected() {
            1 => Ok(()),
            _ => self.checked(Err(StorageError::Backend("nobody is there to be saved".into()))),
        }
    }

    #[tracing::instrument(name = "db.example.erase", skip_all)]
    async fn erase_example(
        &mut self,
        user_id: &UserId,
        example_id: &ExampleId,
    ) -> Result<bool, StorageError> {
        let done = sqlx::query!(
            "DELETE FROM examples WHERE tenant_id = $1 AND user_id = $2 AND example_id = $3",
            self.tenant.as_str(),
            user_id.as_str(),
            example_id.as_str(),
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        Ok(self.checked(done)?.rows_affected() == 1)
    }

    #[tracing::instrument(name = "db.user.erase", skip_all)]
    async fn erase_user(&mut self, user_id: &UserId) -> Result<bool, StorageError> {
        // All that is theirs refers to them and goes with them.
        let done = sqlx::query!(
            "DELETE FROM users WHERE tenant_id = $1 AND user_id = $2",
            self.tenant.as_str(),
            user_id.as_str(),
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        Ok(self.checked(done)?.rows_affected() == 1)
    }

    #[tracing::instrument(name = "db.idempotency.get", skip_all)]
    async fn idempotency(&mut self, key: &str) -> Result<Option<IdempotencyRecord>, StorageError> {
        let row = sqlx::query!(
            "SELECT request_hash, status, body, created_at
               FROM idempotency_keys
              WHERE tenant_id = $1 AND idempotency_key = $2",
            self.tenant.as_str(),
            key,
        );
        let row = within(self.transaction.answer_timeout(), row.fetch_optional(&mut *self.transaction)).await;
        let Some(row) = self.checked(row)? else { return Ok(None) };
        Ok(Some(IdempotencyRecord {
            key: key.to_owned(),
            request: row
                .request_hash
                .try_into()
                .map_err(|_| StorageError::Corrupt("the digest of a request"))?,
            status: row.status.try_into().map_err(|_| StorageError::Corrupt("the status of an answer"))?,
            body: row.body,
            created_at: row.created_at,
        }))
    }

    #[tracing::instrument(name = "db.idempotency.keep", skip_all)]
    async fn keep_idempotency(
        &mut self,
        user_id: &UserId,
        record: &IdempotencyRecord,
    ) -> Result<(), StorageError> {
        let done = sqlx::query!(
            "INSERT INTO idempotency_keys (
                    tenant_id, idempotency_key, user_id, request_hash, status, body, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT DO NOTHING",
            self.tenant.as_str(),
            record.key,
            user_id.as_str(),
            &record.request,
            i32::from(record.status),
            record.body,
            record.created_at,
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        match self.checked(done)?.rows_affected() {
            0 => self.checked(Err(StorageError::Exists("an answer to a request of this name"))),
            _ => Ok(()),
        }
    }

    #[tracing::instrument(name = "db.erasure.announce", skip_all)]
    async fn announce_erasure(&mut self, subject: &SubjectHash) -> Result<(), StorageError> {
        let done = sqlx::query!(
            r#"SELECT pg_notify($1, encode($2, 'hex')) AS "notified: ()""#,
            erasures::CHANNEL,
            subject.as_slice(),
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        Ok(())
    }

    #[tracing::instrument(name = "db.audit.add", skip_all)]
    async fn audit(&mut self, entry: &AuditEntry) -> Result<(), StorageError> {
        let done = sqlx::query!(
            "INSERT INTO audit_log (audit_id, tenant_id, at, key_id, action, subject_hash, row_count)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            entry.audit_id,
            self.tenant.as_str(),
            entry.at,
            entry.key_id.map(|KeyId(id)| id),
            entry.action.as_str(),
            entry.subject.as_ref().map(<[u8; 32]>::as_slice),
            stored_count(entry.rows),
        );
        let done = within(self.transaction.answer_timeout(), done.execute(&mut *self.transaction)).await;
        self.checked(done)?;
        Ok(())
    }

    #[tracing::instrument(name = "db.transaction.commit", skip_all)]
    async fn commit(self: Box<Self>) -> Result<(), StorageError> {
        if self.undone {
            return Err(StorageError::Backend("a statement before failed".into()));
        }
        self.transaction.commit().await.map_err(failed)
    }
}
