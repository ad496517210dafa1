//! Predictions added up.
//!
//! Sums of floating numbers that several workers added up may differ in their last bits from one time to the next.

mod groups;
mod rows;

use async_trait::async_trait;
use polyreward_domain::{Attributes, TenantId};
use polyreward_storage::{
    MeasuredModel, Measures, Mistake, Moment, PairVotes, PersonSums, Predictions, ShotSums, Span, Step,
    StepSums, StorageError,
};

use crate::{
    PostgresStorage,
    connections::within,
    error::{failed, not_measured},
    measures::{
        groups::groups_of,
        rows::{ClassRow, people_of},
    },
    rows::{bounded, count_of, model_of},
};

#[async_trait]
impl Measures for PostgresStorage {
    #[tracing::instrument(name = "db.measure.moment", skip_all)]
    async fn moment(&self, tenant: &TenantId) -> Result<Moment, StorageError> {
        let mut connection = self.measuring.read(tenant.as_str()).await?;
        let row = sqlx::query!(
            r#"SELECT COUNT(*) AS "users!",
                      COALESCE(SUM(state_version >> 32), 0)::BIGINT AS "upper!",
                      COALESCE(SUM(state_version & 4294967295), 0)::BIGINT AS "lower!",
                      MAX(updated_at) AS changed_at,
                      COALESCE(SUM(date_part('microseconds', updated_at)), 0)::BIGINT AS "ticks!"
                 FROM users
                WHERE tenant_id = $1"#,
            tenant.as_str(),
        );
        let row = within(connection.answer_timeout(), row.fetch_one(&mut *connection)).await;
        let row = row.map_err(not_measured)?;
        Ok(Moment {
            users: count_of(row.users)?,
            upper: row.upper,
            lower: row.lower,
            changed_at: row.changed_at,
            ticks: row.ticks,
        })
    }

    #[tracing::instrument(name = "db.measure.people", skip_all)]
    async fn person_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
    ) -> Result<Vec<PersonSums>, StorageError> {
        let mut snapshot = self.measuring.snapshot(tenant.as_str()).await?;
        let rows = sqlx::query_as!(
            ClassRow,
            r#"SELECT user_id AS "user_id!",
                      confidence_class AS "class!",
                      COUNT(*) AS "n!",
                      SUM(correct) AS "correct!",
                      SUM(confidence) AS "confidence!",
                      SUM(log_loss) AS "log_loss!",
                      SUM(population_correct) AS "population_correct!",
                      COUNT(baseline_correct) AS "baseline_n!",
                      COALESCE(SUM(baseline_correct), 0) AS "baseline_correct!"
                 FROM scored_predictions
                WHERE tenant_id = $1
                  AND model = $2
                  AND ($3::TIMESTAMPTZ IS NULL OR created_at >= $3)
                  AND ($4::TIMESTAMPTZ IS NULL OR created_at < $4)
                GROUP BY user_id, confidence_class
                ORDER BY user_id"#,
            tenant.as_str(),
            predictions.model.to_string(),
            predictions.span.from,
            predictions.span.to,
        );
        let rows = within(snapshot.answer_timeout(), rows.fetch_all(&mut *snapshot)).await;
        let rows = rows.map_err(not_measured)?;
        let groups = groups_of(&mut snapshot, tenant, group_by).await?;
        snapshot.commit().await.map_err(failed)?;
        people_of(rows, groups)
    }

    #[tracing::instrument(name = "db.measure.shots", skip_all)]
    async fn shot_sums(
        &self,
        _tenant: &TenantId,
        _predictions: &Predictions,
        _group_by: &[String],
    ) -> Result<Vec<ShotSums>, StorageError> {
        todo!()
    }

    #[tracing::instrument(name = "db.measure.steps", skip_all)]
    async fn step_sums(
        &self,
        _tenant: &TenantId,
        _predictions: &Predictions,
        _group_by: &[String],
        _step: Step,
        _limit: usize,
    ) -> Result<Vec<StepSums>, StorageError> {
        todo!()
    }

    #[tracing::instrument(name = "db.measure.pairs", skip_all)]
    async fn pair_votes(
        &self,
        _tenant: &TenantId,
        _span: Span,
        _group_by: &[String],
        _limit: usize,
    ) -> Result<Vec<PairVotes>, StorageError> {
        todo!()
    }

    #[tracing::instrument(name = "db.measure.mistakes", skip_all)]
    async fn mistakes(
        &self,
        _tenant: &TenantId,
        _predictions: &Predictions,
        _group: &Attributes,
        _limit: usize,
    ) -> Result<Vec<Mistake>, StorageError> {
        todo!()
    }

    #[tracing::instrument(name = "db.measure.models", skip_all)]
    async fn measured_models(&self, tenant: &TenantId) -> Result<Vec<MeasuredModel>, StorageError> {
        let mut connection = self.measuring.read(tenant.as_str()).await?;
        // From one model to the next by the index: PostgreSQL would read all predictions to find few names.
        let rows = sqlx::query!(
            r#"WITH RECURSIVE models (model) AS (
                    (SELECT model FROM predictions WHERE tenant_id = $1 ORDER BY model LIMIT 1)
                     UNION ALL
                    SELECT (SELECT next.model
                              FROM predictions AS next
                             WHERE next.tenant_id = $1 AND next.model > models.model
                             ORDER BY next.model
                             LIMIT 1)
                      FROM models
                     WHERE models.model IS NOT NULL)
               SELECT models.model AS "model!",
                      ends.first AS "first!",
                      ends.last AS "last!"
                 FROM models
                CROSS JOIN LATERAL (
                      SELECT MIN(created_at) AS first, MAX(created_at) AS last
                        FROM predictions
                       WHERE predictions.tenant_id = $1 AND predictions.model = models.model) AS ends
                WHERE models.model IS NOT NULL
                ORDER BY ends.first, models.model"#,
            tenant.as_str(),
        );
        let rows = within(connection.answer_timeout(), rows.fetch_all(&mut *connection)).await;
        let models = rows
            .map_err(not_measured)?
            .into_iter()
            .map(|row| Ok(MeasuredModel { model: model_of(&row.model)?, first: row.first, last: row.last }));
        models.collect()
    }

    #[tracing::instrument(name = "db.measure.keys", skip_all)]
    async fn attribute_keys(
        &self,
        tenant: &TenantId,
        from: &str,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let mut connection = self.measuring.read(tenant.as_str()).await?;
        // From one key to the next by the index: PostgreSQL would read everybody to find few names.
        let keys = sqlx::query_scalar!(
            r#"WITH RECURSIVE keys (key) AS (
                    (SELECT key FROM user_attributes WHERE tenant_id = $1 AND key >= $2 ORDER BY key LIMIT 1)
                     UNION ALL
                    SELECT (SELECT next.key
                              FROM user_attributes AS next
                             WHERE next.tenant_id = $1 AND next.key > keys.key
                             ORDER BY next.key
                             LIMIT 1)
                      FROM keys
                     WHERE keys.key IS NOT NULL)
               SELECT key AS "key!" FROM keys WHERE key IS NOT NULL LIMIT $3"#,
            tenant.as_str(),
            from,
            bounded(limit),
        );
        let keys = within(connection.answer_timeout(), keys.fetch_all(&mut *connection)).await;
        keys.map_err(not_measured)
    }
}
