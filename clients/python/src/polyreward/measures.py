"""What the server answers about its own accuracy. Intervals are of 95 %, of draws of people."""

from __future__ import annotations

from pydantic import Field

from polyreward.models import Reply
from polyreward.types import Step

Interval = list[float]
"""Its two ends."""

GroupValues = dict[str, str | None]
"""A value of each attribute; None is of people of whom it is not known."""


class Reliability(Reply):
    """Predictions of one class of confidence: above `low`, up to `high`."""

    low: float = Field(alias="from")
    high: float = Field(alias="to")
    n: int
    confidence: float
    accuracy: float
    accuracy_ci: Interval | None


class Figures(Reply):
    """How a model did on predictions that it made before it learned from them."""

    users: int
    n: int
    accuracy: float
    accuracy_ci: Interval | None
    user_accuracy: float
    user_accuracy_ci: Interval | None
    log_loss: float
    ece: float
    ece_ci: Interval | None
    population_accuracy: float
    gain: float
    gain_ci: Interval | None
    bt_accuracy: float | None
    reliability: list[Reliability]


class GroupFigures(Figures):
    """The same of one group."""

    group: GroupValues


class WorstGroup(Reply):
    """The group with the lowest accuracy."""

    group: GroupValues
    accuracy: float
    accuracy_ci: Interval | None


class GroupOnly(Reply):
    """A group by its values."""

    group: GroupValues


class Gap(Reply):
    """The best group's accuracy less the worst's; not shown to be one where `p_value` is not small."""

    value: float
    ci: Interval | None
    p_value: float
    best: GroupOnly
    worst: GroupOnly


class Disagreement(Reply):
    """Krippendorff's alpha where people judged the same pair; None, with the `detail`, where it is not estimable."""

    alpha: float | None
    alpha_ci: Interval | None
    within_groups: float | None
    within_groups_ci: Interval | None
    between_groups: float | None
    between_groups_ci: Interval | None
    pairs: int
    judgements: int
    detail: str | None


class Measured(Reply):
    """What every answer says: of which model and groups, and of predictions from when."""

    model: str
    group_by: list[str]
    since: str | None = Field(alias="from")
    until: str | None = Field(alias="to")
    min_n: int
    #: Groups of too few people to be shown.
    suppressed_groups: int


class Accuracy(Measured):
    """Accuracy by group; None where there is no prediction, or no two groups to compare."""

    overall: Figures | None
    groups: list[GroupFigures]
    worst_group: WorstGroup | None
    gap: Gap | None
    disagreement: Disagreement


class Point(Reply):
    """How a model did at one place."""

    users: int
    n: int
    accuracy: float
    accuracy_ci: Interval | None
    log_loss: float
    population_accuracy: float
    gain: float
    gain_ci: Interval | None
    bt_accuracy: float | None


class ShotsRange(Reply):
    """Numbers of examples, from the least to the most; None where there is no most."""

    least: int = Field(alias="from")
    most: int | None = Field(alias="to")


class ShotsPoint(Point):
    """How it did on people with that many examples."""

    shots: ShotsRange


class ShotsCurve(Reply):
    """One group's accuracy against the number of examples."""

    group: GroupValues
    points: list[ShotsPoint]


class AccuracyByShots(Measured):
    """Accuracy against the number of examples that a person had: everybody's, and by group."""

    overall: list[ShotsPoint]
    groups: list[ShotsCurve]


class StepPoint(Point):
    """How it did in a step of time that began at `start`, RFC 3339."""

    start: str


class StepCurve(Reply):
    """One group's accuracy against time."""

    group: GroupValues
    points: list[StepPoint]


class MeasuredVersion(Reply):
    """A version of the model, and when it made its first prediction, RFC 3339."""

    model: str
    first: str


class AccuracyTimeline(Measured):
    """Accuracy against time: everybody's, and by group."""

    step: Step
    versions: list[MeasuredVersion]
    overall: list[StepPoint]
    groups: list[StepCurve]
