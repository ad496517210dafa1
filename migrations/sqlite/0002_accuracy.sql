-- What accuracy is counted from: the baseline's prediction beside each, pairs under one name whichever response was
-- chosen, and views in which every figure is defined once. docs/sql.md says how to read them.

-- What the Bradley-Terry model gave to what was chosen, where it learned the example in the same transaction.
ALTER TABLE predictions ADD COLUMN baseline_preference REAL;

-- Two versions of it may have predicted: the first by name.
UPDATE predictions
   SET baseline_preference = (
       SELECT baselines.preference
         FROM predictions baselines
        WHERE baselines.tenant_id = predictions.tenant_id
          AND baselines.user_id = predictions.user_id
          AND baselines.example_id = predictions.example_id
          AND baselines.model GLOB 'bt@*'
        ORDER BY baselines.model
        LIMIT 1);

-- Who judges the same two responses to the same prompt meets under one name, and took one of two sides. SQLite has no
-- exclusive or.
ALTER TABLE examples
  ADD COLUMN pair_name INTEGER NOT NULL
      GENERATED ALWAYS AS ((chosen_name | rejected_name) & ~(chosen_name & rejected_name)) VIRTUAL;
ALTER TABLE examples
  ADD COLUMN chosen_first INTEGER NOT NULL GENERATED ALWAYS AS (chosen_name < rejected_name) VIRTUAL;

CREATE INDEX examples_by_pair ON examples (tenant_id, pair_name, user_id, created_at, chosen_first);

-- A prediction's class of confidence, the preference for what the model preferred: 0 for exactly one half, then 1 for
-- (0.5, 0.6] to 5 for (0.9, 1]. It is a column so that an index can lead to the predictions of one class.
ALTER TABLE predictions
  ADD COLUMN confidence_class INTEGER NOT NULL GENERATED ALWAYS AS (
      CASE WHEN preference = 0.5 THEN 0
           ELSE 1
               + (max(preference, 1 - preference) * 10 > 6)
               + (max(preference, 1 - preference) * 10 > 7)
               + (max(preference, 1 - preference) * 10 > 8)
               + (max(preference, 1 - preference) * 10 > 9)
      END) VIRTUAL;

-- In the order in which they are added up, with all that is: neither a sort nor a look at the table.
CREATE INDEX predictions_by_person ON predictions (
    tenant_id,
    model,
    user_id,
    confidence_class,
    created_at,
    shot,
    preference,
    population_preference,
    baseline_preference);

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
       (shot >= 1) + (shot >= 2) + (shot >= 3) + (shot >= 4) + (shot >= 6) + (shot >= 8) + (shot >= 12) + (shot >= 16)
           + (shot >= 32) + (shot >= 64) + (shot >= 128) AS shot_class,
       preference,
       population_preference,
       baseline_preference,
       CASE WHEN preference > 0.5 THEN 1.0 WHEN preference < 0.5 THEN 0.0 ELSE 0.5 END AS correct,
       max(preference, 1 - preference) AS confidence,
       confidence_class,
       -ln(max(preference, 2.2250738585072014e-308)) AS log_loss,
       CASE WHEN population_preference > 0.5 THEN 1.0 WHEN population_preference < 0.5 THEN 0.0 ELSE 0.5 END
           AS population_correct,
       CASE WHEN baseline_preference > 0.5 THEN 1.0
            WHEN baseline_preference < 0.5 THEN 0.0
            WHEN baseline_preference = 0.5 THEN 0.5
       END AS baseline_correct
  FROM predictions;

DROP VIEW prediction_tallies;

CREATE VIEW prediction_tallies AS
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
       CAST(count(*) AS REAL) AS n,
       sum(correct) AS correct,
       sum(log_loss) AS log_loss,
       sum(population_correct) AS population_correct,
       count(baseline_correct) AS baseline_n,
       coalesce(sum(baseline_correct), 0.0) AS baseline_correct,
       sum(CASE WHEN confidence_class = 1 THEN correct - confidence ELSE 0.0 END) AS gap_1,
       sum(CASE WHEN confidence_class = 2 THEN correct - confidence ELSE 0.0 END) AS gap_2,
       sum(CASE WHEN confidence_class = 3 THEN correct - confidence ELSE 0.0 END) AS gap_3,
       sum(CASE WHEN confidence_class = 4 THEN correct - confidence ELSE 0.0 END) AS gap_4,
       sum(CASE WHEN confidence_class = 5 THEN correct - confidence ELSE 0.0 END) AS gap_5
  FROM scored_predictions
 GROUP BY tenant_id, model, user_id;

-- The figures of GET /accuracy, without intervals. The calibration error is over both orientations of each pair, in ten
-- bins, and five below 500 predictions; that of exactly one half is none.
CREATE VIEW accuracy_overall AS
SELECT tenant_id,
       model,
       count(*) AS users,
       CAST(sum(n) AS INTEGER) AS n,
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
       CAST(sum(n) AS INTEGER) AS n,
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
       CAST(count(*) AS REAL) AS n,
       sum(correct) AS correct,
       sum(log_loss) AS log_loss,
       sum(population_correct) AS population_correct,
       count(baseline_correct) AS baseline_n,
       coalesce(sum(baseline_correct), 0.0) AS baseline_correct
  FROM scored_predictions
 GROUP BY tenant_id, model, user_id, 4;

-- The number of examples before is from `shot` on, and less than the next row begins with.
CREATE VIEW accuracy_by_shot AS
SELECT tenant_id,
       model,
       CASE shot_class WHEN 5 THEN 6 WHEN 6 THEN 8 WHEN 7 THEN 12 WHEN 8 THEN 16 WHEN 9 THEN 32 WHEN 10 THEN 64
           WHEN 11 THEN 128 ELSE shot_class END AS shot,
       count(*) AS users,
       CAST(sum(n) AS INTEGER) AS n,
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
       CASE shot_class WHEN 5 THEN 6 WHEN 6 THEN 8 WHEN 7 THEN 12 WHEN 8 THEN 16 WHEN 9 THEN 32 WHEN 10 THEN 64
           WHEN 11 THEN 128 ELSE shot_class END AS shot,
       count(*) AS users,
       CAST(sum(n) AS INTEGER) AS n,
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
       created_at - (created_at % 86400000000 + 86400000000) % 86400000000 AS day,
       CAST(count(*) AS REAL) AS n,
       sum(correct) AS correct,
       sum(log_loss) AS log_loss,
       sum(population_correct) AS population_correct,
       count(baseline_correct) AS baseline_n,
       coalesce(sum(baseline_correct), 0.0) AS baseline_correct
  FROM scored_predictions
 GROUP BY tenant_id, model, user_id, 4;

-- A day is the moment at which it begins.
CREATE VIEW accuracy_by_day AS
SELECT tenant_id,
       model,
       day,
       count(*) AS users,
       CAST(sum(n) AS INTEGER) AS n,
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
       CAST(sum(n) AS INTEGER) AS n,
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
       CASE confidence_class WHEN 0 THEN 0.5 ELSE (confidence_class + 4) / 10.0 END AS confidence_from,
       (confidence_class + 5) / 10.0 AS confidence_to,
       count(*) AS n,
       avg(confidence) AS confidence,
       avg(correct) AS accuracy
  FROM scored_predictions
 GROUP BY tenant_id, model, confidence_class;
