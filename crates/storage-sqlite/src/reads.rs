//! [`Reads`], each method one statement on a connection that cannot write.

use async_trait::async_trait;
use polyreward_domain::{
    Attributes, Comparison, ExampleId, ModelRef, StateVersion, TenantId, TextForms, UserId,
};
use polyreward_storage::{
    Crowd, Evidence, GroupCount, LATEST_PREDICTIONS, ModelKey, ModelTally, PersonSummary, Reads,
    StorageError, StoredExample, StoredState, UserRecord, Watermark,
};

use crate::{
    SqliteStorage,
    columns::{at_most, counted, from_json, json, model_ref, moment, parsed},
    error::storage_error,
    people::{self, UserRow},
};

struct PersonRow {
    user_id: String,
    state_version: i64,
    examples: i64,
}

impl TryFrom<PersonRow> for PersonSummary {
    type Error = StorageError;

    fn try_from(row: PersonRow) -> Result<Self, StorageError> {
        Ok(Self {
            user_id: parsed(row.user_id, "a user id")?,
            version: StateVersion::from_number(row.state_version.cast_unsigned()),
            examples: counted(row.examples)?,
        })
    }
}

struct ExampleRow {
    example_id: String,
    position: i64,
    prompt: String,
    chosen: String,
    rejected: String,
    strength: f64,
    label_confidence: f64,
    rationale: Option<String>,
    created_at: i64,
}

impl TryFrom<ExampleRow> for StoredExample {
    type Error = StorageError;

    fn try_from(row: ExampleRow) -> Result<Self, StorageError> {
        Ok(Self {
            example_id: parsed(row.example_id, "an example id")?,
            position: counted(row.position)?,
            comparison: Comparison {
                prompt: from_json(&row.prompt, "a prompt")?,
                chosen: row.chosen,
                rejected: row.rejected,
                strength: row.strength.try_into().map_err(|_| StorageError::Corrupt("a strength"))?,
                label_confidence: row
                    .label_confidence
                    .try_into()
                    .map_err(|_| StorageError::Corrupt("a label confidence"))?,
                rationale: row.rationale,
            },
            created_at: moment(row.created_at)?,
        })
    }
}

fn all<Row, T: TryFrom<Row, Error = StorageError>>(rows: Vec<Row>) -> Result<Vec<T>, StorageError> {
    rows.into_iter().map(T::try_from).collect()
}

/// A group in three numbers.
struct CrowdRow {
    members: i64,
    upper: i64,
    lower: i64,
}

#[async_trait]
impl Reads for SqliteStorage {
    #[tracing::instrument(name = "db.user.find", skip_all, fields(people = user_ids.len()))]
    async fn find(
        &self,
        tenant: &TenantId,
        user_ids: &[UserId],
    ) -> Result<Vec<Option<PersonSummary>>, StorageError> {
        let tenant = tenant.as_str();
        let asked = json(user_ids)?;
        let rows = sqlx::query!(
            r#"SELECT CAST(asked.key AS INTEGER) AS "place!: i64", u.state_version AS "state_version!", u.examples AS "examples!"
                 FROM json_each(?2) asked
                CROSS JOIN users u
                WHERE u.tenant_id = ?1 AND u.user_id = asked.value"#,
            tenant,
            asked,
        );
        let mut found = vec![None; user_ids.len()];
        for row in rows.fetch_all(&self.readers).await.map_err(storage_error)? {
            let place = row.place as usize;
            found[place] = Some(PersonSummary {
                user_id: user_ids[place].clone(),
                version: StateVersion::from_number(row.state_version.cast_unsigned()),
                examples: counted(row.examples)?,
            });
        }
        Ok(found)
    }

    #[tracing::instrument(name = "db.watermark", skip_all)]
    async fn watermark(&self, _tenant: &TenantId) -> Result<Watermark, StorageError> {
        self.watch.watermark().await
    }

    #[tracing::instrument(name = "db.user.crowd", skip_all)]
    async fn crowd(&self, tenant: &TenantId, group: &Attributes) -> Result<Crowd, StorageError> {
        let tenant = tenant.as_str();
        let row = if group.is_empty() {
            let row = sqlx::query_as!(
                CrowdRow,
                r#"SELECT COUNT(*) AS "members!: i64",
                          COALESCE(SUM(state_version >> 32), 0) AS "upper!: i64",
                          COALESCE(SUM(state_version & 4294967295), 0) AS "lower!: i64"
                     FROM users
                    WHERE tenant_id = ?"#,
                tenant,
            );
            row.fetch_one(&self.readers).await
        } else {
            let group = json(&group.iter().collect::<Vec<_>>())?;
            // The same people as `members` reads.
            let row = sqlx::query_as!(
                CrowdRow,
                r#"SELECT COUNT(*) AS "members!: i64",
                          COALESCE(SUM(u.state_version >> 32), 0) AS "upper!: i64",
                          COALESCE(SUM(u.state_version & 4294967295), 0) AS "lower!: i64"
                 FROM user_attributes a
                CROSS JOIN users u ON u.tenant_id = a.tenant_id AND u.user_id = a.user_id
                WHERE a.tenant_id = ?1
                  AND (a.key, a.value) = (
                      SELECT g.value ->> 0, g.value ->> 1
                        FROM json_each(?2) g
                       ORDER BY (SELECT count(*)
                                   FROM (SELECT 1
                                           FROM user_attributes c
                                          WHERE c.tenant_id = ?1
                                            AND c.key = g.value ->> 0
                                            AND c.value = g.value ->> 1
                                          LIMIT 1000))
                       LIMIT 1)
                  AND NOT EXISTS (
                      SELECT 1
                        FROM json_each(?2) g
                       WHERE NOT EXISTS (
                             SELECT 1
                               FROM user_attributes o
                              WHERE o.tenant_id = a.tenant_id
                                AND o.user_id = a.user_id
                                AND o.key = g.value ->> 0
                                AND o.value = g.value ->> 1))"#,
                tenant,
                group,
            );
            row.fetch_one(&self.readers).await
        };
        let CrowdRow { members, upper, lower } = row.map_err(storage_error)?;
        Ok(Crowd { members: u64::try_from(members).unwrap_or_default(), upper, lower })
    }

    #[tracing::instrument(name = "db.user.members", skip_all, fields(attributes = group.len()))]
    async fn members(
        &self,
        tenant: &TenantId,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<PersonSummary>, StorageError> {
        let (tenant, limit) = (tenant.as_str(), at_most(limit));
        if group.is_empty() {
            let rows = sqlx::query_as!(
                PersonRow,
                "SELECT user_id, state_version, examples FROM users WHERE tenant_id = ? ORDER BY user_id LIMIT ?",
                tenant,
                limit,
            );
            return all(rows.fetch_all(&self.readers).await.map_err(storage_error)?);
        }
        // The people of the rarest attribute, in the order of the index, as far as they have every other one.
        let group = json(&group.iter().collect::<Vec<_>>())?;
        let rows = sqlx::query_as!(
            PersonRow,
            r#"SELECT u.user_id AS "user_id!", u.state_version AS "state_version!", u.examples AS "examples!"
                 FROM user_attributes a
                CROSS JOIN users u ON u.tenant_id = a.tenant_id AND u.user_id = a.user_id
                WHERE a.tenant_id = ?1
                  AND (a.key, a.value) = (
                      SELECT g.value ->> 0, g.value ->> 1
                        FROM json_each(?2) g
                       ORDER BY (SELECT count(*)
                                   FROM (SELECT 1
                                           FROM user_attributes c
                                          WHERE c.tenant_id = ?1
                                            AND c.key = g.value ->> 0
                                            AND c.value = g.value ->> 1
                                          LIMIT 1000))
                       LIMIT 1)
                  AND NOT EXISTS (
                      SELECT 1
                        FROM json_each(?2) g
                       WHERE NOT EXISTS (
                             SELECT 1
                               FROM user_attributes o
                              WHERE o.tenant_id = a.tenant_id
                                AND o.user_id = a.user_id
                                AND o.key = g.value ->> 0
                                AND o.value = g.value ->> 1))
                ORDER BY a.user_id
                LIMIT ?3"#,
            tenant,
            group,
            limit,
        );
        all(rows.fetch_all(&self.readers).await.map_err(storage_error)?)
    }

    #[tracing::instrument(name = "db.user.get", skip_all)]
    async fn user(&self, tenant: &TenantId, user_id: &UserId) -> Result<Option<UserRecord>, StorageError> {
        people::user(&self.readers, tenant, user_id).await
    }

    #[tracing::instrument(name = "db.user.list", skip_all, fields(limit))]
    async fn users(
        &self,
        tenant: &TenantId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<UserRecord>, StorageError> {
        let (tenant, limit) = (tenant.as_str(), at_most(limit));
        let after = after.map_or("", UserId::as_str);
        let rows = sqlx::query_as!(
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
                WHERE tenant_id = ? AND user_id > ?
                ORDER BY user_id
                LIMIT ?"#,
            tenant,
            after,
            limit,
        );
        all(rows.fetch_all(&self.readers).await.map_err(storage_error)?)
    }

    #[tracing::instrument(name = "db.group.list", skip_all, fields(limit))]
    async fn groups(
        &self,
        tenant: &TenantId,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<GroupCount>, StorageError> {
        let (tenant, limit) = (tenant.as_str(), at_most(limit));
        let (key, value) = after.unwrap_or_default();
        let rows = sqlx::query!(
            r#"SELECT key, value, count(*) AS "users!: i64"
                 FROM user_attributes
                WHERE tenant_id = ? AND (key, value) > (?, ?)
                GROUP BY key, value
                ORDER BY key, value
                LIMIT ?"#,
            tenant,
            key,
            value,
            limit,
        );
        let rows = rows.fetch_all(&self.readers).await.map_err(storage_error)?;
        rows.into_iter()
            .map(|row| Ok(GroupCount { key: row.key, value: row.value, users: counted(row.users)? }))
            .collect()
    }

    #[tracing::instrument(name = "db.example.list", skip_all, fields(limit))]
    async fn examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError> {
        let (tenant, user_id, limit) = (tenant.as_str(), user_id.as_str(), at_most(limit));
        let after = after.map_or(-1, |position| i64::try_from(position).unwrap_or(i64::MAX));
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
              WHERE tenant_id = ? AND user_id = ? AND position > ?
              ORDER BY position
              LIMIT ?",
            tenant,
            user_id,
            after,
            limit,
        );
        all(rows.fetch_all(&self.readers).await.map_err(storage_error)?)
    }

    #[tracing::instrument(name = "db.example.find", skip_all, fields(examples = example_ids.len()))]
    async fn examples_by_id(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<StoredExample>, StorageError> {
        let (tenant, user_id) = (tenant.as_str(), user_id.as_str());
        let asked = json(example_ids)?;
        // The sign keeps SQLite from walking all of the person's examples in their order.
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
              WHERE tenant_id = ? AND user_id = ? AND example_id IN (SELECT value FROM json_each(?))
              ORDER BY +position",
            tenant,
            user_id,
            asked,
        );
        all(rows.fetch_all(&self.readers).await.map_err(storage_error)?)
    }

    #[tracing::instrument(name = "db.example.unjudged", skip_all, fields(limit))]
    async fn unjudged_examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelRef,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError> {
        let (tenant, user_id, limit) = (tenant.as_str(), user_id.as_str(), at_most(limit));
        let (model, latest) = (model.to_string(), at_most(LATEST_PREDICTIONS));
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
                      WHERE tenant_id = ? AND model = ?
                      ORDER BY created_at DESC
                      LIMIT ?) AS latest
               JOIN examples
                 ON examples.tenant_id = ?
                AND examples.user_id = latest.user_id
                AND examples.example_id = latest.example_id
              WHERE latest.user_id <> ?
                AND NOT EXISTS (
                    SELECT 1
                      FROM examples own
                     WHERE own.tenant_id = ?
                       AND own.user_id = ?
                       AND own.chosen_name IN (examples.chosen_name, examples.rejected_name)
                       AND own.rejected_name IN (examples.chosen_name, examples.rejected_name))
              ORDER BY latest.created_at DESC, examples.user_id, examples.example_id
              LIMIT ?",
            tenant,
            model,
            latest,
            tenant,
            user_id,
            tenant,
            user_id,
            limit,
        );
        all(rows.fetch_all(&self.readers).await.map_err(storage_error)?)
    }

    #[tracing::instrument(name = "db.example.evidence", skip_all)]
    async fn evidence(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError> {
        people::evidence(&self.readers, tenant, user_id, backbone, forms).await
    }

    #[tracing::instrument(name = "db.state.get", skip_all)]
    async fn state(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError> {
        people::state(&self.readers, tenant, user_id, model).await
    }

    #[tracing::instrument(name = "db.prediction.tally", skip_all)]
    async fn tallies(&self, tenant: &TenantId, user_id: &UserId) -> Result<Vec<ModelTally>, StorageError> {
        let (tenant, user_id) = (tenant.as_str(), user_id.as_str());
        let rows = sqlx::query!(
            r#"SELECT model AS "model!",
                      predictions AS "predictions!: i64",
                      correct AS "correct!: f64",
                      population_correct AS "population_correct!: f64"
                 FROM prediction_tallies
                WHERE tenant_id = ? AND user_id = ?"#,
            tenant,
            user_id,
        );
        let rows = rows.fetch_all(&self.readers).await.map_err(storage_error)?;
        let mut tallies = rows
            .into_iter()
            .map(|row| {
                Ok(ModelTally {
                    model: model_ref(&row.model)?,
                    predictions: counted(row.predictions)?,
                    correct: row.correct,
                    population_correct: row.population_correct,
                })
            })
            .collect::<Result<Vec<_>, StorageError>>()?;
        // By name, then version: the text `name@version` sorts otherwise where one name begins another.
        tallies.sort_by(|a, b| a.model.cmp(&b.model));
        Ok(tallies)
    }
}
