"""A reward file for OpenRLHF: give its path as `--reward.remote_url`.

    python -c "import polyreward.integrations.openrlhf as file; print(file.__file__)"

It is set up by the environment: `POLYREWARD_URL`, `POLYREWARD_API_KEY`, `POLYREWARD_MODEL`, and `POLYREWARD_LABELS`:
`user_id` (the default: `--data.label_key` names a column of user ids, or of `{"user_id": ...}` and `{"group": {...}}`)
or `ignore`. For anything else write a file of two lines around `openrlhf_reward`.

OpenRLHF gives texts as its tokenizer decoded them, special tokens included; they are scored as they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast

from polyreward._client import Client
from polyreward.integrations._failures import Failures
from polyreward.integrations._rewards import OnError, Reward, Rewarder, Row, Rules, shared_client
from polyreward.integrations._whose import Whose, whose_of_label
from polyreward.types import Aggregate, OnOverflow

Labels = Literal["user_id", "ignore"]


class OpenRlhfReward(Protocol):
    """What `openrlhf_reward` gives."""

    #: What went wrong, and how many rewards are not the server's.
    failures: Failures

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]: ...


def openrlhf_reward(
    base_url: str | None = None,
    *,
    model: str | None = None,
    labels: Labels = "user_id",
    scores: Literal["win_rate", "raw"] = "win_rate",
    aggregate: Aggregate = "mean",
    on_overflow: OnOverflow = "truncate",
    on_error: OnError = "raise",
    api_key: str | None = None,
    client: Client | None = None,
) -> OpenRlhfReward:
    """A `reward_func`: `rewards` (raw) for the advantage, `scores` (from 0 to 1) for dynamic filtering.

    `extra_logs` has the same numbers in every answer: `known`, `truncated`, `substituted`, and `whole_text` where the
    query does not begin with the prompt, so that all of it was scored as a response.
    """
    if labels not in ("user_id", "ignore"):
        raise ValueError('labels is "user_id" or "ignore"')
    if on_error == "none":
        raise ValueError('OpenRLHF stacks numbers: on_error is "raise" or a number')
    labels_are_people = labels == "user_id"
    failures = Failures()
    raw = Rewarder("openrlhf", Rules(model, "raw", on_overflow, (aggregate,), on_error), failures)
    share = Rewarder("openrlhf", Rules(model, "win_rate", on_overflow, (aggregate,), on_error), failures)

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        if not len(queries) == len(prompts) == len(labels):
            raise ValueError(f"{len(queries)} queries with {len(prompts)} prompts and {len(labels)} labels")
        asked = client or shared_client(base_url, api_key)
        rows = [
            Row(whose_of_label(label) if labels_are_people else Whose(), {"prompt": prompt, "responses": [response]})
            for (prompt, response), label in zip(map(_divided, queries, prompts), labels)
        ]
        rewards = raw.ask(asked, rows)
        of_filter = share.ask(asked, rows) if scores == "win_rate" else rewards
        whole = [float(bool(prompt) and not row.item["prompt"]) for prompt, row in zip(prompts, rows)]
        return _tensors(rewards, of_filter, whole)

    made = cast(OpenRlhfReward, reward_func)
    made.failures = failures
    return made


def _divided(query: str, prompt: str) -> tuple[str, str]:
    """Prompt and response; the whole text as a response where decoding has changed the prompt."""
    return (prompt, query[len(prompt) :]) if query.startswith(prompt) else ("", query)


def _tensors(rewards: list[Reward], scores: list[Reward], whole: list[float]) -> dict[str, Any]:
    import torch  # OpenRLHF's own

    logs = {
        "known": [float(reward.known) for reward in rewards],
        "truncated": [float(reward.truncated) for reward in rewards],
        "substituted": [float(reward.substituted) for reward in rewards],
        "whole_text": whole,
    }
    return {
        "rewards": torch.tensor([reward.value for reward in rewards]),
        "scores": torch.tensor([reward.value for reward in scores]),
        "extra_logs": {name: torch.tensor(values) for name, values in logs.items()},
    }


def _of_environment() -> OpenRlhfReward:
    labels = cast(Labels, os.environ.get("POLYREWARD_LABELS") or "user_id")
    return openrlhf_reward(model=os.environ.get("POLYREWARD_MODEL") or None, labels=labels)


reward_func = _of_environment()
"""What OpenRLHF calls."""
