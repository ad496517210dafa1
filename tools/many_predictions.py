#!/usr/bin/env python3
"""Fills a PostgreSQL database with people and predictions: many_predictions.py URL [--people N] [MODEL...]

For measuring /accuracy and the dashboard. The database has the migrations (`polyreward migrate`), and nobody of these
names. Everything is drawn from hashes of names and numbers, so that two runs with the same arguments agree in every
value; `--until` is the only thing that the clock decides otherwise.

Of the models the first is the baseline, right about seven in ten of everybody's choices. The others learn: the more
examples of somebody they have, the oftener they are right, but for the people with `background` = `minority`, about
whom they toss a coin and are as confident as about anybody. Each person came on five days. One example in five is of
pairs that many judged, and groups differ in which response they prefer.
"""

import argparse
import subprocess
import sys

FILL = r"""
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SELECT set_config('polyreward.tenant', :'tenant', false) \g /dev/null
BEGIN;

-- Uniform in [0, 1), and the same for the same words.
CREATE FUNCTION pg_temp.draw(VARIADIC words TEXT[]) RETURNS DOUBLE PRECISION
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (hashtextextended(array_to_string(words, ' '), 0) & 4503599627370495) / 4503599627370496.0::DOUBLE PRECISION
$$;

CREATE TEMPORARY TABLE people ON COMMIT DROP AS
SELECT number,
       'person-' || lpad(number::TEXT, 6, '0') AS user_id,
       'region-' || lpad(floor(:groups * pow(pg_temp.draw('region', number::TEXT), 1.3))::TEXT, 3, '0') AS region,
       (ARRAY['18-24', '25-34', '35-44', '45-54', '55-64', '65+'])[
           1 + floor(6 * pg_temp.draw('age', number::TEXT))
       ] AS age,
       CASE WHEN pg_temp.draw('background', number::TEXT) < :minority THEN 'minority' ELSE 'majority' END AS background,
       floor(greatest(:days / 5, 1) * pg_temp.draw('day', number::TEXT))::INTEGER AS first_day
  FROM generate_series(0, :people - 1) AS number;

INSERT INTO users (tenant_id, user_id, state_version, examples, next_position, created_at, updated_at)
SELECT :'tenant', user_id, hashtextextended(user_id, 1), :examples, :examples,
       :'until'::TIMESTAMPTZ - make_interval(days => :days), :'until'
  FROM people;

INSERT INTO user_attributes (tenant_id, user_id, key, value)
SELECT :'tenant', user_id, key, value
  FROM people, LATERAL (VALUES ('region', region), ('age', age), ('background', background)) AS known (key, value)
 -- One in twenty did not say how old they are.
 WHERE key <> 'age' OR pg_temp.draw('silent', number::TEXT) >= 0.05;

-- `side` says which of a pair's responses somebody chose.
CREATE TEMPORARY TABLE drawn ON COMMIT DROP AS
SELECT user_id,
       background,
       place,
       'example-' || lpad(place::TEXT, 4, '0') AS example_id,
       CASE WHEN pg_temp.draw('shared', user_id, place::TEXT) < 0.2
            THEN 'pair ' || floor(:shared * pg_temp.draw('pair', user_id, place::TEXT))
            ELSE 'pair of ' || user_id || ' ' || place
       END AS pair,
       pg_temp.draw('side', user_id, place::TEXT) < CASE background WHEN 'minority' THEN 0.25 ELSE 0.75 END AS side,
       -- Five visits on different days, a minute for each example.
       :'until'::TIMESTAMPTZ - make_interval(
           days => :days - (first_day + (place * 5 / :examples) * greatest(:days / 5, 1)) % :days,
           secs => -floor(80000 * pg_temp.draw('time', user_id, (place * 5 / :examples)::TEXT)) - 60 * (place % 60)
       ) AS created_at
  FROM people, generate_series(0, :examples - 1) AS place;

ANALYZE people, drawn;

INSERT INTO examples (
       tenant_id, user_id, example_id, position, prompt, chosen, rejected, strength, label_confidence, rationale,
       chosen_name, rejected_name, created_at)
SELECT :'tenant', user_id, example_id, place, to_json('A question about ' || pair || '?')::TEXT, chosen, rejected,
       1, 0.9, NULL, hashtextextended(pair || chosen, 2), hashtextextended(pair || rejected, 2), created_at
  FROM drawn,
       LATERAL (
           SELECT CASE WHEN side THEN 'A short answer.' ELSE 'An answer that takes its time.' END AS chosen,
                  CASE WHEN side THEN 'An answer that takes its time.' ELSE 'A short answer.' END AS rejected
       ) AS texts;

CREATE TEMPORARY TABLE models ON COMMIT DROP AS
SELECT model, number FROM unnest(string_to_array(:'models', ' ')) WITH ORDINALITY AS named (model, number);

-- A model is confident first, and right as often as that, wherever it is fair.
CREATE TEMPORARY TABLE predicted ON COMMIT DROP AS
SELECT user_id, example_id, place, model, number, created_at,
       CASE WHEN pg_temp.draw('right', model, user_id, place::TEXT)
                 < CASE WHEN number > 1 AND background = 'minority' THEN 0.5 ELSE confidence END
            THEN confidence
            ELSE 1 - confidence
       END AS preference
  FROM drawn,
       models,
       LATERAL (SELECT 0.5 + 0.5 * pow(
                           pg_temp.draw('confidence', model, user_id, place::TEXT),
                           CASE number WHEN 1 THEN 1.5 ELSE 1.5 - 1.1 * place / (place + 5.0) END)
       ) AS believed (confidence);

-- Without it a foreign key is looked up as in an empty table.
ANALYZE examples, predicted;

INSERT INTO predictions (
       tenant_id, user_id, example_id, model, shot, preference, population_preference, baseline_preference, created_at)
SELECT :'tenant', user_id, example_id, predicted.model, place, predicted.preference, baseline.preference,
       baseline.preference, created_at
  FROM predicted
  JOIN (SELECT user_id, example_id, preference FROM predicted WHERE number = 1) AS baseline USING (user_id, example_id)
 ORDER BY created_at, user_id, place;

COMMIT;
VACUUM (ANALYZE) users, user_attributes, examples, predictions;
"""


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Fills a PostgreSQL database with people and predictions, for measuring /accuracy."
    )
    parser.add_argument("url", help="the database, with its migrations applied; psql reads it")
    parser.add_argument(
        "models", nargs="*", default=["bt@generated", "pal-a@generated"], help="name@version, the baseline first"
    )
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=25, help="of each person")
    parser.add_argument("--groups", type=int, default=200, help="values of the attribute `region`")
    parser.add_argument("--shared", type=int, default=1000, help="pairs that many people judge")
    parser.add_argument("--minority", type=float, default=0.08, help="share of people about whom models toss a coin")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--until", default="today", help="when the last day ends, as PostgreSQL reads it")
    return parser.parse_args(arguments)


def main(arguments):
    given = parse(arguments)
    psql = ["psql", "--no-psqlrc", "--dbname", given.url]
    for name in ("tenant", "people", "examples", "groups", "shared", "minority", "days", "until"):
        psql += ["--set", f"{name}={getattr(given, name)}"]
    psql += ["--set", f"models={' '.join(given.models)}"]
    return subprocess.run(psql, input=FILL, text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
