"""Reward functions for the rubrics of `verifiers` (and prime-rl).

A rubric turns an exception of a reward function into 0.0 and a line in its log. These functions raise, as the others
do; `failures.raised` says how often, so look at it, and do not train on where it grows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from polyreward._async_client import AsyncClient
from polyreward.integrations._chat import item_of
from polyreward.integrations._failures import Failures
from polyreward.integrations._rewards import OnError, Reward, Rewarder, Row, Rules
from polyreward.integrations._settings import mapping
from polyreward.integrations._whose import whose_of_row
from polyreward.types import Aggregate, OnOverflow, RewardScale


class VerifiersReward(Protocol):
    """A reward function of one rollout."""

    __name__: str
    failures: Failures

    async def __call__(self, prompt: Any, completion: Any, info: Any = None, **fields: Any) -> float: ...


class VerifiersGroupReward(Protocol):
    """A reward function of all rollouts of a group."""

    __name__: str
    failures: Failures

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], infos: Any = None) -> list[float]: ...


class _Asked:
    """What both forms are made of."""

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        client: AsyncClient | None,
        rules: Rules,
        name: str | None,
        keys: tuple[str | None, str | None],
    ) -> None:
        if rules.on_error == "none":
            raise ValueError('a rubric adds numbers: on_error is "raise" or a number')
        model = rules.model
        self.name = name or re.sub(r"\W+", "_", f"polyreward_{model}" if model else "polyreward")
        self.rewarder = Rewarder(self.name, rules)
        self._client = client or AsyncClient(base_url, api_key)
        self._keys = keys

    async def rewards(self, prompts: Sequence[Any], completions: Sequence[Any], rows: Sequence[Any]) -> list[float]:
        if not len(prompts) == len(completions) == len(rows):
            raise ValueError(f"{len(prompts)} prompts with {len(completions)} completions and {len(rows)} rows")
        asked = [
            Row(whose_of_row(row, *self._keys), item_of(prompt, completion))
            for prompt, completion, row in zip(prompts, completions, rows)
        ]
        return [_number(reward) for reward in await self.rewarder.ask_async(self._client, asked)]


def verifiers_reward(
    base_url: str | None = None,
    *,
    model: str | None = None,
    user_key: str | None = "user_id",
    group_key: str | None = None,
    aggregate: Aggregate = "mean",
    reward_scale: RewardScale = "raw",
    on_overflow: OnOverflow = "truncate",
    on_error: OnError = "raise",
    name: str | None = None,
    api_key: str | None = None,
    client: AsyncClient | None = None,
) -> VerifiersReward:
    """A function for `Rubric(funcs=[...])`. The person is a column of the data set, or a field of its `info`."""
    rules = Rules(model, reward_scale, on_overflow, (aggregate,), on_error)
    asked = _Asked(base_url, api_key, client, rules, name, (user_key, group_key))

    async def reward(prompt: Any, completion: Any, info: Any = None, **fields: Any) -> float:
        return (await asked.rewards([prompt], [completion], [{**_info(info), **fields}]))[0]

    return cast(VerifiersReward, _named(reward, asked))


def verifiers_group_reward(
    base_url: str | None = None,
    *,
    model: str | None = None,
    user_key: str | None = "user_id",
    group_key: str | None = None,
    aggregate: Aggregate = "mean",
    reward_scale: RewardScale = "raw",
    on_overflow: OnOverflow = "truncate",
    on_error: OnError = "raise",
    name: str | None = None,
    api_key: str | None = None,
    client: AsyncClient | None = None,
) -> VerifiersGroupReward:
    """The same for all rollouts of a group in one call. The person is a field of `info`."""
    rules = Rules(model, reward_scale, on_overflow, (aggregate,), on_error)
    asked = _Asked(base_url, api_key, client, rules, name, (user_key, group_key))

    # A rubric knows a function of groups by its parameters' names.
    async def reward(prompts: Sequence[Any], completions: Sequence[Any], infos: Any = None) -> list[float]:
        rows = [{}] * len(prompts) if infos is None else [_info(info) for info in infos]
        return await asked.rewards(prompts, completions, rows)

    return cast(VerifiersGroupReward, _named(reward, asked))


def _named(function: Any, asked: _Asked) -> Any:
    function.__name__ = function.__qualname__ = asked.name
    function.failures = asked.rewarder.failures
    return function


def _info(info: Any) -> Mapping[str, Any]:
    """A row's `info`, which a data set may hold as JSON text."""
    return mapping(json.loads(info) if isinstance(info, str) and info else info)


def _number(reward: Reward) -> float:
    assert reward.value is not None, "on_error is not none, which _Asked has checked"
    return reward.value
