"""A reward function for TRL's trainers (GRPO, RLOO, asynchronous GRPO, online DPO).

TRL calls it with keyword arguments: `prompts`, `completions`, every other column of the data set as a list, and things
that no server needs. It is a real `async def`, so TRL awaits it on its background loop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from polyreward._async_client import AsyncClient
from polyreward.integrations._chat import item_of
from polyreward.integrations._failures import Failures
from polyreward.integrations._rewards import OnError, Rewarder, Row, Rules
from polyreward.integrations._whose import whose_of_row
from polyreward.types import Aggregate, OnOverflow, RewardScale


class TrlReward(Protocol):
    """What `trl_reward` gives: a function with a name and a count of its failures."""

    __name__: str
    #: What went wrong, and how many rewards are not the server's.
    failures: Failures

    async def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]: ...


def trl_reward(
    base_url: str | None = None,
    *,
    model: str | None = None,
    user_column: str | None = "user_id",
    group_column: str | None = None,
    aggregate: Aggregate = "mean",
    reward_scale: RewardScale = "raw",
    on_overflow: OnOverflow = "truncate",
    on_error: OnError = "raise",
    name: str | None = None,
    api_key: str | None = None,
    client: AsyncClient | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> TrlReward:
    """A function for `reward_funcs` that gives each row the reward of the person it names.

    Args:
        base_url: Where the server is; by default `POLYREWARD_URL`.
        model: The model; by default the server's.
        user_column: The column of user ids. A row where it is None has the population's reward; a data set without it
            is an error, as everybody's rewards would silently be the same. None: no column names a user.
        group_column: The column of groups, as `{"country": "UK"}` or `"country:UK"`.
        aggregate: What stands for a group.
        reward_scale: The scale of the rewards.
        on_overflow: What becomes of texts longer than the backbone's window.
        on_error: `"raise"` ends the training; `"none"` leaves the row out of the sum of rewards; a number takes its
            place. Only load, outages and single texts are replaced; they are counted in `failures` and warned of.
        name: The name in TRL's logs; by default made of the model. Two functions of one trainer need two names.
        api_key: The key; by default `POLYREWARD_API_KEY`.
        client: In place of one made of `base_url` and `api_key`.
        clock: Seconds, for the latency in the metrics.
    """
    rules = Rules(model, reward_scale, on_overflow, (aggregate,), on_error)
    label = name or re.sub(r"\W+", "_", f"polyreward_{model}" if model else "polyreward")
    rewarder = Rewarder(label, rules)
    asked = client or AsyncClient(base_url, api_key)

    async def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = _rows(prompts, completions, columns, user_column, group_column)
        started = clock()
        rewards = await rewarder.ask_async(asked, rows)
        log_metric = columns.get("log_metric")
        if callable(log_metric):
            log_metric("reward_server/latency_ms", (clock() - started) * 1000.0)
            if rules.substitutes:
                log_metric("reward_server/substituted", float(sum(row.substituted for row in rewards)))
        return [row.value for row in rewards]

    reward.__name__ = reward.__qualname__ = label
    made = cast(TrlReward, reward)
    made.failures = rewarder.failures
    return made


def _rows(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    user_column: str | None,
    group_column: str | None,
) -> list[Row]:
    if len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts with {len(completions)} completions")
    named = {name: columns[name] for name in (user_column, group_column) if name is not None and name in columns}
    for name, values in named.items():
        if len(values) != len(prompts):
            raise ValueError(f"the column {name!r} has {len(values)} values for {len(prompts)} prompts")
    return [
        Row(
            whose_of_row({name: values[at] for name, values in named.items()}, user_column, group_column),
            item_of(prompt, completion),
        )
        for at, (prompt, completion) in enumerate(zip(prompts, completions))
    ]
