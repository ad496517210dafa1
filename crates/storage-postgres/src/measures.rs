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
use time::OffsetDateTime;

use crate::{
    PostgresStorage,
    connections::within,
    error::{failed, not_measured},
    measures::{
        groups::{groups_of, keys_of, values_of},
        rows::{ClassRow, CrowdRow, MistakeRow, VoteRow, people_of, votes_of},
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
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
    ) -> Result<Vec<ShotSums>, StorageError> {
        let [first, second] = keys_of(group_by)?;
        let mut snapshot = self.measuring.snapshot(tenant.as_str()).await?;
        let rows = sqlx::query_as!(
            CrowdRow::<i64>,
            r#"WITH people AS (
                    SELECT user_id,
                           shot_class::BIGINT AS class,
                           COUNT(*)::DOUBLE PRECISION AS n,
                           SUM(correct) AS correct,
                           SUM(log_loss) AS log_loss,
                           SUM(population_correct) AS population_correct,
                           COUNT(baseline_correct) AS baseline_n,
                           COALESCE(SUM(baseline_correct), 0) AS baseline_correct
                      FROM scored_predictions
                     WHERE tenant_id = $1
                       AND model = $2
                       AND ($3::TIMESTAMPTZ IS NULL OR created_at >= $3)
                       AND ($4::TIMESTAMPTZ IS NULL OR created_at < $4)
                     GROUP BY user_id, 2)
               SELECT first.value AS "first?",
                      second.value AS "second?",
                      class AS "class!",
                      COUNT(*) AS "users!",
                      SUM(n) AS "n!",
                      SUM(correct) AS "correct!",
                      SUM(log_loss) AS "log_loss!",
                      SUM(population_correct) AS "population_correct!",
                      SUM(baseline_n)::BIGINT AS "baseline_n!",
                      SUM(baseline_correct) AS "baseline_correct!",
                      SUM(n * n) AS "n_n!",
                      SUM(n * correct) AS "n_correct!",
                      SUM(correct * correct) AS "correct_correct!",
                      SUM(n * (correct - population_correct)) AS "n_gain!",
                      SUM((correct - population_correct) * (correct - population_correct)) AS "gain_gain!"
                 FROM people
                 LEFT JOIN user_attributes AS first
                        ON first.tenant_id = $1 AND first.user_id = people.user_id AND first.key = $5
                 LEFT JOIN user_attributes AS second
                        ON second.tenant_id = $1 AND second.user_id = people.user_id AND second.key = $6
                GROUP BY first.value, second.value, class"#,
            tenant.as_str(),
            predictions.model.to_string(),
            predictions.span.from,
            predictions.span.to,
            first,
            second,
        );
        let rows = within(snapshot.answer_timeout(), rows.fetch_all(&mut *snapshot)).await;
        let rows = rows.map_err(not_measured)?;
        snapshot.commit().await.map_err(failed)?;
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
        let mut snapshot = self.measuring.snapshot(tenant.as_str()).await?;
        // Steps are counted from a Monday.
        let rows = sqlx::query_as!(
            CrowdRow::<OffsetDateTime>,
            r#"WITH people AS (
                    SELECT user_id,
                           date_bin(make_interval(secs => $7), created_at, '0001-01-01 00:00+00') AS class,
                           COUNT(*)::DOUBLE PRECISION AS n,
                           SUM(correct) AS correct,
                           SUM(log_loss) AS log_loss,
                           SUM(population_correct) AS population_correct,
                           COUNT(baseline_correct) AS baseline_n,
                           COALESCE(SUM(baseline_correct), 0) AS baseline_correct
                      FROM scored_predictions
                     WHERE tenant_id = $1
                       AND model = $2
                       AND ($3::TIMESTAMPTZ IS NULL OR created_at >= $3)
                       AND ($4::TIMESTAMPTZ IS NULL OR created_at < $4)
                     GROUP BY user_id, 2)
               SELECT first.value AS "first?",
                      second.value AS "second?",
                      class AS "class!",
                      COUNT(*) AS "users!",
                      SUM(n) AS "n!",
                      SUM(correct) AS "correct!",
                      SUM(log_loss) AS "log_loss!",
                      SUM(population_correct) AS "population_correct!",
                      SUM(baseline_n)::BIGINT AS "baseline_n!",
                      SUM(baseline_correct) AS "baseline_correct!",
                      SUM(n * n) AS "n_n!",
                      SUM(n * correct) AS "n_correct!",
                      SUM(correct * correct) AS "correct_correct!",
                      SUM(n * (correct - population_correct)) AS "n_gain!",
                      SUM((correct - population_correct) * (correct - population_correct)) AS "gain_gain!"
                 FROM people
                 LEFT JOIN user_attributes AS first
                        ON first.tenant_id = $1 AND first.user_id = people.user_id AND first.key = $5
                 LEFT JOIN user_attributes AS second
                        ON second.tenant_id = $1 AND second.user_id = people.user_id AND second.key = $6
                GROUP BY first.value, second.value, class
                LIMIT $8"#,
            tenant.as_str(),
            predictions.model.to_string(),
            predictions.span.from,
            predictions.span.to,
            first,
            second,
            step_s(step),
            bounded(limit),
        );
        let rows = within(snapshot.answer_timeout(), rows.fetch_all(&mut *snapshot)).await;
        let rows = rows.map_err(not_measured)?;
        snapshot.commit().await.map_err(failed)?;
        let sums = rows.into_iter().map(|row| {
            let (sums, start) = (row.sums()?, row.class);
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
        let mut snapshot = self.measuring.snapshot(tenant.as_str()).await?;
        // In the order of the index the first pairs are found without looking at the rest: PostgreSQL, which cannot know
        // how few pairs are shared, would sort all of them first.
        let settings = sqlx::query!(
            r#"SELECT set_config(name, 'off', true) AS "setting!"
                 FROM unnest(ARRAY['enable_hashagg', 'enable_seqscan', 'enable_bitmapscan']) AS name"#,
        );
        let settled = within(snapshot.answer_timeout(), settings.fetch_all(&mut *snapshot)).await;
        settled.map_err(not_measured)?;
        let rows = sqlx::query_as!(
            VoteRow,
            r#"WITH judged AS (
                    SELECT pair_name, user_id, SUM(CASE WHEN chosen_first THEN 1 ELSE -1 END) AS side
                      FROM examples
                     WHERE tenant_id = $1
                       AND pair_name <> 0
                       AND ($2::TIMESTAMPTZ IS NULL OR created_at >= $2)
                       AND ($3::TIMESTAMPTZ IS NULL OR created_at < $3)
                     GROUP BY pair_name, user_id
                    HAVING SUM(CASE WHEN chosen_first THEN 1 ELSE -1 END) <> 0),
                    counted AS (
                    SELECT pair_name, user_id, side, COUNT(*) OVER (PARTITION BY pair_name) AS people
                      FROM judged)
               SELECT pair_name AS "pair!",
                      first.value AS "first?",
                      second.value AS "second?",
                      COUNT(*) FILTER (WHERE side > 0) AS "for_first!",
                      COUNT(*) FILTER (WHERE side < 0) AS "for_second!"
                 FROM counted
                 LEFT JOIN user_attributes AS first
                        ON first.tenant_id = $1 AND first.user_id = counted.user_id AND first.key = $4
                 LEFT JOIN user_attributes AS second
                        ON second.tenant_id = $1 AND second.user_id = counted.user_id AND second.key = $5
                WHERE people >= 2
                GROUP BY pair_name, first.value, second.value
                ORDER BY pair_name
                LIMIT $6"#,
            tenant.as_str(),
            span.from,
            span.to,
            first,
            second,
            bounded(limit.saturating_add(1)),
        );
        let rows = within(snapshot.answer_timeout(), rows.fetch_all(&mut *snapshot)).await;
        let rows = rows.map_err(not_measured)?;
        snapshot.commit().await.map_err(failed)?;
        votes_of(rows, group_by, limit)
    }

    #[tracing::instrument(name = "db.measure.mistakes", skip_all)]
    async fn mistakes(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<Mistake>, StorageError> {
        let (keys, values): (Vec<String>, Vec<String>) =
            group.iter().map(|(key, value)| (key.clone(), value.clone())).unzip();
        let mut snapshot = self.measuring.snapshot(tenant.as_str()).await?;
        let rows = sqlx::query_as!(
            MistakeRow,
            r#"WITH worst AS (
                    SELECT user_id, example_id, shot, preference, population_preference, created_at
                      FROM scored_predictions
                     WHERE tenant_id = $1
                       AND model = $2
                       AND ($3::TIMESTAMPTZ IS NULL OR created_at >= $3)
                       AND ($4::TIMESTAMPTZ IS NULL OR created_at < $4)
                       AND (cardinality($5::TEXT[]) = 0 OR user_id IN (
                            SELECT known.user_id
                              FROM unnest($5::TEXT[], $6::TEXT[]) AS asked (key, value)
                              JOIN user_attributes AS known USING (key, value)
                             WHERE known.tenant_id = $1
                             GROUP BY known.user_id
                            HAVING COUNT(*) = cardinality($5::TEXT[])))
                     ORDER BY preference, user_id, example_id
                     LIMIT $7)
               SELECT worst.user_id AS "user_id!",
                      worst.example_id AS "example_id!",
                      worst.shot AS "shot!",
                      worst.preference AS "preference!",
                      worst.population_preference AS "population_preference!",
                      worst.created_at AS "created_at!",
                      examples.prompt,
                      examples.chosen,
                      examples.rejected
                 FROM worst
                 JOIN examples
                   ON examples.tenant_id = $1
                  AND examples.user_id = worst.user_id
                  AND examples.example_id = worst.example_id
                ORDER BY worst.preference, worst.user_id, worst.example_id"#,
            tenant.as_str(),
            predictions.model.to_string(),
            predictions.span.from,
            predictions.span.to,
            &keys,
            &values,
            bounded(limit),
        );
        let rows = within(snapshot.answer_timeout(), rows.fetch_all(&mut *snapshot)).await;
        let rows = rows.map_err(not_measured)?;
        snapshot.commit().await.map_err(failed)?;
        rows.into_iter().map(Mistake::try_from).collect()
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

/// How long a step is, in seconds.
fn step_s(step: Step) -> f64 {
    const HOUR_S: f64 = 60.0 * 60.0;
    match step {
        Step::Hour => HOUR_S,
        Step::Day => 24.0 * HOUR_S,
        Step::Week => 7.0 * 24.0 * HOUR_S,
    }
}
