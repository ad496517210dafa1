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

-- Every prediction with what is counted of it. Right is 1, wrong 0 and undecided one half. Classes of `shot` begin with 0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64 and 128 examples. Losses are in nats.
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
