"""A reward function and an evaluator for rLLM. Needs `rllm`.

rLLM asks of an answer whether it is correct, for its metrics. A reward knows no such thing: `is_correct` is whether the
reward is above `correct_above`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polyreward.integrations._chat import item_of
from polyreward.integrations._failures import Failures
from polyreward.integrations._rewards import Reward, Rewarder, Row, shared_client
from polyreward.integrations._settings import Settings, mapping
from polyreward.integrations._whose import whose_of_row


class _Rllm:
    def __init__(self, base_url: str | None = None, *, correct_above: float = 0.0, **settings: Any) -> None:
        self._settings = Settings.of({"base_url": base_url, **settings}, numbers_only=True)
        self._rewarder = Rewarder("rllm", self._settings.rules)
        self._correct_above = correct_above

    @property
    def failures(self) -> Failures:
        """What went wrong, and how many rewards are not the server's."""
        return self._rewarder.failures

    def _ask(self, task: Mapping[str, Any], answer: str) -> tuple[float, bool, dict[str, Any]]:
        prompt = next((task[key] for key in ("prompt", "question") if task.get(key) is not None), None)
        if prompt is None:
            raise ValueError('a task has no "question" (nor "prompt")')
        row = Row(
            whose_of_row({**mapping(task.get("extra_info")), **task}, *self._settings.keys), item_of(prompt, answer)
        )
        client = self._settings.client or shared_client(self._settings.base_url, self._settings.api_key)
        return self._answer(self._rewarder.ask(client, [row])[0])

    def _answer(self, reward: Reward) -> tuple[float, bool, dict[str, Any]]:
        assert reward.value is not None, "on_error is not none, which Settings has checked"
        metadata = {"known": reward.known, "truncated": reward.truncated, "substituted": reward.substituted}
        return reward.value, reward.value > self._correct_above, metadata


class RllmReward(_Rllm):
    """`fn(task_info, action) -> RewardOutput`. The task has the question as `question` or `prompt`, and the person.

    Args:
        base_url: Where the server is; by default `POLYREWARD_URL`.
        correct_above: See above.
        settings: The other fields of `Settings`.
    """

    def __call__(self, task_info: Mapping[str, Any], action: Any) -> Any:
        """The reward of an answer."""
        from rllm.rewards.reward_types import RewardOutput

        answer = action if isinstance(action, str) else str(getattr(action, "action", action))
        reward, is_correct, metadata = self._ask(task_info, answer)
        return RewardOutput(reward=reward, metadata=metadata, is_correct=is_correct)


class RllmEvaluator(_Rllm):
    """`evaluate(task, episode) -> EvalOutput`: the reward of an episode's answer, or of its last output."""

    def evaluate(self, task: Any, episode: Any) -> Any:
        """The reward of an episode."""
        from rllm.eval.types import EvalOutput, Signal

        row = task if isinstance(task, Mapping) else mapping(getattr(task, "data", None))
        reward, is_correct, metadata = self._ask(row, _answer_of(episode))
        signals = [Signal(name="reward", value=reward)]
        return EvalOutput(reward=reward, is_correct=is_correct, signals=signals, metadata=metadata)


def _answer_of(episode: Any) -> str:
    artifacts = mapping(getattr(episode, "artifacts", None))
    if "answer" in artifacts:
        return str(artifacts["answer"])
    trajectories = getattr(episode, "trajectories", None) or []
    for holder in [*trajectories[-1:], *((trajectories[-1].steps or [])[-1:] if trajectories else [])]:
        if holder.output:
            return str(holder.output)
    raise ValueError("an episode has no answer and no output")
