"""The fenced blocks of a guide: what it tells its reader to run, and what it says comes of it."""

import re
from dataclasses import dataclass

FENCE = re.compile(r"^```(\w*)$")
NOT_RUN = re.compile(r"^<!-- not run by the tests: (.+) -->$")
# What a reader would type; in a block without a language it would be run by nobody.
COMMAND = re.compile(r"^\s*(\w+=\S+ )*(polyreward|docker|curl|pip|python3?|make|psql|git|export)\b", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int  # of its first line in the guide
    not_run: str | None  # why


def blocks_of(path):
    """Every fenced block of a file, in order."""
    found, opened, before = [], None, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is not None and line == "```":
            language, first, reason, lines = opened
            found.append(Block(language, "".join(text + "\n" for text in lines), first, reason))
            opened = None
        elif opened is not None:
            opened[3].append(line)
        elif fence:
            reason = NOT_RUN.match(before)
            opened = (fence[1], number + 1, reason[1] if reason else None, [])
        before = line
    if opened is not None:
        raise AssertionError(f"{path.name}:{opened[1]}: a block without an end")
    return found


VERSION = re.compile(r"^([a-z0-9-]+)@[0-9a-f]+$")


def difference(shown, said, place=""):
    """Where an answer is not what a guide shows, or None.

    Numbers may be others, and versions of a model; all else is as shown, to the last key.
    """
    if isinstance(shown, dict) and isinstance(said, dict):
        if shown.keys() != said.keys():
            return f"{place or '/'}: keys {sorted(said)}, shown are {sorted(shown)}"
        pairs = [(shown[key], said[key], f"{place}/{key}") for key in shown]
    elif isinstance(shown, list) and isinstance(said, list) and len(shown) == len(said):
        pairs = [(a, b, f"{place}/{at}") for at, (a, b) in enumerate(zip(shown, said))]
    else:
        return None if is_alike(shown, said) else f"{place}: {said!r}, shown is {shown!r}"
    return next(filter(None, (difference(*pair) for pair in pairs)), None)


def is_alike(shown, said):
    if is_number(shown) and is_number(said):
        return True
    if isinstance(shown, str) and isinstance(said, str):
        versions = VERSION.match(shown), VERSION.match(said)
        return shown == said or (all(versions) and versions[0][1] == versions[1][1])
    return type(shown) is type(said) and shown == said


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
