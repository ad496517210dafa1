#!/usr/bin/env python3
"""many_people.py DATABASE PEOPLE: copies the people of an SQLite database, with their states, until there are so many.

For `make bench`. Copies are people as far as scoring them goes: they have attributes and states, and no examples are
read.
One in ten has the attribute `tenth: yes`. A server may have the database open.
"""

import sqlite3
import sys


def main(database, people):
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute("BEGIN IMMEDIATE")
        known = connection.execute("SELECT count(*) FROM users").fetchone()[0]
        if not known:
            sys.exit("there is nobody to copy")
        copies = people - known
        # Numbers them, and gives each the states of somebody who is there already.
        connection.execute(
            """CREATE TEMP TABLE copies AS
               WITH RECURSIVE numbers (number) AS (
                    SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < ?1)
               SELECT original.tenant_id, original.user_id AS original, 'copy-' || number AS copy, number
                 FROM numbers
                 JOIN (SELECT tenant_id, user_id, row_number() OVER (ORDER BY user_id) - 1 AS place FROM users) original
                   ON original.place = number % ?2""",
            (copies, known),
        )
        connection.execute(
            """INSERT INTO users (tenant_id, user_id, state_version, examples, next_position, created_at, updated_at)
               SELECT tenant_id, copy, state_version, examples, next_position, created_at, updated_at
                 FROM copies JOIN users USING (tenant_id) WHERE users.user_id = original"""
        )
        connection.execute(
            """INSERT INTO user_states
                      (tenant_id, user_id, model_key, model, state_version, examples, mean, covariance)
               SELECT tenant_id, copy, model_key, model, state_version, examples, mean, covariance
                 FROM copies JOIN user_states USING (tenant_id) WHERE user_states.user_id = original"""
        )
        connection.execute(
            """INSERT INTO user_attributes (tenant_id, user_id, key, value)
               SELECT tenant_id, user_id, 'tenth', 'yes'
                 FROM (SELECT tenant_id, user_id, row_number() OVER (ORDER BY user_id) AS place FROM users)
                WHERE place % 10 = 0"""
        )
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]))
