"""Whose reward a row asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyreward.types import Aggregate, Audience

_USER_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")


@dataclass(frozen=True)
class Whose:
    """A person, a group, or, with neither, the population. Equal ones can share a request."""

    user_id: str | None = None
    group: tuple[tuple[str, str], ...] | None = None

    def audience(self, aggregate: Sequence[Aggregate]) -> Audience | None:
        """The group as the server takes it."""
        return None if self.group is None else {"group": dict(self.group), "aggregate": list(aggregate)}


def whose(user: Any, group: Any) -> Whose:
    """Of what a row says: an id, or attributes (`{"country": "UK"}`, `"country:UK"` or `"country=UK"`), or nothing.

    Raises:
        ValueError: it names both, or cannot be read.
    """
    # A data set's table has a value in every row: an empty one says nothing.
    user = None if user in (None, "") else user
    group = None if group in (None, "", {}) else group
    if user is not None and group is not None:
        raise ValueError("a row names a user and a group; it can ask for the reward of one of them")
    if user is not None:
        return Whose(user_id=_user_id(user))
    return Whose(group=None if group is None else _attributes(group))


def _user_id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _USER_ID.fullmatch(value):
        raise ValueError("a user id is 1 to 128 characters of A-Z a-z 0-9 . _ ~ -")
    return value


def _attributes(value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        match = re.fullmatch(r"([^:=]+)[:=](.*)", value, re.DOTALL)
        if match is None:
            raise ValueError('a group is {"key": "value"} or "key:value"')
        return ((match[1], match[2]),)
    if not isinstance(value, Mapping):
        raise ValueError('a group is {"key": "value"} or "key:value"')
    # Arrow gives every row of a column all the keys, with None where a row has none.
    given = {key: text for key, text in value.items() if text is not None}
    if not given or not all(isinstance(key, str) and isinstance(text, str) for key, text in given.items()):
        raise ValueError("a group's keys and values are texts")
    return tuple(sorted(given.items()))


def whose_of_row(row: Mapping[str, Any], user_key: str | None, group_key: str | None) -> Whose:
    """Of one row of a data set.

    Raises:
        ValueError: the row has none of the keys: it would silently get the population's reward.
    """
    keys = [key for key in (user_key, group_key) if key is not None]
    if keys and not any(key in row for key in keys):
        expected = " or ".join(repr(key) for key in keys)
        raise ValueError(
            f"a row says nothing of {expected}: give it one (None asks for the population's reward), or set the names "
            "of both to None"
        )
    return whose(row.get(user_key) if user_key else None, row.get(group_key) if group_key else None)


def whose_of_label(label: Any) -> Whose:
    """Of a label: an id, `{"user_id": ...}` or `{"group": {...}}`, also as JSON text; nothing for the population.

    Raises:
        ValueError: it cannot be read as one of these.
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError:
            raise ValueError("a label begins as a JSON object and is none") from None
    if isinstance(label, Mapping):
        unknown = set(label) - {"user_id", "group"}
        if unknown:
            raise ValueError(f"a label has {', '.join(sorted(map(repr, unknown)))}; it can have user_id or group")
        return whose(label.get("user_id"), label.get("group"))
    return whose(label, None)
