"""What is sent: plain dictionaries, whose keys a type checker knows."""

from collections.abc import Mapping, Sequence
from typing import Literal

from typing_extensions import NotRequired, TypedDict

__all__ = [
    "Aggregate",
    "Attributes",
    "Audience",
    "Example",
    "Item",
    "LabelledComparison",
    "Message",
    "OnOverflow",
    "Pair",
    "Prompt",
    "RewardScale",
    "Step",
    "WeightedGroup",
]

Attributes = Mapping[str, str]
"""What is known of a person, as `{"country": "UK"}`."""

Aggregate = Literal["mean", "min", "p20", "share", "softmin", "nash", "maxmin"]
"""How the rewards of an audience become one; the last three on the `win_rate` scale alone.

`maxmin` is of `groups`: the reward of the one group that is worst off over the whole call, which is never divided."""

OnOverflow = Literal["truncate", "error"]
"""What becomes of a text longer than the backbone's window."""

RewardScale = Literal["raw", "standard", "win_rate"]
"""The scale of rewards: logits, standard deviations over the training responses, or a share in [0, 1]."""

Step = Literal["hour", "day", "week"]
"""A step of time, in UTC; a week begins on Monday."""


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


Prompt = str | Sequence[Message]
"""A text, possibly empty, or the turns of a chat."""


class Pair(TypedDict):
    """Two responses to one prompt."""

    prompt: Prompt
    response_a: str
    response_b: str


class Item(TypedDict):
    """One or more responses to one prompt."""

    prompt: Prompt
    responses: Sequence[str]


class Example(TypedDict):
    """One observed preference."""

    prompt: Prompt
    chosen: str
    rejected: str
    strength: NotRequired[float | None]
    label_confidence: NotRequired[float | None]
    rationale: NotRequired[str | None]
    id: NotRequired[str | None]


class WeightedGroup(TypedDict):
    """A group that counts by a weight, 1 by default, however many its members are."""

    group: Attributes
    weight: NotRequired[float | None]


class Audience(TypedDict, total=False):
    """A group, whose members count once each, or groups, each of which is one voice; and what their rewards become."""

    group: Attributes | None
    groups: Sequence[WeightedGroup] | None
    aggregate: Sequence[Aggregate] | None
    #: Of `softmin`.
    temperature: float | None
    #: Of `nash`: the win rate that everybody has without an agreement.
    disagreement: float | None


class LabelledComparison(TypedDict):
    """One observed preference to measure with, as files of comparisons hold it; what may be left out has no effect."""

    user_id: str
    attributes: NotRequired[Attributes | None]
    prompt: Prompt
    chosen: str
    rejected: str
    strength: NotRequired[float | None]
    label_confidence: NotRequired[float | None]
    rationale: NotRequired[str | None]
    id: NotRequired[str | None]
    created_at: NotRequired[str | None]
