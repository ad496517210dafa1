"""People of whom each database of the browser's tests is full."""

import random

from filler import DAY, START, Judgement, Person

DAYS = 40
NEW_VERSION_AFTER = 25  # days from the start
# country: people, and how often the model is right about them; about Iceland it tosses a coin.
UNFAIR = {"UK": (60, 0.92), "DE": (45, 0.9), "FR": (30, 0.88), "JP": (20, 0.9), "IS": (14, 0.5), "MT": (3, 0.8)}
AGES = ["18-24", "25-34", "35-44", "45+"]
PAIRS = 40
PROMPTS = ["A drink?", "What is there to drink when it rains?", "Name a drink that one has in the morning."]
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</svg><script>alert(2)</script>",
    "\u202eevil\u202c",
    "שלום עולם",
    "=cmd()",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "x" * 256,
    'quote " comma , semicolon ;',
    "&amp; & <b>",
    "not known",
]
HOSTILE_KEY = '"><i onclick=alert(3)>key'
HOSTILE_PROMPT = "<script>alert(4)</script>"


def all_of(old, new):
    """People by the name of their database."""
    return {
        "unfair": unfair(old, new),
        "one": crowd(new, ["UK"], each=8),
        "many": crowd(new, [f"group {number:03}" for number in range(500)], each=5),
        "hostile": crowd(new, HOSTILE, each=6, known={HOSTILE_KEY: "yes"}, prompt=HOSTILE_PROMPT),
        "empty": [],
    }


def unfair(old, new):
    """Good about most people, a coin toss about a few; by two versions of a model, one after the other."""
    dice = random.Random(7)
    return [
        person_of(dice, old, new, f"{country.lower()}-{number}", country, right)
        for country, (people, right) in UNFAIR.items()
        for number in range(people)
    ]


def person_of(dice, old, new, user_id, country, right):
    attributes = {"country": country, "age": dice.choices(AGES, [1, 4, 3, 2])[0]}
    times = sorted(START + dice.randrange(DAYS * DAY) for _ in range(dice.randint(6, 14)))
    judgements = [judged(dice, old, new, at, shot, right) for shot, at in enumerate(times)]
    return Person(user_id, attributes, judgements)


def judged(dice, old, new, at, shot, right):
    is_new = at - START > NEW_VERSION_AFTER * DAY
    # Nothing is known of a person at first; the older version was worse.
    skill = 0.5 + (right - 0.5) * min(1.0, 0.5 + shot / 8) * (1.0 if is_new else 0.85)
    pair = dice.randrange(PAIRS) if dice.random() < 0.6 else None
    return Judgement(
        new if is_new else old,
        prediction(dice, skill),
        prediction(dice, 0.5 + (skill - 0.5) / 2),
        prediction(dice, 0.5 + (skill - 0.5) / 2),
        at=at,
        pair=pair,
        first=dice.random() < (0.8 if right > 0.6 else 0.3),
        prompt=dice.choice(PROMPTS),
    )


def prediction(dice, skill):
    """What is given to what was chosen, by a model that is right so often, and about as sure."""
    sure = min(0.99, 0.5 + dice.random() * (skill - 0.4) * 1.2)
    return sure if dice.random() < skill else 1.0 - sure


def crowd(model, values, each, known=None, prompt=PROMPTS[0]):
    """Groups by the value of one attribute."""
    dice = random.Random(8)
    return [
        Person(f"person-{number}-{n}", {"country": value, **(known or {})}, simple(dice, model, prompt))
        for number, value in enumerate(values)
        for n in range(each)
    ]


def simple(dice, model, prompt):
    """A judgement on each of three days."""
    return [
        Judgement(model, *(prediction(dice, right) for right in (0.8, 0.6, 0.6)), at=START + day * DAY, prompt=prompt)
        for day in range(3)
    ]
