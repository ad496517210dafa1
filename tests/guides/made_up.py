"""Made-up people, as the files of others and our own lines tell of them: half prefer tea, and half coffee."""

import csv
import json
import random

from place import answers

DRINKS = answers("tea"), answers("coffee")
GENDERS = "Female", "Male", "Non-binary / third gender"
COUNTRIES = "United Kingdom", "Kenya", "Chile"
ANNOTATED = "france", "india", "italy"
TURNS = "first", "second", "third", "fourth"
SLOTS = "a", "b", "c", "d"


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def drinks(dice, person, liked=0.9):
    """What a person takes of a drink each, and what they leave."""
    tea, coffee = (dice.choice(drink) for drink in DRINKS)
    pair = [tea, coffee] if person % 2 else [coffee, tea]
    return pair if dice.random() < liked else pair[::-1]


def unfair(path, people=120, each=16):
    """Comparisons of people of three countries, those of one of whom answer at random, and of either hand."""
    dice = random.Random(3)
    records = []
    for person in range(people):
        country = ("UK", "DE", "FR")[person // 2 % 3]
        attributes = {"country": country, "hand": dice.choice(["left", "right"])}
        for _ in range(each):
            chosen, rejected = drinks(dice, person, 0.5 if country == "FR" else 0.97)
            about = {"prompt": "A drink?", "chosen": chosen, "rejected": rejected}
            records.append({"user_id": f"person-{person}", "attributes": attributes, **about})
    jsonl(path, records)


def prism(folder, people=80, conversations=3, survey_only=4):
    """The survey and the utterances of PRISM: four responses at first, then two; scores as the choice."""
    dice = random.Random(1)
    survey = [surveyed(person, person >= people) for person in range(people + survey_only)]
    utterances = []
    for person in range(people):
        for number in range(conversations):
            for turn in range(2):
                utterances += interaction(dice, person, f"c{person}-{number}", turn)
    folder.mkdir()
    jsonl(folder / "survey.jsonl", survey)
    jsonl(folder / "utterances.jsonl", utterances)


def surveyed(person, survey_only):
    country = COUNTRIES[person // 2 % 3]
    about = {"self_described": "not asked", "categorised": "Prefer not to say", "simplified": "Prefer not to say"}
    location = {"birth_country": country, "birth_countryISO": "XXX", "birth_region": "R", "birth_subregion": "S"}
    location |= {"reside_country": country, "reside_countryISO": "XXX", "reside_region": "R", "reside_subregion": "S"}
    return {
        "user_id": f"user{person}",
        "survey_only": survey_only,
        "num_completed_conversations": 0 if survey_only else 3,
        "consent": "Yes, I consent to take part",
        "age": ("18-24 years old", "25-34 years old")[person // 2 % 2],
        "gender": GENDERS[person % 3],
        "education": "University Bachelors Degree",
        "employment_status": "Student",
        "marital_status": "Never been married",
        "english_proficiency": "Fluent",
        "religion": about,
        "ethnicity": about,
        "location": {**location, "same_birth_reside_country": "Yes", "special_region": "None"},
        "lm_frequency_use": None,
        "stated_prefs": {"values": 50},
        "self_description": "Somebody who was made up.",
        "included_in_US_REP": False,
        "included_in_UK_REP": country == "United Kingdom",
    }


def interaction(dice, person, conversation, turn):
    """The responses to a prompt: one is of the drink that the person likes, and is chosen."""
    liked, first = drinks(dice, person, 1.0)
    other = DRINKS[0 if person % 2 == 0 else 1]
    responses = [(liked, True, 80), (first, False, 30)]
    if turn == 0:
        # One ties with what was chosen, and says nothing.
        responses += [(dice.choice(other) + ", or not", False, 10), (dice.choice(other) + ", maybe", False, 80)]
    dice.shuffle(responses)
    name = f"{conversation}-{turn}"
    return [
        {
            "utterance_id": f"{name}-{at}",
            "interaction_id": name,
            "conversation_id": conversation,
            "user_id": f"user{person}",
            "turn": turn,
            "within_turn_id": at,
            "conversation_type": "unguided",
            "user_prompt": "A drink?" if turn == 0 else "Another one?",
            "model_response": text,
            "model_name": "made-up",
            "model_provider": "nobody",
            "score": score,
            "if_chosen": chosen,
        }
        for at, (text, chosen, score) in enumerate(responses)
    ]


def community_alignment(path, people=72, conversations=4, lang_of=lambda person: "en" if person % 6 else "hi"):
    """Community Alignment's table: a conversation of two turns a row."""
    dice = random.Random(2)
    rows = [
        annotated(dice, person, f"{person}-{number}", lang_of(person))
        for person in range(people)
        for number in range(conversations)
    ]
    path.parent.mkdir()
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def annotated(dice, person, conversation, lang):
    row = {
        "conversation_id": conversation,
        "wave": "1",
        "assigned_lang": lang,
        "annotator_id": str(1000 + person),
        "annotator_age": "18-34",
        "annotator_gender": ("female", "male")[person // 2 % 2],
        "annotator_education_level": "college",
        "annotator_political": "",
        "annotator_ethnicity": "",
        "annotator_country": ANNOTATED[person // 2 % 3],
        "is_pregenerated_first_prompt": "True",
        "in_balanced_subset": "False",
        "in_balanced_subset_10": "False",
    }
    for number, turn in enumerate(TURNS):
        cells = dict.fromkeys([f"response_{slot}" for slot in SLOTS], "")
        cells |= {"prompt": "", "preferred_response": "", "feedback": ""}
        if number < 2:
            liked, _ = drinks(dice, person, 1.0)
            others = dice.sample(DRINKS[0 if person % 2 == 0 else 1], 3)
            slots = list(SLOTS)
            dice.shuffle(slots)
            cells |= {f"response_{slot}": text for slot, text in zip(slots, [liked, *others])}
            cells |= {"prompt": "A drink?", "preferred_response": f"response_{slots[0]}", "feedback": "I like it."}
        row |= {f"{turn}_turn_{name}": text for name, text in cells.items()}
    return row
