"""Accuracy, as the contract describes it; how a request is made and an answer read."""

from __future__ import annotations

import asyncio
import json

import pytest
from faults import BASE, Script, ok

from polyreward import AsyncClient, Client
from polyreward.types import LabelledComparison

FIGURES = {
    "users": 310,
    "n": 4100,
    "accuracy": 0.861,
    "accuracy_ci": [0.846, 0.875],
    "user_accuracy": 0.858,
    "user_accuracy_ci": [0.84, 0.87],
    "log_loss": 0.34,
    "ece": 0.021,
    "ece_ci": None,
    "population_accuracy": 0.731,
    "gain": 0.130,
    "gain_ci": [0.11, 0.15],
    "bt_accuracy": 0.725,
    "reliability": [
        {"from": 0.5, "to": 0.6, "n": 410, "confidence": 0.55, "accuracy": 0.56, "accuracy_ci": [0.5, 0.6]}
    ],
}
MEASURED = {
    "model": "pal-a@3f9c",
    "group_by": ["country"],
    "from": None,
    "to": None,
    "min_n": 5,
    "suppressed_groups": 2,
}
ACCURACY = {
    **MEASURED,
    "overall": FIGURES,
    "groups": [{"group": {"country": "UK"}, **FIGURES, "users": 41}, {"group": {"country": None}, **FIGURES}],
    "worst_group": {"group": {"country": "UK"}, "accuracy": 0.84, "accuracy_ci": [0.81, 0.87]},
    "gap": {
        "value": 0.06,
        "ci": [0.01, 0.10],
        "p_value": 0.02,
        "best": {"group": {"country": None}},
        "worst": {"group": {"country": "UK"}},
    },
    "disagreement": {
        "alpha": 0.22,
        "alpha_ci": [0.18, 0.27],
        "within_groups": 0.41,
        "within_groups_ci": [0.3, 0.5],
        "between_groups": None,
        "between_groups_ci": None,
        "pairs": 30,
        "judgements": 400,
        "detail": None,
    },
}
NOBODY: dict[str, object] = {**ACCURACY, "overall": None, "groups": [], "worst_group": None, "gap": None}
POINT = {
    "users": 30,
    "n": 90,
    "accuracy": 0.8,
    "accuracy_ci": None,
    "log_loss": 0.4,
    "population_accuracy": 0.7,
    "gain": 0.1,
    "gain_ci": [0.0, 0.2],
    "bt_accuracy": None,
}
SHOTS_POINT = {**POINT, "shots": {"from": 8, "to": None}}
SHOTS = {**MEASURED, "overall": [SHOTS_POINT], "groups": [{"group": {"country": "UK"}, "points": [SHOTS_POINT]}]}
STEP_POINT = {**POINT, "start": "2026-11-23T00:00:00Z"}
TIMELINE = {
    **MEASURED,
    "step": "week",
    "versions": [{"model": "pal-a@3f9c", "first": "2026-11-23T08:00:00Z"}],
    "overall": [STEP_POINT],
    "groups": [{"group": {"country": "UK"}, "points": [STEP_POINT]}],
}


def test_accuracy_is_by_group() -> None:
    script = Script([ok(ACCURACY), ok(NOBODY)])
    with Client(BASE, transport=script.transport) as client:
        found = client.accuracy(
            ["country", "age"], model="pal-a", since="2026-01-01T00:00:00Z", until="2026-02-01T00:00:00Z", min_n=10
        )
        nobody = client.accuracy()
    assert dict(script.requests[0].url.params) == {
        "group_by": "country,age",
        "model": "pal-a",
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-02-01T00:00:00Z",
        "min_n": "10",
    }
    assert found.overall is not None
    assert found.overall.gain == 0.130
    assert [(group.group["country"], group.users) for group in found.groups] == [("UK", 41), (None, 310)]
    assert found.worst_group is not None
    assert found.worst_group.accuracy_ci == [0.81, 0.87]
    assert found.gap is not None
    assert found.gap.ci == [0.01, 0.10]
    assert found.gap.worst.group == found.worst_group.group
    assert found.overall.reliability[0].low == 0.5
    assert found.disagreement is not None
    assert found.disagreement.within_groups == 0.41
    assert found.suppressed_groups == 2
    assert str(script.requests[1].url) == f"{BASE}/accuracy"
    assert nobody.overall is None


def test_accuracy_is_against_examples_and_time() -> None:
    script = Script([ok(SHOTS), ok(TIMELINE)])
    with Client(BASE, transport=script.transport) as client:
        shots = client.accuracy_shots("country")
        timeline = client.accuracy_timeline("country", step="week")
    assert [(point.shots.least, point.shots.most, point.gain) for point in shots.overall] == [(8, None, 0.1)]
    assert shots.groups[0].group == {"country": "UK"}
    assert timeline.groups[0].points[0].start == timeline.overall[0].start == "2026-11-23T00:00:00Z"
    assert timeline.versions[0].model == timeline.model
    assert [request.url.path for request in script.requests] == ["/accuracy/shots", "/accuracy/timeline"]
    assert script.requests[1].url.params["step"] == "week"


@pytest.mark.parametrize("group_by", ["country", ["country"]])
def test_comparisons_can_be_evaluated(group_by: str | list[str]) -> None:
    script = Script([ok(ACCURACY)])

    async def ask() -> str:
        async with AsyncClient(BASE, transport=script.transport) as client:
            comparison: LabelledComparison = {"user_id": "ada", "prompt": "p", "chosen": "c", "rejected": "r"}
            return (await client.evaluate([comparison], group_by=group_by, model="pal-a")).model

    assert asyncio.run(ask()) == "pal-a@3f9c"
    assert script.requests[0].url.path == "/evaluate"
    assert json.loads(script.requests[0].content) == {
        "comparisons": [{"user_id": "ada", "prompt": "p", "chosen": "c", "rejected": "r"}],
        "group_by": ["country"],
        "model": "pal-a",
    }
