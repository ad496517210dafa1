"""What the adapters import of frameworks that are too large for these tests: the few names, with the few fields.

`make test-trl` runs with the real TRL and torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import pytest


class Tensor:
    """A list that knows it is a tensor."""

    def __init__(self, values: list[Any], dtype: Any = None) -> None:
        self.values = list(values)
        self.dtype = dtype

    def tolist(self) -> list[Any]:
        return self.values


class BaseTextEnv:
    def __init__(self) -> None:
        self.turns = 0
        self.max_turns = 1


class EnvironmentInterface:
    pass


class EnvironmentReturn(NamedTuple):
    observations: Any
    metadata: Any
    next_stop_strings: Any
    rewards: Any
    terminateds: Any
    answers: Any = None


@dataclass
class RewardOutput:
    reward: float
    metadata: dict[str, Any] = field(default_factory=dict)
    is_correct: bool | None = None


@dataclass
class Signal:
    name: str
    value: float


@dataclass
class EvalOutput:
    reward: float
    is_correct: bool
    signals: list[Signal] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


MODULES: dict[str, dict[str, Any]] = {
    "torch": {
        "tensor": Tensor,
        "float32": "float32",
        "bool": "bool",
        "ones": lambda count, dtype: Tensor([dtype == "bool"] * count, dtype),
    },
    "skyrl_gym": {},
    "skyrl_gym.envs": {},
    "skyrl_gym.envs.base_text_env": {"BaseTextEnv": BaseTextEnv, "BaseTextEnvStepOutput": dict},
    "nemo_rl": {},
    "nemo_rl.environments": {},
    "nemo_rl.environments.interfaces": {
        "EnvironmentInterface": EnvironmentInterface,
        "EnvironmentReturn": EnvironmentReturn,
    },
    "rllm": {},
    "rllm.rewards": {},
    "rllm.rewards.reward_types": {"RewardOutput": RewardOutput},
    "rllm.eval": {},
    "rllm.eval.types": {"EvalOutput": EvalOutput, "Signal": Signal},
}


@pytest.fixture
def frameworks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules, and our adapters as they are imported beside them."""
    for name, members in MODULES.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    ours = [f"polyreward.integrations.{name}" for name in ("skyrl", "nemo_rl", "openrlhf", "rllm")]
    for name in ours:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ours:
        sys.modules.pop(name, None)
