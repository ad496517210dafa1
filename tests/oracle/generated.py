"""People made up from a seed, whose judgements a model predicts better or worse by where they live."""

import numpy as np
import pandas as pd
from filler import DAY, START, Judgement, Person, has_lower_name

# What a model gives to what was chosen is drawn from Beta(a, 1), whose median is 0.5 ** (1 / a).
COUNTRIES = {"UK": 2.6, "DE": 1.8, "FR": 1.2, "BR": 0.9, "JP": 3.0}
FIRST = {"UK": 0.85, "JP": 0.8, "DE": 0.2}  # how often they take the first side of a pair; others half the time
AGES = ["18-24", "25-34", "35-44", "45+"]
HAMLET = {"country": "Hamlet", "people": 3}  # fewer people than a group needs to be shown
DAYS = 40
PAIRS = 60  # that more than one person judges


def people(model, seed, count=400, most=20, attributes=True):
    """`count` people with up to `most` judgements each; of some nothing is known, some judged nothing."""
    rng = np.random.default_rng(seed)
    return [person(rng, model, number, most, attributes) for number in range(count)]


def person(rng, model, number, most, attributes):
    known = known_of(rng, number) if attributes else {}
    skill = COUNTRIES.get(known.get("country"), 1.5) * rng.gamma(8.0, 1 / 8.0)
    judged = 0 if number % 37 == 5 else int(rng.integers(1, most + 1))
    first = FIRST.get(known.get("country"), 0.5)
    judgements = [judgement(rng, model, skill, first) for _ in range(judged)]
    return Person(f"person-{number}", known, sorted(judgements, key=lambda made: made.at))


def known_of(rng, number):
    if number < HAMLET["people"]:
        return {"country": HAMLET["country"], "age": AGES[0]}
    known = {}
    if rng.random() < 0.9:
        known["country"] = str(rng.choice(list(COUNTRIES), p=[0.4, 0.25, 0.2, 0.1, 0.05]))
    if rng.random() < 0.85:
        known["age"] = str(rng.choice(AGES, p=[0.1, 0.5, 0.3, 0.1]))
    return known


def judgement(rng, model, skill, first):
    preference, population, baseline = (float(rng.beta(weight, 1.0)) for weight in (skill, 1.2, 1.1))
    undecided = rng.random() < 0.03
    return Judgement(
        model,
        0.5 if undecided else preference,
        0.5 if rng.random() < 0.03 else population,
        None if rng.random() < 0.1 else baseline,
        at=START + int(rng.integers(0, DAYS * DAY)),
        pair=int(rng.integers(0, PAIRS)) if rng.random() < 0.5 else None,
        first=bool(rng.random() < first),
    )


def table(made, group_by):
    """A row per judgement; nothing known is an empty text."""
    rows = [
        {
            "user_id": one.user_id,
            "preference": judgement.preference,
            "population": judgement.population,
            "baseline": judgement.baseline,
            "at": judgement.at,
            "shot": shot,
            "pair": judgement.pair,
            "side": judgement.pair is not None and has_lower_name(judgement.pair, judgement.first),
            **{key: one.attributes.get(key, "") for key in group_by},
        }
        for one in made
        for shot, judgement in enumerate(one.judgements)
    ]
    return pd.DataFrame(rows)
