"""An environment of one turn for SkyRL.

    register(id="polyreward", entry_point="polyreward.integrations.skyrl:PolyrewardEnv")

`env_config` holds `base_url`, `model` and the other fields of `Settings`; the data set's row names the person, beside
its prompt or in its `extra_info`. Needs `skyrl-gym`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

from polyreward._client import Client
from polyreward.integrations._chat import item_of
from polyreward.integrations._failures import Failures
from polyreward.integrations._rewards import Rewarder, Row, shared_client
from polyreward.integrations._settings import Settings
from polyreward.integrations._whose import whose_of_row

#: What went wrong in this process, in whichever environment.
failures = Failures()


class PolyrewardEnv(BaseTextEnv):
    """The reward of the first answer to the prompt; then it is done."""

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        settings = Settings.of(env_config, numbers_only=True)
        row = dict(extras or {})
        inner = row.get("extra_info")
        self._whose = whose_of_row({**inner, **row} if isinstance(inner, Mapping) else row, *settings.keys)
        self._rewarder = Rewarder("skyrl", settings.rules, failures)
        self._client: Client = settings.client or shared_client(settings.base_url, settings.api_key)
        self._prompt: Any = None

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        """Keeps the prompt, which the reward is of."""
        self._prompt = prompt
        return prompt, {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """The reward of an answer."""
        if self._prompt is None:
            raise RuntimeError("step before init: the prompt is not known")
        self.turns += 1
        reward = self._rewarder.ask(self._client, [Row(self._whose, item_of(self._prompt, action))])[0]
        metadata = {"known": reward.known, "truncated": reward.truncated, "substituted": reward.substituted}
        return BaseTextEnvStepOutput(observations=[], reward=reward.value, done=True, metadata=metadata)
