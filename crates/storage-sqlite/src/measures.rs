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
    columns::{at_most, counted, json, micros, model_ref, moment},
    error::storage_error,
    measures::{
        groups::{groups_of, keys_of, values_of},
        rows::{ClassRow, CrowdRow, MistakeRow, VoteRow, people_of, votes_of},
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
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
    ) -> Result<Vec<ShotSums>, StorageError> {
        let [first, second] = keys_of(group_by)?;
        let (tenant, model) = (tenant.as_str(), predictions.model.to_string());
        let (from, to) = (predictions.span.from.map(micros), predictions.span.to.map(micros));
        let mut snapshot = self.measuring.begin().await?;
        let rows = sqlx::query_as!(
            CrowdRow,
            r#"WITH people AS (
                    SELECT user_id,
                           shot_class AS class,
                           CAST(COUNT(*) AS REAL) AS n,
                           SUM(correct) AS correct,
                           SUM(log_loss) AS log_loss,
                           SUM(population_correct) AS population_correct,
                           COUNT(baseline_correct) AS baseline_n,
                           COALESCE(SUM(baseline_correct), 0.0) AS baseline_correct
                      FROM scored_predictions
                     WHERE tenant_id = ?1
                       AND model = ?2
                       AND (?3 IS NULL OR created_at >= ?3)
                       AND (?4 IS NULL OR created_at < ?4)
                     GROUP BY user_id, 2)
               SELECT a.value AS "first?: String",
                      b.value AS "second?: String",
                      class AS "class!: i64",
                      COUNT(*) AS "users!: i64",
                      SUM(n) AS "n!: f64",
                      SUM(correct) AS "correct!: f64",
                      SUM(log_loss) AS "log_loss!: f64",
                      SUM(population_correct) AS "population_correct!: f64",
                      SUM(baseline_n) AS "baseline_n!: i64",
                      SUM(baseline_correct) AS "baseline_correct!: f64",
                      SUM(n * n) AS "n_n!: f64",
                      SUM(n * correct) AS "n_correct!: f64",
                      SUM(correct * correct) AS "correct_correct!: f64",
                      SUM(n * (correct - population_correct)) AS "n_gain!: f64",
                      SUM((correct - population_correct) * (correct - population_correct)) AS "gain_gain!: f64"
                 FROM people
                 LEFT JOIN user_attributes a ON a.tenant_id = ?1 AND a.user_id = people.user_id AND a.key = ?5
                 LEFT JOIN user_attributes b ON b.tenant_id = ?1 AND b.user_id = people.user_id AND b.key = ?6
                GROUP BY a.value, b.value, class"#,
            tenant,
            model,
            from,
            to,
            first,
            second,
        );
        let rows = rows.fetch_all(&mut *snapshot).await.map_err(storage_error)?;
        let sums = rows.into_iter().map(|row| {
            let class =
                usize::try_from(row.class).map_err(|_| StorageError::Corrupt("a number of examples"))?;
            let sums = row.sums()?;
            Ok(ShotSums { group: values_of(group_by, row.first, row.second), class, sums })
        });
        sums.collect()
    }

    #[tracing::instrument(name = "db.measure.steps", skip_all)]
    async fn step_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
        step: Step,
        limit: usize,
    ) -> Result<Vec<StepSums>, StorageError> {
        let [first, second] = keys_of(group_by)?;
        let (tenant, model) = (tenant.as_str(), predictions.model.to_string());
        let (from, to) = (predictions.span.from.map(micros), predictions.span.to.map(micros));
        let (step, limit) = (step_micros(step), at_most(limit));
        let mut snapshot = self.measuring.begin().await?;
        // A remainder has the sign of what was divided.
        let rows = sqlx::query_as!(
            CrowdRow,
            r#"WITH people AS (
                    SELECT user_id,
                           created_at - ((created_at - ?7) % ?8 + ?8) % ?8 AS class,
                           CAST(COUNT(*) AS REAL) AS n,
                           SUM(correct) AS correct,
                           SUM(log_loss) AS log_loss,
                           SUM(population_correct) AS population_correct,
                           COUNT(baseline_correct) AS baseline_n,
                           COALESCE(SUM(baseline_correct), 0.0) AS baseline_correct
                      FROM scored_predictions
                     WHERE tenant_id = ?1
                       AND model = ?2
                       AND (?3 IS NULL OR created_at >= ?3)
                       AND (?4 IS NULL OR created_at < ?4)
                     GROUP BY user_id, 2)
               SELECT a.value AS "first?: String",
                      b.value AS "second?: String",
                      class AS "class!: i64",
                      COUNT(*) AS "users!: i64",
                      SUM(n) AS "n!: f64",
                      SUM(correct) AS "correct!: f64",
                      SUM(log_loss) AS "log_loss!: f64",
                      SUM(population_correct) AS "population_correct!: f64",
                      SUM(baseline_n) AS "baseline_n!: i64",
                      SUM(baseline_correct) AS "baseline_correct!: f64",
                      SUM(n * n) AS "n_n!: f64",
                      SUM(n * correct) AS "n_correct!: f64",
                      SUM(correct * correct) AS "correct_correct!: f64",
                      SUM(n * (correct - population_correct)) AS "n_gain!: f64",
                      SUM((correct - population_correct) * (correct - population_correct)) AS "gain_gain!: f64"
                 FROM people
                 LEFT JOIN user_attributes a ON a.tenant_id = ?1 AND a.user_id = people.user_id AND a.key = ?5
                 LEFT JOIN user_attributes b ON b.tenant_id = ?1 AND b.user_id = people.user_id AND b.key = ?6
                GROUP BY a.value, b.value, class
                LIMIT ?9"#,
            tenant,
            model,
            from,
            to,
            first,
            second,
            FIRST_MONDAY,
            step,
            limit,
        );
        let rows = rows.fetch_all(&mut *snapshot).await.map_err(storage_error)?;
        let sums = rows.into_iter().map(|row| {
            let (sums, start) = (row.sums()?, moment(row.class)?);
            Ok(StepSums { group: values_of(group_by, row.first, row.second), start, sums })
        });
        sums.collect()
    }

    #[tracing::instrument(name = "db.measure.pairs", skip_all)]
    async fn pair_votes(
        &self,
        tenant: &TenantId,
        span: Span,
        group_by: &[String],
        limit: usize,
    ) -> Result<Vec<PairVotes>, StorageError> {
        let [first, second] = keys_of(group_by)?;
        let (tenant, from, to) = (tenant.as_str(), span.from.map(micros), span.to.map(micros));
        let one_more = at_most(limit.saturating_add(1));
        let mut snapshot = self.measuring.begin().await?;
        let rows = sqlx::query_as!(
            VoteRow,
            r#"WITH judged AS (
                    SELECT pair_name, user_id, SUM(CASE WHEN chosen_first THEN 1 ELSE -1 END) AS side
                      FROM examples
                     WHERE tenant_id = ?1
                       AND pair_name <> 0
                       AND (?2 IS NULL OR created_at >= ?2)
                       AND (?3 IS NULL OR created_at < ?3)
                     GROUP BY pair_name, user_id
                    HAVING side <> 0),
                    counted AS (
                    SELECT pair_name, user_id, side, COUNT(*) OVER (PARTITION BY pair_name) AS people
                      FROM judged)
               SELECT pair_name AS "pair!: i64",
                      a.value AS "first?: String",
                      b.value AS "second?: String",
                      SUM(side > 0) AS "for_first!: i64",
                      SUM(side < 0) AS "for_second!: i64"
                 FROM counted
                 LEFT JOIN user_attributes a ON a.tenant_id = ?1 AND a.user_id = counted.user_id AND a.key = ?4
                 LEFT JOIN user_attributes b ON b.tenant_id = ?1 AND b.user_id = counted.user_id AND b.key = ?5
                WHERE people >= 2
                GROUP BY pair_name, a.value, b.value
                ORDER BY pair_name
                LIMIT ?6"#,
            tenant,
            from,
            to,
            first,
            second,
            one_more,
        );
        votes_of(rows.fetch_all(&mut *snapshot).await.map_err(storage_error)?, group_by, limit)
    }

    #[tracing::instrument(name = "db.measure.mistakes", skip_all)]
    async fn mistakes(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<Mistake>, StorageError> {
        let (tenant, model) = (tenant.as_str(), predictions.model.to_string());
        let (from, to) = (predictions.span.from.map(micros), predictions.span.to.map(micros));
        let (group, limit) = (json(&group.iter().collect::<Vec<_>>())?, at_most(limit));
        let mut snapshot = self.measuring.begin().await?;
        let rows = sqlx::query_as!(
            MistakeRow,
            r#"WITH worst AS (
                    SELECT user_id, example_id, shot, preference, population_preference, created_at
                      FROM scored_predictions
                     WHERE tenant_id = ?1
                       AND model = ?2
                       AND (?3 IS NULL OR created_at >= ?3)
                       AND (?4 IS NULL OR created_at < ?4)
                       AND (json_array_length(?5) = 0 OR user_id IN (
                            SELECT a.user_id
                              FROM json_each(?5) g
                             CROSS JOIN user_attributes a
                             WHERE a.tenant_id = ?1 AND a.key = g.value ->> 0 AND a.value = g.value ->> 1
                             GROUP BY a.user_id
                            HAVING COUNT(*) = json_array_length(?5)))
                     ORDER BY preference, user_id, example_id
                     LIMIT ?6)
               SELECT w.user_id AS "user_id!: String",
                      w.example_id AS "example_id!: String",
                      w.shot AS "shot!: i64",
                      w.preference AS "preference!: f64",
                      w.population_preference AS "population_preference!: f64",
                      w.created_at AS "created_at!: i64",
                      x.prompt,
                      x.chosen,
                      x.rejected
                 FROM worst w
                 JOIN examples x
                   ON x.tenant_id = ?1 AND x.user_id = w.user_id AND x.example_id = w.example_id
                ORDER BY w.preference, w.user_id, w.example_id"#,
            tenant,
            model,
            from,
            to,
            group,
            limit,
        );
        let rows = rows.fetch_all(&mut *snapshot).await.map_err(storage_error)?;
        rows.into_iter().map(Mistake::try_from).collect()
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

/// In microseconds.
const HOUR: i64 = 60 * 60 * 1_000_000;
/// The first Monday after 1970 began, in microseconds: steps are counted from one.
const FIRST_MONDAY: i64 = 4 * 24 * HOUR;

/// How long a step is, in microseconds.
fn step_micros(step: Step) -> i64 {
    match step {
        Step::Hour => HOUR,
        Step::Day => 24 * HOUR,
        Step::Week => 7 * 24 * HOUR,
    }
}
