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

-- Every prediction with what is counted of it. Right is 1, wrong 0 and undecided one half. Classes of `shot` begin with 0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64 and 128 examples. Losses are in nats.
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
