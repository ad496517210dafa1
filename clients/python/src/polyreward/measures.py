"""What the server answers about its own accuracy."""

from __future__ import annotations

from typing import Any

from polyreward.models import Reply

Interval = list[float]
"""A 95 % interval over people: its two ends."""


class Figures(Reply):
    """How a model did on predictions that it made before it learned from them."""

    users: int
    n: int
    accuracy: float
    accuracy_ci: Interval | None = None
    user_accuracy: float | None = None
    log_loss: float | None = None
    ece: float | None = None
    population_accuracy: float | None = None
    gain: float | None = None
    gain_ci: Interval | None = None
    bt_accuracy: float | None = None


class GroupFigures(Figures):
    """The same of one group; None is the group of people of whom the attribute is not known."""

    group: dict[str, str | None]


class WorstGroup(Reply):
    """The group with the lowest accuracy."""

    group: dict[str, str | None]
    accuracy: float
    accuracy_ci: Interval | None = None


class Gap(Reply):
    """The best group's accuracy less the worst's."""

    value: float
    ci: Interval | None = None


class Disagreement(Reply):
    """Krippendorff's alpha where people judged the same pair."""

    alpha: float | None = None
    alpha_ci: Interval | None = None
    within_groups: float | None = None


class Accuracy(Reply):
    """Accuracy by group. Groups of too few people are counted, not shown."""

    model: str
    group_by: list[str]
    overall: Figures | None = None
    groups: list[GroupFigures]
    worst_group: WorstGroup | None = None
    gap: Gap | None = None
    disagreement: Disagreement | None = None
    suppressed_groups: int = 0


class Curves(Reply):
    """Accuracy against the number of examples, or against time: for everybody, and by group."""

    model: str
    group_by: list[str]
    overall: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    suppressed_groups: int = 0
