"""Puts people, judgements and predictions straight into an SQLite database: thousands in a second."""

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field

TENANT = "default"
START = 1_767_225_600_000_000  # 2026-01-01 in microseconds since 1970
HOUR = 3_600_000_000
DAY = 24 * HOUR


@dataclass
class Judgement:
    """A comparison, and what was predicted of it: by the person's state, the population's and the baseline."""

    model: str
    preference: float
    population: float
    baseline: float | None = None
    at: int = START
    pair: int | None = None  # which pair of responses; one of its own where none is named
    first: bool = True  # which side was taken
    prompt: str = "A drink?"


@dataclass
class Person:
    """Somebody, and their judgements in the order in which they were made."""

    user_id: str
    attributes: dict = field(default_factory=dict)
    judgements: list = field(default_factory=list)


def fill(database, people):
    """Adds people whom nobody knows yet to a migrated database, which no server uses meanwhile."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for number, person in enumerate(people):
            add(connection, number, person)
    connection.close()


def add(connection, number, person):
    known = len(person.judgements)
    times = [judgement.at for judgement in person.judgements]
    insert(
        connection,
        "users",
        "tenant_id user_id state_version examples next_position created_at updated_at",
        [(TENANT, person.user_id, number + 1, known, known, min(times, default=START), max(times, default=START))],
    )
    attributes = [(TENANT, person.user_id, key, value) for key, value in person.attributes.items()]
    insert(connection, "user_attributes", "tenant_id user_id key value", attributes)
    examples, predictions = [], []
    for shot, judgement in enumerate(person.judgements):
        pair = judgement.pair if judgement.pair is not None else (number + 1) * 1_000_000 + shot
        chosen, rejected = answers(pair, judgement.first)
        example = f"example-{shot}"
        texts = (json.dumps(judgement.prompt), chosen, rejected)
        names = (name_of(chosen), name_of(rejected))
        examples.append((TENANT, person.user_id, example, shot, 1.0, 1.0, *names, judgement.at, *texts))
        values = (judgement.preference, judgement.population, judgement.baseline)
        predictions.append((TENANT, person.user_id, example, judgement.model, shot, *values, judgement.at))
    columns = "tenant_id user_id example_id position strength label_confidence chosen_name rejected_name created_at"
    insert(connection, "examples", columns + " prompt chosen rejected", examples)
    columns = "tenant_id user_id example_id model shot preference population_preference baseline_preference created_at"
    insert(connection, "predictions", columns, predictions)


def answers(pair, first):
    """The response that was chosen of a pair, and the other."""
    sides = (f"the first answer {pair}", f"the second answer {pair}")
    return sides if first else sides[::-1]


def has_lower_name(pair, first):
    """Which side of a pair was taken, as the server tells them apart: by the names of the two."""
    chosen, rejected = answers(pair, first)
    return name_of(chosen) < name_of(rejected)


def name_of(text):
    """A digest of 64 bits, as the server names texts, though not the same."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def insert(connection, table, columns, rows):
    names = columns.split()
    places = ", ".join("?" * len(names))
    connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows)
