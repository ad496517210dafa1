//! Predictions added up.

mod groups;
mod rows;

use async_trait::async_trait;
use polyreward_domain::{Attributes, TenantId};
use polyreward_storage::{
    MeasuredModel, Measures, Mistake, Moment, PairVotes, PersonSums, Predictions, ShotSums, Span, Step,
    StepSums, StorageError,
};

use crate::{
    SqliteStorage,
    columns::{at_most, counted, micros, model_ref, moment},
    error::storage_error,
    measures::{
        groups::groups_of,
        rows::{ClassRow, people_of},
    },
};

#[async_trait]
impl Measures for SqliteStorage {
    #[tracing::instrument(name = "db.measure.moment", skip_all)]
    async fn moment(&self, tenant: &TenantId) -> Result<Moment, StorageError> {
        let tenant = tenant.as_str();
        let mut snapshot = self.measuring.begin().await?;
        let row = sqlx::query!(
            r#"SELECT COUNT(*) AS "users!: i64",
                      COALESCE(SUM(state_version >> 32), 0) AS "upper!: i64",
                      COALESCE(SUM(state_version & 4294967295), 0) AS "lower!: i64",
                      MAX(updated_at) AS "changed_at: i64",
                      COALESCE(SUM(updated_at % 60000000), 0) AS "ticks!: i64"
                 FROM users
                WHERE tenant_id = ?"#,
            tenant,
        );
        let row = row.fetch_one(&mut *snapshot).await.map_err(storage_error)?;
        Ok(Moment {
            users: counted(row.users)?,
            upper: row.upper,
            lower: row.lower,
            changed_at: row.changed_at.map(moment).transpose()?,
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
        let (of, model) = (tenant.as_str(), predictions.model.to_string());
        let (from, to) = (predictions.span.from.map(micros), predictions.span.to.map(micros));
        let mut snapshot = self.measuring.begin().await?;
        let rows = sqlx::query_as!(
            ClassRow,
            r#"SELECT user_id AS "user_id!: String",
                      confidence_class AS "class!: i64",
                      COUNT(*) AS "n!: i64",
                      SUM(correct) AS "correct!: f64",
                      SUM(confidence) AS "confidence!: f64",
                      SUM(log_loss) AS "log_loss!: f64",
                      SUM(population_correct) AS "population_correct!: f64",
                      COUNT(baseline_correct) AS "baseline_n!: i64",
                      COALESCE(SUM(baseline_correct), 0.0) AS "baseline_correct!: f64"
                 FROM scored_predictions
                WHERE tenant_id = ?1
                  AND model = ?2
                  AND (?3 IS NULL OR created_at >= ?3)
                  AND (?4 IS NULL OR created_at < ?4)
                GROUP BY user_id, confidence_class
                ORDER BY user_id"#,
            of,
            model,
            from,
            to,
        );
        let rows = rows.fetch_all(&mut *snapshot).await.map_err(storage_error)?;
        let groups = groups_of(&mut snapshot, tenant, group_by).await?;
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
        let tenant = tenant.as_str();
        let mut snapshot = self.measuring.begin().await?;
        // From one model to the next by the index, rather than through all predictions to find few names.
        let rows = sqlx::query!(
            r#"WITH RECURSIVE models (model) AS (
                    SELECT MIN(model) FROM predictions WHERE tenant_id = ?1
                     UNION ALL
                    SELECT (SELECT MIN(p.model) FROM predictions p WHERE p.tenant_id = ?1 AND p.model > models.model)
                      FROM models
                     WHERE models.model IS NOT NULL)
               SELECT model AS "model!: String",
                      (SELECT MIN(p.created_at) FROM predictions p WHERE p.tenant_id = ?1 AND p.model = models.model)
                          AS "first!: i64",
                      (SELECT MAX(p.created_at) FROM predictions p WHERE p.tenant_id = ?1 AND p.model = models.model)
                          AS "last!: i64"
                 FROM models
                WHERE model IS NOT NULL
                ORDER BY 2, 1"#,
            tenant,
        );
        let rows = rows.fetch_all(&mut *snapshot).await.map_err(storage_error)?;
        let models = rows.into_iter().map(|row| {
            Ok(MeasuredModel {
                model: model_ref(&row.model)?,
                first: moment(row.first)?,
                last: moment(row.last)?,
            })
        });
        models.collect()
    }

    #[tracing::instrument(name = "db.measure.keys", skip_all)]
    async fn attribute_keys(
        &self,
        tenant: &TenantId,
        from: &str,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let (tenant, limit) = (tenant.as_str(), at_most(limit));
        let mut snapshot = self.measuring.begin().await?;
        // From one key to the next by the index, rather than through everybody to find few names.
        let keys = sqlx::query_scalar!(
            r#"WITH RECURSIVE keys (key) AS (
                    SELECT MIN(key) FROM user_attributes WHERE tenant_id = ?1 AND key >= ?2
                     UNION ALL
                    SELECT (SELECT MIN(a.key) FROM user_attributes a WHERE a.tenant_id = ?1 AND a.key > keys.key)
                      FROM keys
                     WHERE keys.key IS NOT NULL
                     LIMIT ?3)
               SELECT key AS "key!: String" FROM keys WHERE key IS NOT NULL"#,
            tenant,
            from,
            limit,
        );
        keys.fetch_all(&mut *snapshot).await.map_err(storage_error)
    }
}
