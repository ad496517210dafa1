#!/usr/bin/env python3
"""Generate the sample comparisons: simulated people choosing between hand-written answers.

Reads ``prompts.jsonl`` (texts with their taste axes) and ``people.json`` (who the people are) and writes
gzipped JSON lines. The lines are the same on every run and platform: each person draws from random streams
of their own, only ``Random.random()`` is used (its sequence is guaranteed by Python), and every number that
went through the platform's math library is rounded before it is compared with anything.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import NoReturn, TypeVar

DEFAULT_DATA = Path(__file__).resolve().parent.parent / "data" / "sample"
PROMPT_SPLITS = ("train", "query")
MIN_RESPONSES = 2
AXIS_LIMIT = 2.0
WEIGHT_LIMIT = 100.0
DECIMALS = 9  # coarser than any difference between platforms, finer than any that matters

T = TypeVar("T")
Weights = Mapping[str, float]


class DataError(Exception):
    """A data file is missing or wrong; the message names the file and the place."""


@dataclass(frozen=True)
class Response:
    """One answer; ``axes`` says what its text really shows, -2 to 2 on each axis."""

    id: str
    text: str
    axes: Weights


@dataclass(frozen=True)
class Prompt:
    """One line of prompts.jsonl."""

    id: str
    topic: str
    split: str
    text: str
    responses: tuple[Response, ...]


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt, in the order of the file."""

    prompt: Prompt
    first: Response
    second: Response


@dataclass(frozen=True)
class Group:
    """People of one taste; ``topic_taste`` holds the complete taste on the topics where it differs."""

    name: str
    seen: int
    unseen: int
    taste: Weights
    topic_taste: Mapping[str, Weights]
    country: tuple[float, ...]
    age: tuple[float, ...]


@dataclass(frozen=True)
class Population:
    """Everything in people.json."""

    seed: int
    axes: tuple[str, ...]
    sharpness: float
    label_noise: float
    taste_sd: float
    near_tie: float
    counts: Mapping[str, int]
    countries: tuple[str, ...]
    ages: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Person:
    """A simulated person; ``stream`` names the random numbers that nobody else draws from."""

    id: str
    group: Group
    seen: bool
    country: str
    age: str
    variation: Weights
    stream: str


class Node:
    """A JSON value that knows where it stands, so that every complaint can say so."""

    def __init__(self, value: object, where: str) -> None:
        self.value = value
        self.where = where

    def fail(self, problem: str) -> NoReturn:
        raise DataError(f"{self.where}: {problem}")

    def fields(self) -> dict[str, Node]:
        if not isinstance(self.value, dict):
            self.fail("expected an object")
        return {str(key): Node(value, f"{self.where}: {key}") for key, value in self.value.items()}

    def get(self, key: str) -> Node:
        fields = self.fields()
        if key not in fields:
            self.fail(f"missing field {key!r}")
        return fields[key]

    def items(self) -> list[Node]:
        if not isinstance(self.value, list):
            self.fail("expected a list")
        return [Node(value, f"{self.where}[{index}]") for index, value in enumerate(self.value)]

    def names(self) -> tuple[str, ...]:
        names = tuple(item.text() for item in self.items())
        if len(set(names)) != len(names):
            self.fail("a name occurs twice")
        return names

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail("expected a non-empty string")
        return self.value

    def number(self, low: float, high: float) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            self.fail("expected a number")
        if not low <= self.value <= high:
            self.fail(f"{self.value} is not within {low:g} to {high:g}")
        return float(self.value)

    def count(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 0:
            self.fail("expected a whole number, 0 or more")
        return self.value

    def only(self, *known: str) -> Node:
        for key in self.fields():
            if key not in known:
                self.fail(f"unknown field {key!r} (known: {', '.join(known)})")
        return self


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def parse_json(text: str, where: str) -> Node:
    try:
        return Node(json.loads(text), where)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None


def parse_weights(node: Node, axes: Sequence[str], limit: float) -> Weights:
    """Axis weights with every axis present, because an axis left out means 0."""
    given = node.fields()
    for axis, value in given.items():
        if axis not in axes:
            value.fail(f"unknown axis (known: {', '.join(axes)})")
    return {axis: given[axis].number(-limit, limit) if axis in given else 0.0 for axis in axes}


def parse_shares(node: Node, values: Sequence[str]) -> tuple[float, ...]:
    shares = tuple(item.number(0.0, 1.0) for item in node.items())
    if len(shares) != len(values) or abs(sum(shares) - 1.0) > 1e-6:
        node.fail(f"expected {len(values)} shares that sum to 1")
    return shares


def parse_group(node: Node, axes: Sequence[str], countries: Sequence[str], ages: Sequence[str]) -> Group:
    node.only("name", "about", "seen", "unseen", "taste", "topic_taste", "country", "age")
    taste = parse_weights(node.get("taste"), axes, WEIGHT_LIMIT)
    overrides = {}
    for topic, override in node.get("topic_taste").fields().items():
        changed = parse_weights(override, axes, WEIGHT_LIMIT)
        overrides[topic] = {axis: changed[axis] if axis in override.fields() else taste[axis] for axis in axes}
    return Group(
        name=node.get("name").text(),
        seen=node.get("seen").count(),
        unseen=node.get("unseen").count(),
        taste=taste,
        topic_taste=overrides,
        country=parse_shares(node.get("country"), countries),
        age=parse_shares(node.get("age"), ages),
    )


def load_population(path: Path) -> Population:
    root = parse_json(read_text(path), path.name)
    root.only("seed", "axes", "choice", "comparisons", "countries", "ages", "groups")
    axes, countries, ages = (root.get(key).names() for key in ("axes", "countries", "ages"))
    choice = root.get("choice").only("sharpness", "label_noise", "taste_sd", "near_tie")
    counts = root.get("comparisons").only("train", "context", "query")
    groups = tuple(parse_group(node, axes, countries, ages) for node in root.get("groups").items())
    if len({group.name for group in groups}) != len(groups):
        root.get("groups").fail("two groups have the same name")
    return Population(
        seed=root.get("seed").count(),
        axes=axes,
        sharpness=choice.get("sharpness").number(0.0, WEIGHT_LIMIT),
        label_noise=choice.get("label_noise").number(0.0, 1.0),
        taste_sd=choice.get("taste_sd").number(0.0, WEIGHT_LIMIT),
        near_tie=choice.get("near_tie").number(0.0, WEIGHT_LIMIT),
        counts={split: counts.get(split).count() for split in ("train", "context", "query")},
        countries=countries,
        ages=ages,
        groups=groups,
    )


def parse_prompt(node: Node, axes: Sequence[str]) -> Prompt:
    node.only("id", "topic", "split", "prompt", "responses")
    responses = tuple(parse_response(item, axes) for item in node.get("responses").items())
    split = node.get("split").text()
    if split not in PROMPT_SPLITS:
        node.get("split").fail(f"{split!r} is none of {', '.join(PROMPT_SPLITS)}")
    if len(responses) < MIN_RESPONSES:
        node.fail(f"needs {MIN_RESPONSES} or more responses")
    if len({response.id for response in responses}) != len(responses):
        node.fail("two responses have the same id")
    if len({response.text for response in responses}) != len(responses):
        node.fail("two responses have the same text")
    return Prompt(node.get("id").text(), node.get("topic").text(), split, node.get("prompt").text(), responses)


def parse_response(node: Node, axes: Sequence[str]) -> Response:
    node.only("id", "text", "axes")
    return Response(node.get("id").text(), node.get("text").text(), parse_weights(node.get("axes"), axes, AXIS_LIMIT))


def load_prompts(path: Path, axes: Sequence[str]) -> list[Prompt]:
    prompts: list[Prompt] = []
    lines: dict[str, int] = {}
    # Not splitlines(): a U+2028 inside a text is no end of a JSON line.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name}: line {number}"
        prompt = parse_prompt(parse_json(line, where), axes)
        if prompt.id in lines:
            raise DataError(f"{where}: id {prompt.id!r} was already used on line {lines[prompt.id]}")
        lines[prompt.id] = number
        prompts.append(prompt)
    check_topics(prompts, lines, path)
    return prompts


def check_topics(prompts: Sequence[Prompt], lines: Mapping[str, int], path: Path) -> None:
    """A topic that only queries have could not be learnt by anybody, so the test would be unfair."""
    trained = {prompt.topic for prompt in prompts if prompt.split == "train"}
    for prompt in prompts:
        if prompt.topic not in trained:
            raise DataError(f"{path.name}: line {lines[prompt.id]}: no train prompt has the topic {prompt.topic!r}")


def check_override_topics(population: Population, prompts: Sequence[Prompt], path: Path) -> None:
    """A misspelt topic would silently turn an override off."""
    topics = {prompt.topic for prompt in prompts}
    for group in population.groups:
        for topic in group.topic_taste:
            if topic not in topics:
                raise DataError(f"{path.name}: group {group.name!r}: no prompt has the topic {topic!r}")


def bell(rng: Random) -> float:
    """Standard normal to a good approximation; sums only, so it is exact on every platform."""
    total = 0.0
    for _ in range(12):
        total += rng.random()
    return total - 6.0


def pick(rng: Random, values: Sequence[str], shares: Sequence[float]) -> str:
    draw = rng.random()
    for value, share in zip(values, shares, strict=True):
        draw -= share
        if round(draw, DECIMALS) < 0.0:
            return value
    return values[-1]


def shuffled(rng: Random, items: Sequence[T]) -> list[T]:
    """Fisher-Yates by hand: how ``Random.shuffle`` draws may differ between Python versions."""
    result = list(items)
    for last in range(len(result) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        result[last], result[other] = result[other], result[last]
    return result


def make_people(population: Population, seed: int) -> Iterator[Person]:
    number = 0
    for group in population.groups:
        for index in range(group.seen + group.unseen):
            number += 1
            stream = f"{seed}/{group.name}/{index}"
            traits = Random(f"{stream}/traits")
            yield Person(
                id=f"sim-{number:04d}",
                group=group,
                seen=index < group.seen,
                country=pick(traits, population.countries, group.country),
                age=pick(traits, population.ages, group.age),
                variation={axis: population.taste_sd * bell(traits) for axis in population.axes},
                stream=stream,
            )


def advantage(person: Person, pair: Pair) -> float:
    """How much more the person likes the first response than the second."""
    taste = person.group.topic_taste.get(pair.prompt.topic, person.group.taste)
    total = 0.0
    for axis, weight in taste.items():
        total += (weight + person.variation[axis]) * (pair.first.axes[axis] - pair.second.axes[axis])
    return round(total, DECIMALS)


def prefers_first(population: Population, gain: float, rng: Random) -> bool:
    """A Bradley-Terry choice, then a label noise that has nothing to do with how close the choice was."""
    chance = round(0.5 * (1.0 + math.tanh(0.5 * population.sharpness * gain)), DECIMALS)
    choice = rng.random() < chance
    slip = rng.random() < population.label_noise
    return choice != slip


def judge(population: Population, person: Person, split: str, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, bool]]:
    """The person's comparisons of one split. Queries are clean: what the person really likes better, no near ties."""
    rng = Random(f"{person.stream}/{split}")
    wanted = population.counts[split]
    for pair in shuffled(rng, pairs):
        if wanted == 0:
            return
        gain = advantage(person, pair)
        if split != "query":
            yield pair, prefers_first(population, gain, rng)
        elif abs(gain) >= population.near_tie:
            yield pair, gain > 0.0
        else:
            continue
        wanted -= 1
    if wanted:
        raise DataError(f"{person.id}: {wanted} pairs too few for the split {split!r}; write more prompts")


def to_line(person: Person, split: str, pair: Pair, first_wins: bool) -> str:
    chosen, rejected = (pair.first, pair.second) if first_wins else (pair.second, pair.first)
    row = {
        "user_id": person.id,
        "attributes": {"country": person.country, "age": person.age, "group": person.group.name},
        "split": split,
        "prompt": pair.prompt.text,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "tags": [f"topic:{pair.prompt.topic}"],
        "id": f"{person.id}-{pair.prompt.id}-{pair.first.id}{pair.second.id}",
    }
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def generate(population: Population, prompts: Sequence[Prompt], seed: int) -> Iterator[str]:
    pairs = {
        split: [Pair(p, a, b) for p in prompts if p.split == split for a, b in combinations(p.responses, 2)]
        for split in PROMPT_SPLITS
    }
    for person in make_people(population, seed):
        for split in ("train",) if person.seen else ("context", "query"):
            source = pairs["query" if split == "query" else "train"]
            for pair, first_wins in judge(population, person, split, source):
                yield to_line(person, split, pair, first_wins)


def write_atomically(path: Path, content: bytes) -> None:
    """Nobody ever sees half a file: it is written beside the target and renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as raw:
            # No time and no name in the header, so that equal lines give equal bytes.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                packed.write(content)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class OneLineParser(argparse.ArgumentParser):
    """argparse, without the usage text in front of every error: a log needs the one line that matters."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(description="Generate the sample comparisons of simulated people.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl.gz", help="file to write")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of the inputs")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the seed in people.json")
    options = parser.parse_args(arguments)
    if not options.out.name.endswith(".jsonl.gz"):
        parser.error(f"--out must end in .jsonl.gz, not {options.out.name!r}")
    if options.seed is not None and options.seed < 0:
        parser.error("--seed must be 0 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        population = load_population(options.data / "people.json")
        prompts = load_prompts(options.data / "prompts.jsonl", population.axes)
        check_override_topics(population, prompts, options.data / "people.json")
        seed = population.seed if options.seed is None else options.seed
        lines = list(generate(population, prompts, seed))
        content = "".join(lines).encode("utf-8")
        write_atomically(options.out, content)
    except DataError as error:
        print(f"generate_sample: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"generate_sample: cannot write {options.out}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(lines)} comparisons, sha256 of the lines {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
