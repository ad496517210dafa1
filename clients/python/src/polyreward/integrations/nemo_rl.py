"""An environment of one turn for NeMo RL. Needs `nemo_rl` (and its `torch`).

Make it a Ray actor: `ray.remote(PolyrewardEnvironment).remote({"base_url": "http://127.0.0.1:8080", "model": "lore"})`.
Each sample's metadata names the person (`user_id`) or the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn

from polyreward.integrations._chat import messages_of
from polyreward.integrations._failures import Failures
from polyreward.integrations._rewards import Reward, Rewarder, Row, shared_client
from polyreward.integrations._settings import Settings, mapping
from polyreward.integrations._whose import whose_of_row


class PolyrewardEnvironment(EnvironmentInterface):
    """The rewards of the last message of each log. With several aggregates the rewards are a tensor by name."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self._settings = Settings.of(config, numbers_only=True)
        self._rewarder = Rewarder("nemo_rl", self._settings.rules)

    @property
    def failures(self) -> Failures:
        """What went wrong, and how many rewards are not the server's."""
        return self._rewarder.failures

    def step(self, message_log_batch: Sequence[Any], metadata: Sequence[Any]) -> EnvironmentReturn:
        """A reward for each conversation; every episode ends."""
        if len(message_log_batch) != len(metadata):
            raise ValueError(f"{len(message_log_batch)} message logs with {len(metadata)} metadata")
        rows = [self._row(log, data) for log, data in zip(message_log_batch, metadata)]
        client = self._settings.client or shared_client(self._settings.base_url, self._settings.api_key)
        rewards = self._rewarder.ask(client, rows)
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": f"reward: {reward.value}"} for reward in rewards],
            metadata=[None] * len(rows),
            next_stop_strings=[None] * len(rows),
            rewards=self._tensors(rewards),
            terminateds=torch.ones(len(rows), dtype=torch.bool),
            answers=[row.item["responses"][0] for row in rows],
        )

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """The batch as it is, with how many rewards so far are not the server's."""
        return batch, {"polyreward/substituted": float(self.failures.substituted)}

    def _row(self, log: Any, data: Any) -> Row:
        messages = messages_of(log)
        if not messages:
            raise ValueError("a message log is empty")
        *prompt, answer = messages
        return Row(
            whose_of_row(mapping(data), *self._settings.keys),
            {"prompt": prompt or "", "responses": [answer["content"]]},
        )

    def _tensors(self, rewards: Sequence[Reward]) -> Any:
        names = self._settings.aggregate
        if len(names) == 1:
            return torch.tensor([reward.value for reward in rewards], dtype=torch.float32)
        # A row of one person, or a substitute, has the same number under every name.
        return {
            name: torch.tensor([reward.aggregates.get(name, reward.value) for reward in rewards], dtype=torch.float32)
            for name in names
        }
