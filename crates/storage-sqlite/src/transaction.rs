//! [`Transaction`].

use async_trait::async_trait;
use polyreward_domain::{Attributes, ExampleId, ModelRef, StateVersion, TenantId, TextForms, UserId};
use polyreward_storage::{
    AuditEntry, Evidence, ExampleEmbedding, IdempotencyRecord, ModelKey, NewExample, Prediction,
    StorageError, StoredState, SubjectHash, Transaction, UserRecord,
};
use sqlx::{Sqlite, SqliteConnection};
use time::OffsetDateTime;

use crate::{
    audit,
    columns::{blob, count, digest, form_name, json, micros, moment, parsed},
    error::{or_exists, storage_error},
    people,
    sweeper::Sweeper,
};

/// Writes for one tenant on the connection that writes.
pub(crate) struct SqliteTransaction {
    /// None after an error and while a method is under way, so that neither what failed nor what was broken off in the
    /// middle can be committed: whoever drops it rolls it back.
    open: Option<sqlx::Transaction<'static, Sqlite>>,
    tenant: TenantId,
    sweeper: Sweeper,
    erases: bool,
}

impl SqliteTransaction {
    pub(crate) fn new(
        transaction: sqlx::Transaction<'static, Sqlite>,
        tenant: TenantId,
        sweeper: Sweeper,
    ) -> Self {
        Self { open: Some(transaction), tenant, sweeper, erases: false }
    }

    fn take(&mut self) -> Result<sqlx::Transaction<'static, Sqlite>, StorageError> {
        self.open.take().ok_or_else(|| StorageError::Backend("the transaction is undone".into()))
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    #[tracing::instrument(name = "db.user.hold_or_create", skip_all)]
    async fn hold_or_create_user(
        &mut self,
        user_id: &UserId,
        now: OffsetDateTime,
    ) -> Result<(UserRecord, bool), StorageError> {
        let mut open = self.take()?;
        let (tenant, user, at) = (self.tenant.as_str(), user_id.as_str(), micros(now));
        let inserted = sqlx::query!(
            "INSERT INTO users (tenant_id, user_id, state_version, examples, next_position, created_at, updated_at)
             VALUES (?1, ?2, 0, 0, 0, ?3, ?3)
             ON CONFLICT DO NOTHING",
            tenant,
            user,
            at,
        )
        .execute(&mut *open)
        .await
        .map_err(storage_error)?;
        let record = people::user(&mut *open, &self.tenant, user_id).await?;
        let record = record.ok_or(StorageError::Corrupt("a user"))?;
        self.open = Some(open);
        Ok((record, inserted.rows_affected() == 1))
    }

    #[tracing::instrument(name = "db.user.hold", skip_all)]
    async fn hold_user(&mut self, user_id: &UserId) -> Result<Option<UserRecord>, StorageError> {
        let mut open = self.take()?;
        let record = people::user(&mut *open, &self.tenant, user_id).await?;
        self.open = Some(open);
        Ok(record)
    }

    #[tracing::instrument(name = "db.example.known", skip_all, fields(examples = example_ids.len()))]
    async fn known_examples(
        &mut self,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<ExampleId>, StorageError> {
        let mut open = self.take()?;
        let (tenant, user, asked) = (self.tenant.as_str(), user_id.as_str(), json(example_ids)?);
        let known = sqlx::query_scalar!(
            "SELECT example_id
               FROM examples
              WHERE tenant_id = ? AND user_id = ? AND example_id IN (SELECT value FROM json_each(?))",
            tenant,
            user,
            asked,
        );
        let known = known.fetch_all(&mut *open).await.map_err(storage_error)?;
        let known = known.into_iter().map(|id| parsed(id, "an example id")).collect::<Result<_, _>>()?;
        self.open = Some(open);
        Ok(known)
    }

    #[tracing::instrument(name = "db.example.evidence", skip_all)]
    async fn evidence(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError> {
        let mut open = self.take()?;
        let evidence = people::evidence(&mut *open, &self.tenant, user_id, backbone, forms).await?;
        self.open = Some(open);
        Ok(evidence)
    }

    #[tracing::instrument(name = "db.state.get", skip_all)]
    async fn state(
        &mut self,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError> {
        let mut open = self.take()?;
        let state = people::state(&mut *open, &self.tenant, user_id, model).await?;
        self.open = Some(open);
        Ok(state)
    }

    #[tracing::instrument(name = "db.example.add", skip_all, fields(examples = examples.len()))]
    async fn add_examples(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        examples: &[NewExample],
    ) -> Result<(), StorageError> {
        let mut open = self.take()?;
        for example in examples {
            insert_example(&mut open, &self.tenant, user_id, example).await?;
            for embedding in &example.embeddings {
                let id = &example.example_id;
                insert_embedding(&mut open, &self.tenant, user_id, id, backbone, embedding).await?;
            }
        }
        self.open = Some(open);
        Ok(())
    }

    #[tracing::instrument(name = "db.embedding.add", skip_all, fields(examples = embeddings.len()))]
    async fn add_embeddings(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        embeddings: &[(ExampleId, Vec<ExampleEmbedding>)],
    ) -> Result<(), StorageError> {
        let mut open = self.take()?;
        for (id, embeddings) in embeddings {
            for embedding in embeddings {
                insert_embedding(&mut open, &self.tenant, user_id, id, backbone, embedding).await?;
            }
        }
        self.open = Some(open);
        Ok(())
    }

    #[tracing::instrument(name = "db.prediction.add", skip_all, fields(predictions = predictions.len()))]
    async fn add_predictions(
        &mut self,
        user_id: &UserId,
        predictions: &[Prediction],
    ) -> Result<(), StorageError> {
        let mut open = self.take()?;
        let (tenant, user) = (self.tenant.as_str(), user_id.as_str());
        for prediction in predictions {
            let (example, model) = (prediction.example_id.as_str(), prediction.model.to_string());
            let (shot, at) = (count(prediction.shot)?, micros(prediction.created_at));
            sqlx::query!(
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
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                tenant,
                user,
                example,
                model,
                shot,
                prediction.preference,
                prediction.population_preference,
                prediction.baseline_preference,
                at,
            )
            .execute(&mut *open)
            .await
            .map_err(storage_error)?;
        }
        self.open = Some(open);
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
        let mut open = self.take()?;
        let (tenant, user, key) = (self.tenant.as_str(), user_id.as_str(), model.as_slice());
        let (name, version, examples) =
            (name.to_string(), state.version.get().cast_signed(), count(state.examples)?);
        let (mean, covariance) = (blob(&state.mean), blob(&state.covariance));
        sqlx::query!(
            "INSERT INTO user_states (
                 tenant_id,
                 user_id,
                 model_key,
                 model,
                 state_version,
                 examples,
                 mean,
                 covariance)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (tenant_id, user_id, model_key) DO UPDATE
                SET model = excluded.model,
                    state_version = excluded.state_version,
                    examples = excluded.examples,
                    mean = excluded.mean,
                    covariance = excluded.covariance",
            tenant,
            user,
            key,
            name,
            version,
            examples,
            mean,
            covariance,
        )
        .execute(&mut *open)
        .await
        .map_err(storage_error)?;
        self.open = Some(open);
        Ok(())
    }

    #[tracing::instrument(name = "db.state.remove", skip_all)]
    async fn remove_states(&mut self, user_id: &UserId) -> Result<u64, StorageError> {
        let mut open = self.take()?;
        let (tenant, user) = (self.tenant.as_str(), user_id.as_str());
        let removed =
            sqlx::query!("DELETE FROM user_states WHERE tenant_id = ? AND user_id = ?", tenant, user)
                .execute(&mut *open)
                .await
                .map_err(storage_error)?;
        self.open = Some(open);
        Ok(removed.rows_affected())
    }

    #[tracing::instrument(name = "db.user.put_attributes", skip_all, fields(attributes = attributes.len()))]
    async fn put_attributes(
        &mut self,
        user_id: &UserId,
        attributes: &Attributes,
    ) -> Result<(), StorageError> {
        let mut open = self.take()?;
        let (tenant, user) = (self.tenant.as_str(), user_id.as_str());
        sqlx::query!("DELETE FROM user_attributes WHERE tenant_id = ? AND user_id = ?", tenant, user)
            .execute(&mut *open)
            .await
            .map_err(storage_error)?;
        for (key, value) in attributes {
            sqlx::query!(
                "INSERT INTO user_attributes (tenant_id, user_id, key, value) VALUES (?, ?, ?, ?)",
                tenant,
                user,
                key,
                value,
            )
            .execute(&mut *open)
            .await
            .map_err(storage_error)?;
        }
        self.open = Some(open);
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
        let mut open = self.take()?;
        let (tenant, user, version) = (self.tenant.as_str(), user_id.as_str(), version.get().cast_signed());
        let (examples, next_position, at) = (count(examples)?, count(next_position)?, micros(now));
        let saved = sqlx::query!(
            "UPDATE users
                SET state_version = ?, examples = ?, next_position = ?, updated_at = ?
              WHERE tenant_id = ? AND user_id = ?",
            version,
            examples,
            next_position,
            at,
            tenant,
            user,
        )
        .execute(&mut *open)
        .await
        .map_err(storage_error)?;
        if saved.rows_affected() != 1 {
            return Err(StorageError::Backend("nobody is there to be saved".into()));
        }
        self.open = Some(open);
        Ok(())
    }

    #[tracing::instrument(name = "db.example.erase", skip_all)]
    async fn erase_example(
        &mut self,
        user_id: &UserId,
        example_id: &ExampleId,
    ) -> Result<bool, StorageError> {
        let mut open = self.take()?;
        let (tenant, user, example) = (self.tenant.as_str(), user_id.as_str(), example_id.as_str());
        self.erases = true;
        let erased = sqlx::query!(
            "DELETE FROM examples WHERE tenant_id = ? AND user_id = ? AND example_id = ?",
            tenant,
            user,
            example,
        )
        .execute(&mut *open)
        .await
        .map_err(storage_error)?;
        self.open = Some(open);
        Ok(erased.rows_affected() == 1)
    }

    #[tracing::instrument(name = "db.user.erase", skip_all)]
    async fn erase_user(&mut self, user_id: &UserId) -> Result<bool, StorageError> {
        let mut open = self.take()?;
        let (tenant, user) = (self.tenant.as_str(), user_id.as_str());
        self.erases = true;
        // Every table of theirs falls with the row.
        let erased = sqlx::query!("DELETE FROM users WHERE tenant_id = ? AND user_id = ?", tenant, user)
            .execute(&mut *open)
            .await
            .map_err(storage_error)?;
        self.open = Some(open);
        Ok(erased.rows_affected() == 1)
    }

    #[tracing::instrument(name = "db.idempotency.get", skip_all)]
    async fn idempotency(&mut self, key: &str) -> Result<Option<IdempotencyRecord>, StorageError> {
        let mut open = self.take()?;
        let tenant = self.tenant.as_str();
        let row = sqlx::query!(
            "SELECT idempotency_key, request_hash, status, body, created_at
               FROM idempotency_keys
              WHERE tenant_id = ? AND idempotency_key = ?",
            tenant,
            key,
        )
        .fetch_optional(&mut *open)
        .await
        .map_err(storage_error)?;
        let record = row.map(|row| {
            Ok::<_, StorageError>(IdempotencyRecord {
                key: row.idempotency_key,
                request: digest(&row.request_hash, "the digest of a request")?,
                status: row.status.try_into().map_err(|_| StorageError::Corrupt("a status"))?,
                body: row.body,
                created_at: moment(row.created_at)?,
            })
        });
        let record = record.transpose()?;
        self.open = Some(open);
        Ok(record)
    }

    #[tracing::instrument(name = "db.idempotency.keep", skip_all)]
    async fn keep_idempotency(
        &mut self,
        user_id: &UserId,
        record: &IdempotencyRecord,
    ) -> Result<(), StorageError> {
        let mut open = self.take()?;
        let (tenant, user, request) = (self.tenant.as_str(), user_id.as_str(), record.request.as_slice());
        let at = micros(record.created_at);
        sqlx::query!(
            "INSERT INTO idempotency_keys (
                 tenant_id,
                 idempotency_key,
                 user_id,
                 request_hash,
                 status,
                 body,
                 created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            tenant,
            record.key,
            user,
            request,
            record.status,
            record.body,
            at,
        )
        .execute(&mut *open)
        .await
        .map_err(or_exists("an answer to a request of this name"))?;
        self.open = Some(open);
        Ok(())
    }

    async fn announce_erasure(&mut self, _subject: &SubjectHash) -> Result<(), StorageError> {
        Ok(())
    }

    #[tracing::instrument(name = "db.audit.add", skip_all)]
    async fn audit(&mut self, entry: &AuditEntry) -> Result<(), StorageError> {
        let mut open = self.take()?;
        audit::insert(&mut *open, Some(self.tenant.as_str()), entry).await?;
        self.open = Some(open);
        Ok(())
    }

    #[tracing::instrument(name = "db.commit", skip_all)]
    async fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        let open = self.take()?;
        if self.erases {
            self.sweeper.owe();
        }
        open.commit().await.map_err(storage_error)?;
        self.sweeper.sweep_after(self.erases).await;
        Ok(())
    }
}

async fn insert_example(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    user_id: &UserId,
    example: &NewExample,
) -> Result<(), StorageError> {
    let (tenant, user, id) = (tenant.as_str(), user_id.as_str(), example.example_id.as_str());
    let (position, at) = (count(example.position)?, micros(example.created_at));
    let [chosen_name, rejected_name] = example.names.map(u64::cast_signed);
    let comparison = &example.comparison;
    let (strength, label_confidence) = (comparison.strength.get(), comparison.label_confidence.get());
    let prompt = json(&comparison.prompt)?;
    sqlx::query!(
        "INSERT INTO examples (
             tenant_id,
             user_id,
             example_id,
             position,
             strength,
             label_confidence,
             chosen_name,
             rejected_name,
             created_at,
             prompt,
             chosen,
             rejected,
             rationale)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        tenant,
        user,
        id,
        position,
        strength,
        label_confidence,
        chosen_name,
        rejected_name,
        at,
        prompt,
        comparison.chosen,
        comparison.rejected,
        comparison.rationale,
    )
    .execute(connection)
    .await
    .map_err(storage_error)?;
    Ok(())
}

/// Nothing where the example is not there, or the embedding is.
async fn insert_embedding(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    user_id: &UserId,
    example_id: &ExampleId,
    backbone: &str,
    embedding: &ExampleEmbedding,
) -> Result<(), StorageError> {
    let (tenant, user, example) = (tenant.as_str(), user_id.as_str(), example_id.as_str());
    let form = form_name(embedding.form);
    let (chosen, rejected) = (blob(&embedding.chosen), blob(&embedding.rejected));
    sqlx::query!(
        "INSERT INTO example_embeddings (tenant_id, user_id, example_id, backbone, form, chosen, rejected)
         SELECT tenant_id, user_id, example_id, ?4, ?5, ?6, ?7
           FROM examples
          WHERE tenant_id = ?1 AND user_id = ?2 AND example_id = ?3
             ON CONFLICT DO NOTHING",
        tenant,
        user,
        example,
        backbone,
        form,
        chosen,
        rejected,
    )
    .execute(connection)
    .await
    .map_err(storage_error)?;
    Ok(())
}
