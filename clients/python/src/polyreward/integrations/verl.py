"""Reward functions for verl: `custom_reward_function.path` is this file, `.name` one of the functions below.

Constants of `.reward_kwargs` reach every call: `base_url`, `model`, `on_error` and the others below. verl gives the
response alone; put the prompt into `extra_info["prompt"]` (or `["question"]`) and the person into
`extra_info["user_id"]`, or a group into `extra_info["group"]`, when building the data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyreward.integrations._chat import item_of
from polyreward.integrations._failures import Failures
from polyreward.integrations._rewards import (
    OnError,
    Reward,
    Rewarder,
    Row,
    Rules,
    shared_async_client,
    shared_client,
)
from polyreward.integrations._whose import whose_of_row
from polyreward.types import Aggregate, OnOverflow, RewardScale

#: What went wrong in this process, whichever function was called. verl's rate-limited manager turns an exception into a
#: reward of 0.0 without a word; here it can be seen.
failures = Failures()


def compute_score(
    data_source: Any = None,
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    user_key: str | None = "user_id",
    group_key: str | None = "group",
    aggregate: Aggregate = "mean",
    reward_scale: RewardScale = "raw",
    on_overflow: OnOverflow = "truncate",
    on_error: OnError = "raise",
    **others: Any,
) -> dict[str, float]:
    """The reward of one response: `score`, and `known`, `truncated` and `substituted` as 0 or 1, always all four."""
    rewarder = _rewarder(model, reward_scale, on_overflow, aggregate, on_error)
    row = _row(solution_str, extra_info, user_key, group_key)
    return _scores(rewarder.ask(shared_client(base_url, api_key), [row]))[0]


async def compute_score_async(
    data_source: Any = None,
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    user_key: str | None = "user_id",
    group_key: str | None = "group",
    aggregate: Aggregate = "mean",
    reward_scale: RewardScale = "raw",
    on_overflow: OnOverflow = "truncate",
    on_error: OnError = "raise",
    **others: Any,
) -> dict[str, float]:
    """The same, awaited."""
    rewarder = _rewarder(model, reward_scale, on_overflow, aggregate, on_error)
    row = _row(solution_str, extra_info, user_key, group_key)
    return _scores(await rewarder.ask_async(shared_async_client(base_url, api_key), [row]))[0]


def compute_score_batch(
    data_sources: Sequence[Any],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    user_key: str | None = "user_id",
    group_key: str | None = "group",
    aggregate: Aggregate = "mean",
    reward_scale: RewardScale = "raw",
    on_overflow: OnOverflow = "truncate",
    on_error: OnError = "raise",
    **others: Any,
) -> list[dict[str, float]]:
    """The same for the batch manager, which gives many responses at once."""
    if len(solution_strs) != len(extra_infos):
        raise ValueError(f"{len(solution_strs)} responses with {len(extra_infos)} extra_infos")
    rewarder = _rewarder(model, reward_scale, on_overflow, aggregate, on_error)
    rows = [_row(response, extra, user_key, group_key) for response, extra in zip(solution_strs, extra_infos)]
    return _scores(rewarder.ask(shared_client(base_url, api_key), rows))


verl_compute_score = compute_score
verl_compute_score_async = compute_score_async


def _rewarder(
    model: str | None, reward_scale: RewardScale, on_overflow: OnOverflow, aggregate: Aggregate, on_error: OnError
) -> Rewarder:
    if on_error == "none":
        raise ValueError('verl stacks numbers: on_error is "raise" or a number')
    return Rewarder("verl", Rules(model, reward_scale, on_overflow, (aggregate,), on_error), failures)


def _row(response: str, extra_info: Mapping[str, Any] | None, user_key: str | None, group_key: str | None) -> Row:
    extra = extra_info or {}
    prompt = next((extra[key] for key in ("prompt", "question") if extra.get(key) is not None), None)
    if prompt is None:
        raise ValueError('extra_info has no "prompt" (nor "question"); put it there when building the data set')
    return Row(whose_of_row(extra, user_key, group_key), item_of(prompt, response))


def _scores(rewards: Sequence[Reward]) -> list[dict[str, float]]:
    return [
        {
            "score": _number(reward),
            "known": float(reward.known),
            "truncated": float(reward.truncated),
            "substituted": float(reward.substituted),
        }
        for reward in rewards
    ]


def _number(reward: Reward) -> float:
    assert reward.value is not None, "on_error is not none, which _rewarder has checked"
    return reward.value
