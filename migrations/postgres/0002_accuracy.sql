-- What accuracy is counted from: the baseline's prediction beside each, pairs under one name whichever response was
-- chosen, and views in which every figure is defined once. Grafana and psql read them as docs/sql.md says.

-- What the Bradley-Terry model gave to what was chosen, where it learned the example in the same transaction.
ALTER TABLE predictions ADD COLUMN baseline_preference DOUBLE PRECISION;

-- No tenant is set while migrations run, and the owner is held to the rows of one.
ALTER TABLE predictions NO FORCE ROW LEVEL SECURITY;

-- Two versions of it may have predicted: the first by name, as the server would have it of models loaded at once.
UPDATE predictions
   SET baseline_preference = baselines.preference
  FROM (SELECT DISTINCT ON (tenant_id, user_id, example_id) tenant_id, user_id, example_id, preference
          FROM predictions
         WHERE model LIKE 'bt@%'
         ORDER BY tenant_id, user_id, example_id, model) AS baselines
 WHERE predictions.tenant_id = baselines.tenant_id
   AND predictions.user_id = baselines.user_id
   AND predictions.example_id = baselines.example_id;

ALTER TABLE predictions FORCE ROW LEVEL SECURITY;

-- Who judges the same two responses to the same prompt meets under one name, and took one of two sides.
ALTER TABLE examples
    ADD COLUMN pair_name BIGINT NOT NULL GENERATED ALWAYS AS (chosen_name # rejected_name) STORED,
    ADD COLUMN chosen_first BOOLEAN NOT NULL GENERATED ALWAYS AS (chosen_name < rejected_name) STORED;

CREATE INDEX examples_by_pair ON examples (tenant_id, pair_name, user_id) INCLUDE (created_at, chosen_first);

-- A prediction's class of confidence, the preference for what the model preferred: 0 for exactly one half, then 1 for
-- (0.5, 0.6] to 5 for (0.9, 1]. It is a column so that an index can lead to the predictions of one class.
ALTER TABLE predictions
    ADD COLUMN confidence_class SMALLINT NOT NULL GENERATED ALWAYS AS (
        CASE WHEN preference = 0.5 THEN 0
             ELSE least(greatest(ceil(greatest(preference, 1 - preference) * 10), 6), 10)::SMALLINT - 5
        END) STORED;

-- In the order in which they are added up, with all that is: neither a sort nor a look at the table.
CREATE INDEX predictions_by_person ON predictions (tenant_id, model, user_id, confidence_class)
    INCLUDE (created_at, shot, preference, population_preference, baseline_preference);

CREATE INDEX predictions_by_time ON predictions (tenant_id, model, created_at);

-- The worst first: a page shows a few of them, and must not look at all.
CREATE INDEX predictions_by_preference ON predictions (tenant_id, model, preference, user_id, example_id);

-- Every prediction with what is counted of it. Right is 1, wrong 0 and undecided one half. Losses are in nats. Classes of
-- `shot` begin with 0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64 and 128 examples.
CREATE VIEW scored_predictions AS
SELECT tenant_id,
       user_id,
       example_id,
       model,
       created_at,
       shot,
       width_bucket(shot, '{0,1,2,3,4,6,8,12,16,32,64,128}'::BIGINT[]) - 1 AS shot_class,
       preference,
       population_preference,
       baseline_preference,
       CASE WHEN preference > 0.5 THEN 1::DOUBLE PRECISION
            WHEN preference < 0.5 THEN 0::DOUBLE PRECISION
            ELSE 0.5::DOUBLE PRECISION
       END AS correct,
       greatest(preference, 1 - preference) AS confidence,
       confidence_class,
       -ln(greatest(preference, 2.2250738585072014e-308)) AS log_loss,
       CASE WHEN population_preference > 0.5 THEN 1::DOUBLE PRECISION
            WHEN population_preference < 0.5 THEN 0::DOUBLE PRECISION
            ELSE 0.5::DOUBLE PRECISION
       END AS population_correct,
       CASE WHEN baseline_preference > 0.5 THEN 1::DOUBLE PRECISION
            WHEN baseline_preference < 0.5 THEN 0::DOUBLE PRECISION
            WHEN baseline_preference = 0.5 THEN 0.5::DOUBLE PRECISION
       END AS baseline_correct
  FROM predictions;

CREATE OR REPLACE VIEW prediction_tallies AS
SELECT tenant_id,
       user_id,
       model,
       count(*) AS predictions,
       sum(correct) AS correct,
       sum(population_correct) AS population_correct
  FROM scored_predictions
 GROUP BY tenant_id, user_id, model;

-- One row per person and model. A gap is how often predictions of a class of confidence were right, less their
-- confidences: what the calibration error is counted from.
CREATE VIEW person_tallies AS
SELECT tenant_id,
       model,
       user_id,
       count(*)::DOUBLE PRECISION AS n,
       sum(correct) AS correct,
       sum(log_loss) AS log_loss,
       sum(population_correct) AS population_correct,
       count(baseline_correct) AS baseline_n,
       coalesce(sum(baseline_correct), 0) AS baseline_correct,
       coalesce(sum(correct - confidence) FILTER (WHERE confidence_class = 1), 0) AS gap_1,
       coalesce(sum(correct - confidence) FILTER (WHERE confidence_class = 2), 0) AS gap_2,
       coalesce(sum(correct - confidence) FILTER (WHERE confidence_class = 3), 0) AS gap_3,
       coalesce(sum(correct - confidence) FILTER (WHERE confidence_class = 4), 0) AS gap_4,
       coalesce(sum(correct - confidence) FILTER (WHERE confidence_class = 5), 0) AS gap_5
  FROM scored_predictions
 GROUP BY tenant_id, model, user_id;

-- The figures of GET /accuracy, without intervals. The calibration error is over both orientations of each pair, in ten
-- bins, and five below 500 predictions; that of exactly one half is none.
CREATE VIEW accuracy_overall AS
SELECT tenant_id,
       model,
       count(*) AS users,
       sum(n)::BIGINT AS n,
       sum(correct) / sum(n) AS accuracy,
       avg(correct / n) AS user_accuracy,
       sum(log_loss) / sum(n) AS log_loss,
       CASE WHEN sum(n) >= 500
            THEN (abs(sum(gap_1)) + abs(sum(gap_2)) + abs(sum(gap_3)) + abs(sum(gap_4)) + abs(sum(gap_5))) / sum(n)
            ELSE (abs(sum(gap_2 + gap_3)) + abs(sum(gap_4 + gap_5))) / sum(n)
       END AS ece,
       sum(population_correct) / sum(n) AS population_accuracy,
       sum(correct - population_correct) / sum(n) AS gain,
       sum(baseline_correct) / nullif(sum(baseline_n), 0) AS bt_accuracy
  FROM person_tallies
 GROUP BY tenant_id, model;

-- One row for each value of each attribute. People who lack an attribute are in none of its groups.
CREATE VIEW accuracy_by_group AS
SELECT tenant_id,
       model,
       key AS attribute,
       value,
       count(*) AS users,
       sum(n)::BIGINT AS n,
       sum(correct) / sum(n) AS accuracy,
       avg(correct / n) AS user_accuracy,
       sum(log_loss) / sum(n) AS log_loss,
       CASE WHEN sum(n) >= 500
            THEN (abs(sum(gap_1)) + abs(sum(gap_2)) + abs(sum(gap_3)) + abs(sum(gap_4)) + abs(sum(gap_5))) / sum(n)
            ELSE (abs(sum(gap_2 + gap_3)) + abs(sum(gap_4 + gap_5))) / sum(n)
       END AS ece,
       sum(population_correct) / sum(n) AS population_accuracy,
       sum(correct - population_correct) / sum(n) AS gain,
       sum(baseline_correct) / nullif(sum(baseline_n), 0) AS bt_accuracy
  FROM person_tallies
  JOIN user_attributes USING (tenant_id, user_id)
 GROUP BY tenant_id, model, key, value;

-- One row per person, model and class of the number of examples before.
CREATE VIEW person_shot_tallies AS
SELECT tenant_id,
       model,
       user_id,
       shot_class,
       count(*)::DOUBLE PRECISION AS n,
       sum(correct) AS correct,
       sum(log_loss) AS log_loss,
       sum(population_correct) AS population_correct,
       count(baseline_correct) AS baseline_n,
       coalesce(sum(baseline_correct), 0) AS baseline_correct
  FROM scored_predictions
 GROUP BY tenant_id, model, user_id, 4;

-- The number of examples before is from `shot` on, and less than the next row begins with.
CREATE VIEW accuracy_by_shot AS
SELECT tenant_id,
       model,
       ('{0,1,2,3,4,6,8,12,16,32,64,128}'::BIGINT[])[shot_class + 1] AS shot,
       count(*) AS users,
       sum(n)::BIGINT AS n,
       sum(correct) / sum(n) AS accuracy,
       avg(correct / n) AS user_accuracy,
       sum(log_loss) / sum(n) AS log_loss,
       sum(population_correct) / sum(n) AS population_accuracy,
       sum(correct - population_correct) / sum(n) AS gain,
       sum(baseline_correct) / nullif(sum(baseline_n), 0) AS bt_accuracy
  FROM person_shot_tallies
 GROUP BY tenant_id, model, shot_class;

CREATE VIEW accuracy_by_group_and_shot AS
SELECT tenant_id,
       model,
       key AS attribute,
       value,
       ('{0,1,2,3,4,6,8,12,16,32,64,128}'::BIGINT[])[shot_class + 1] AS shot,
       count(*) AS users,
       sum(n)::BIGINT AS n,
       sum(correct) / sum(n) AS accuracy,
       avg(correct / n) AS user_accuracy,
       sum(log_loss) / sum(n) AS log_loss,
       sum(population_correct) / sum(n) AS population_accuracy,
       sum(correct - population_correct) / sum(n) AS gain,
       sum(baseline_correct) / nullif(sum(baseline_n), 0) AS bt_accuracy
  FROM person_shot_tallies
  JOIN user_attributes USING (tenant_id, user_id)
 GROUP BY tenant_id, model, key, value, shot_class;

-- One row per person, model and day of UTC.
CREATE VIEW person_day_tallies AS
SELECT tenant_id,
       model,
       user_id,
       date_bin('1 day', created_at, '0001-01-01 00:00+00') AS day,
       count(*)::DOUBLE PRECISION AS n,
       sum(correct) AS correct,
       sum(log_loss) AS log_loss,
       sum(population_correct) AS population_correct,
       count(baseline_correct) AS baseline_n,
       coalesce(sum(baseline_correct), 0) AS baseline_correct
  FROM scored_predictions
 GROUP BY tenant_id, model, user_id, 4;

-- A day is the moment at which it begins.
CREATE VIEW accuracy_by_day AS
SELECT tenant_id,
       model,
       day,
       count(*) AS users,
       sum(n)::BIGINT AS n,
       sum(correct) / sum(n) AS accuracy,
       avg(correct / n) AS user_accuracy,
       sum(log_loss) / sum(n) AS log_loss,
       sum(population_correct) / sum(n) AS population_accuracy,
       sum(correct - population_correct) / sum(n) AS gain,
       sum(baseline_correct) / nullif(sum(baseline_n), 0) AS bt_accuracy
  FROM person_day_tallies
 GROUP BY tenant_id, model, day;

CREATE VIEW accuracy_by_group_and_day AS
SELECT tenant_id,
       model,
       key AS attribute,
       value,
       day,
       count(*) AS users,
       sum(n)::BIGINT AS n,
       sum(correct) / sum(n) AS accuracy,
       avg(correct / n) AS user_accuracy,
       sum(log_loss) / sum(n) AS log_loss,
       sum(population_correct) / sum(n) AS population_accuracy,
       sum(correct - population_correct) / sum(n) AS gain,
       sum(baseline_correct) / nullif(sum(baseline_n), 0) AS bt_accuracy
  FROM person_day_tallies
  JOIN user_attributes USING (tenant_id, user_id)
 GROUP BY tenant_id, model, key, value, day;

-- Confidences above `confidence_from`, or exactly that where it is the whole class, up to `confidence_to`.
CREATE VIEW reliability AS
SELECT tenant_id,
       model,
       (ARRAY[0.5, 0.5, 0.6, 0.7, 0.8, 0.9]::DOUBLE PRECISION[])[confidence_class + 1] AS confidence_from,
       (ARRAY[0.5, 0.6, 0.7, 0.8, 0.9, 1]::DOUBLE PRECISION[])[confidence_class + 1] AS confidence_to,
       count(*) AS n,
       avg(confidence) AS confidence,
       avg(correct) AS accuracy
  FROM scored_predictions
 GROUP BY tenant_id, model, confidence_class;
