#!/usr/bin/env python3
"""Makes many people of few in an SQLite database: copy_people.py FILE [--crowds 1,10,100] [--model NAME --beyond N]

For measuring how the cost of a score grows with the people asked for. No server has the file open. Each copy has its
own row and its own states, and the examples of whom it was copied from are only counted: its states cannot be derived
again.

The copies are `copy-0`, `copy-1` and so on, as many as the largest crowd. A copy with a number below a crowd's size has
the attribute `crowd-SIZE`, so that a group of each size can be asked for. Copies from `--beyond` on have the states of
the one model alone, for a file that is not larger than needed.
"""

import argparse
import sqlite3
import sys
from contextlib import closing

ORIGINALS = """
CREATE TEMPORARY TABLE originals AS
SELECT row_number() OVER (ORDER BY tenant_id, user_id) - 1 AS place, tenant_id, user_id
  FROM users
 WHERE user_id NOT LIKE 'copy-%' AND examples > 0
"""

COPIES = """
CREATE TEMPORARY TABLE copies AS
WITH RECURSIVE numbers (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < :count)
SELECT number, 'copy-' || number AS copy, tenant_id, user_id
  FROM numbers JOIN originals ON place = number % (SELECT count(*) FROM originals)
"""

USERS = """
INSERT INTO users (tenant_id, user_id, state_version, examples, next_position, created_at, updated_at)
SELECT tenant_id, copy, state_version, examples, next_position, created_at, updated_at
  FROM copies JOIN users USING (tenant_id, user_id)
 ORDER BY tenant_id, copy
"""

ATTRIBUTES = """
INSERT INTO user_attributes (tenant_id, user_id, key, value)
SELECT tenant_id, copy, 'crowd-' || :size, 'in' FROM copies WHERE number < :size ORDER BY tenant_id, copy
"""

STATES = """
INSERT INTO user_states (tenant_id, user_id, model_key, model, state_version, examples, mean, covariance)
SELECT tenant_id, copy, model_key, model, state_version, examples, mean, covariance
  FROM copies JOIN user_states USING (tenant_id, user_id)
 WHERE number < :beyond OR model LIKE :model || '@%'
 ORDER BY tenant_id, copy
"""


def copy(connection, crowds, model, beyond):
    """How many people were made."""
    count = max(crowds)
    with connection:
        connection.execute(ORIGINALS)
        if not connection.execute("SELECT count(*) FROM originals").fetchone()[0]:
            raise SystemExit("copy_people: nobody in the database has examples")
        connection.execute(COPIES, {"count": count})
        connection.execute(USERS)
        for size in crowds:
            connection.execute(ATTRIBUTES, {"size": size})
        connection.execute(STATES, {"model": model, "beyond": count if beyond is None else beyond})
    return count


def parse(arguments):
    parser = argparse.ArgumentParser(description="Makes many people of few in an SQLite database, for measuring.")
    parser.add_argument("file", help="the database, with a few people who have examples")
    parser.add_argument("--crowds", default="1,10,100", help="sizes of the groups that can be asked for")
    parser.add_argument("--model", default="", help="name of the model whose states all copies have")
    parser.add_argument("--beyond", type=int, help="from which copy on there are no states of other models")
    given = parser.parse_args(arguments)
    given.crowds = [int(size) for size in given.crowds.split(",")]
    if min(given.crowds) < 1:
        parser.error("a crowd has at least one member")
    return given


def main(arguments):
    given = parse(arguments)
    # A file that is not there must not be made.
    with closing(sqlite3.connect(f"file:{given.file}?mode=rw", uri=True)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = OFF")
        print(f"{copy(connection, given.crowds, given.model, given.beyond)} people")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
