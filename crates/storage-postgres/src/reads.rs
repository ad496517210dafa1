//! Questions that change nothing.

use async_trait::async_trait;
use polyreward_domain::{Attributes, ExampleId, ModelRef, TenantId, TextForms, UserId};
use polyreward_storage::{
    Crowd, Evidence, GroupCount, LATEST_PREDICTIONS, ModelKey, ModelTally, PersonSummary, Reads,
    StorageError, StoredExample, StoredState, UserRecord, Watermark,
};

use crate::{
    PostgresStorage,
    connections::within,
    error::failed,
    queries,
    rows::{ExampleRow, SummaryRow, UserRow, bounded, count_of, model_of},
};

/// A person as [`Reads::find`] answers, in place of the asked one.
struct FoundRow {
    state_version: Option<i64>,
    examples: Option<i64>,
}

/// A group in three numbers.
struct CrowdRow {
    members: i64,
    upper: i64,
    lower: i64,
}

#[async_trait]
impl Reads for PostgresStorage {
    #[tracing::instrument(name = "db.user.find", skip_all, fields(users = user_ids.len()))]
    async fn find(
        &self,
        tenant: &TenantId,
        user_ids: &[UserId],
    ) -> Result<Vec<Option<PersonSummary>>, StorageError> {
        let asked: Vec<String> = user_ids.iter().map(ToString::to_string).collect();
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let rows = sqlx::query_as!(
            FoundRow,
            r#"SELECT users.state_version AS "state_version?",
                      users.examples AS "examples?"
                 FROM unnest($2::TEXT[]) WITH ORDINALITY AS asked (user_id, place)
                 LEFT JOIN users ON users.tenant_id = $1 AND users.user_id = asked.user_id
                ORDER BY asked.place"#,
            tenant.as_str(),
            &asked,
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        let found = rows.into_iter().zip(asked).map(|(row, user_id)| match row {
            FoundRow { state_version: Some(state_version), examples: Some(examples) } => {
                SummaryRow { user_id, state_version, examples }.try_into().map(Some)
            }
            _ => Ok(None),
        });
        found.collect()
    }

    #[tracing::instrument(name = "db.watermark", skip_all)]
    async fn watermark(&self, tenant: &TenantId) -> Result<Watermark, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        // Two snapshots alike see the same transactions; one that only reads is none of them.
        let snapshot = sqlx::query_scalar!(r#"SELECT pg_current_snapshot()::TEXT AS "snapshot!""#);
        let snapshot = within(connection.answer_timeout(), snapshot.fetch_one(&mut *connection)).await;
        Ok(Watermark::new(snapshot.map_err(failed)?))
    }

    #[tracing::instrument(name = "db.user.crowd", skip_all)]
    async fn crowd(&self, tenant: &TenantId, group: &Attributes) -> Result<Crowd, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let (keys, values): (Vec<String>, Vec<String>) =
            group.iter().map(|(k, v)| (k.clone(), v.clone())).unzip();
        let row = if keys.is_empty() {
            let row = sqlx::query_as!(
                CrowdRow,
                r#"SELECT COUNT(*) AS "members!",
                          COALESCE(SUM(state_version >> 32), 0)::BIGINT AS "upper!",
                          COALESCE(SUM(state_version & 4294967295), 0)::BIGINT AS "lower!"
                     FROM users
                    WHERE tenant_id = $1"#,
                tenant.as_str(),
            );
            within(connection.answer_timeout(), row.fetch_one(&mut *connection)).await
        } else {
            let row = sqlx::query_as!(
                CrowdRow,
                r#"SELECT COUNT(*) AS "members!",
                          COALESCE(SUM(users.state_version >> 32), 0)::BIGINT AS "upper!",
                          COALESCE(SUM(users.state_version & 4294967295), 0)::BIGINT AS "lower!"
                     FROM user_attributes AS main
                     JOIN users USING (tenant_id, user_id)
                    WHERE main.tenant_id = $1
                      AND main.key = ($2::TEXT[])[1]
                      AND main.value = ($3::TEXT[])[1]
                      AND NOT EXISTS (
                          SELECT 1
                            FROM unnest($2::TEXT[], $3::TEXT[]) AS asked (key, value)
                           WHERE NOT EXISTS (
                                 SELECT 1
                                   FROM user_attributes AS other
                                  WHERE other.tenant_id = main.tenant_id
                                    AND other.user_id = main.user_id
                                    AND other.key = asked.key
                                    AND other.value = asked.value))"#,
                tenant.as_str(),
                &keys,
                &values,
            );
            within(connection.answer_timeout(), row.fetch_one(&mut *connection)).await
        };
        let CrowdRow { members, upper, lower } = row.map_err(failed)?;
        Ok(Crowd { members: u64::try_from(members).unwrap_or_default(), upper, lower })
    }

    #[tracing::instrument(name = "db.user.members", skip_all)]
    async fn members(
        &self,
        tenant: &TenantId,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<PersonSummary>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let mut rest = group.iter();
        let Some((key, value)) = rest.next() else {
            let rows = sqlx::query_as!(
                SummaryRow,
                "SELECT user_id, state_version, examples
                   FROM users
                  WHERE tenant_id = $1
                  ORDER BY user_id
                  LIMIT $2",
                tenant.as_str(),
                bounded(limit),
            );
            let rows = within(connection.answer_timeout(), rows.fetch_all(&mut *connection))
                .await
                .map_err(failed)?;
            return rows.into_iter().map(TryInto::try_into).collect();
        };
        let (keys, values): (Vec<String>, Vec<String>) = rest.map(|(k, v)| (k.clone(), v.clone())).unzip();
        // One attribute leads, through its index, which is in the order of ids; the others are looked up.
        let rows = sqlx::query_as!(
            SummaryRow,
            "SELECT users.user_id, users.state_version, users.examples
               FROM user_attributes AS main
               JOIN users USING (tenant_id, user_id)
              WHERE main.tenant_id = $1
                AND main.key = $2
                AND main.value = $3
                AND NOT EXISTS (
                    SELECT 1
                      FROM unnest($4::TEXT[], $5::TEXT[]) AS asked (key, value)
                     WHERE NOT EXISTS (
                           SELECT 1
                             FROM user_attributes AS other
                            WHERE other.tenant_id = main.tenant_id
                              AND other.user_id = main.user_id
                              AND other.key = asked.key
                              AND other.value = asked.value))
              ORDER BY main.user_id
              LIMIT $6",
            tenant.as_str(),
            key,
            value,
            &keys,
            &values,
            bounded(limit),
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    #[tracing::instrument(name = "db.user.get", skip_all)]
    async fn user(&self, tenant: &TenantId, user_id: &UserId) -> Result<Option<UserRecord>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let row = sqlx::query_as!(
            UserRow,
            r#"SELECT user_id,
                      state_version,
                      examples,
                      next_position,
                      created_at,
                      updated_at,
                      COALESCE(attributes.keys, '{}') AS "keys!",
                      COALESCE(attributes.values, '{}') AS "values!"
                 FROM users
                 LEFT JOIN LATERAL (
                      SELECT array_agg(key ORDER BY key) AS keys,
                             array_agg(value ORDER BY key) AS values
                        FROM user_attributes
                       WHERE user_attributes.tenant_id = users.tenant_id
                         AND user_attributes.user_id = users.user_id) AS attributes ON true
                WHERE tenant_id = $1 AND user_id = $2"#,
            tenant.as_str(),
            user_id.as_str(),
        );
        let row = within(connection.answer_timeout(), row.fetch_optional(&mut *connection))
            .await
            .map_err(failed)?;
        row.map(TryInto::try_into).transpose()
    }

    #[tracing::instrument(name = "db.user.list", skip_all)]
    async fn users(
        &self,
        tenant: &TenantId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<UserRecord>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        // No id is empty, so all come after the empty one.
        let rows = sqlx::query_as!(
            UserRow,
            r#"SELECT user_id,
                      state_version,
                      examples,
                      next_position,
                      created_at,
                      updated_at,
                      COALESCE(attributes.keys, '{}') AS "keys!",
                      COALESCE(attributes.values, '{}') AS "values!"
                 FROM users
                 LEFT JOIN LATERAL (
                      SELECT array_agg(key ORDER BY key) AS keys,
                             array_agg(value ORDER BY key) AS values
                        FROM user_attributes
                       WHERE user_attributes.tenant_id = users.tenant_id
                         AND user_attributes.user_id = users.user_id) AS attributes ON true
                WHERE tenant_id = $1 AND user_id > $2
                ORDER BY user_id
                LIMIT $3"#,
            tenant.as_str(),
            after.map_or("", UserId::as_str),
            bounded(limit),
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    #[tracing::instrument(name = "db.group.list", skip_all)]
    async fn groups(
        &self,
        tenant: &TenantId,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<GroupCount>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let (key, value) = after.unwrap_or_default();
        let rows = sqlx::query!(
            r#"SELECT key, value, count(*) AS "users!"
                 FROM user_attributes
                WHERE tenant_id = $1 AND (key, value) > ($2, $3)
                GROUP BY key, value
                ORDER BY key, value
                LIMIT $4"#,
            tenant.as_str(),
            key,
            value,
            bounded(limit),
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        let counts = rows
            .into_iter()
            .map(|row| Ok(GroupCount { key: row.key, value: row.value, users: count_of(row.users)? }));
        counts.collect()
    }

    #[tracing::instrument(name = "db.example.list", skip_all)]
    async fn examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let rows = sqlx::query_as!(
            ExampleRow,
            "SELECT example_id,
                    position,
                    prompt,
                    chosen,
                    rejected,
                    strength,
                    label_confidence,
                    rationale,
                    created_at
               FROM examples
              WHERE tenant_id = $1 AND user_id = $2 AND position > $3
              ORDER BY position
              LIMIT $4",
            tenant.as_str(),
            user_id.as_str(),
            after.map_or(-1, bounded),
            bounded(limit),
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    #[tracing::instrument(name = "db.example.get", skip_all, fields(examples = example_ids.len()))]
    async fn examples_by_id(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<StoredExample>, StorageError> {
        let asked: Vec<String> = example_ids.iter().map(ToString::to_string).collect();
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let rows = sqlx::query_as!(
            ExampleRow,
            "SELECT example_id,
                    position,
                    prompt,
                    chosen,
                    rejected,
                    strength,
                    label_confidence,
                    rationale,
                    created_at
               FROM examples
              WHERE tenant_id = $1 AND user_id = $2 AND example_id = ANY ($3)
              ORDER BY position",
            tenant.as_str(),
            user_id.as_str(),
            &asked,
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    #[tracing::instrument(name = "db.example.unjudged", skip_all)]
    async fn unjudged_examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelRef,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let rows = sqlx::query_as!(
            ExampleRow,
            "SELECT examples.example_id,
                    examples.position,
                    examples.prompt,
                    examples.chosen,
                    examples.rejected,
                    examples.strength,
                    examples.label_confidence,
                    examples.rationale,
                    examples.created_at
               FROM (SELECT user_id, example_id, created_at
                       FROM predictions
                      WHERE tenant_id = $1 AND model = $3
                      ORDER BY created_at DESC
                      LIMIT $4) AS latest
               JOIN examples
                 ON examples.tenant_id = $1
                AND examples.user_id = latest.user_id
                AND examples.example_id = latest.example_id
              WHERE latest.user_id <> $2
                AND NOT EXISTS (
                    SELECT 1
                      FROM examples own
                     WHERE own.tenant_id = $1
                       AND own.user_id = $2
                       AND own.chosen_name IN (examples.chosen_name, examples.rejected_name)
                       AND own.rejected_name IN (examples.chosen_name, examples.rejected_name))
              ORDER BY latest.created_at DESC, examples.user_id, examples.example_id
              LIMIT $5",
            tenant.as_str(),
            user_id.as_str(),
            model.to_string(),
            bounded(LATEST_PREDICTIONS),
            bounded(limit),
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    #[tracing::instrument(name = "db.example.evidence", skip_all)]
    async fn evidence(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        queries::evidence(&mut connection, tenant, user_id, backbone, forms).await
    }

    #[tracing::instrument(name = "db.state.get", skip_all)]
    async fn state(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        queries::state(&mut connection, tenant, user_id, model).await
    }

    #[tracing::instrument(name = "db.prediction.tally", skip_all)]
    async fn tallies(&self, tenant: &TenantId, user_id: &UserId) -> Result<Vec<ModelTally>, StorageError> {
        let mut connection = self.connections.read(tenant.as_str()).await?;
        let rows = sqlx::query!(
            r#"SELECT model AS "model!",
                      predictions AS "predictions!",
                      correct AS "correct!",
                      population_correct AS "population_correct!"
                 FROM prediction_tallies
                WHERE tenant_id = $1 AND user_id = $2"#,
            tenant.as_str(),
            user_id.as_str(),
        );
        let rows =
            within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await.map_err(failed)?;
        let tallies = rows.into_iter().map(|row| {
            Ok(ModelTally {
                model: model_of(&row.model)?,
                predictions: count_of(row.predictions)?,
                correct: row.correct,
                population_correct: row.population_correct,
            })
        });
        let mut tallies: Vec<ModelTally> = tallies.collect::<Result<_, StorageError>>()?;
        // A name that begins another one comes first, which the order of `name@version` as text is not.
        tallies.sort_by(|a, b| a.model.cmp(&b.model));
        Ok(tallies)
    }
}
