"""How an adapter is set up where a framework hands it a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from polyreward._client import Client
from polyreward.integrations._rewards import OnError, Rules
from polyreward.types import Aggregate, OnOverflow, RewardScale


@dataclass(frozen=True)
class Settings:
    """The fields of a configuration; a field that is none of these is an error."""

    base_url: str | None = None
    api_key: str | None = None
    model: str | None = None
    #: The fields that name a person and a group. None of both asks for the population's rewards.
    user_key: str | None = "user_id"
    group_key: str | None = "group"
    #: What stands for a group; the first is the reward.
    aggregate: tuple[Aggregate, ...] = ("mean",)
    reward_scale: RewardScale = "raw"
    on_overflow: OnOverflow = "truncate"
    on_error: OnError = "raise"
    #: In place of one made of `base_url` and `api_key`.
    client: Client | None = None

    @classmethod
    def of(cls, config: Any, *, numbers_only: bool) -> Settings:
        """Of a mapping, or what behaves like one.

        Raises:
            ValueError: it has a field that is not known, or asks for None where only numbers can be.
        """
        given: dict[str, Any] = {} if config is None else {str(name): config[name] for name in config}
        unknown = sorted(given.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        if "aggregate" in given:
            aggregate = given["aggregate"]
            given["aggregate"] = (aggregate,) if isinstance(aggregate, str) else tuple(aggregate)
        settings = cls(**given)
        if numbers_only and settings.on_error == "none":
            raise ValueError('rewards are numbers here: on_error is "raise" or a number')
        return settings

    @property
    def rules(self) -> Rules:
        """How the server is asked."""
        return Rules(self.model, self.reward_scale, self.on_overflow, self.aggregate, self.on_error)

    @property
    def keys(self) -> tuple[str | None, str | None]:
        """The fields that name a person and a group."""
        return self.user_key, self.group_key


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, or nothing."""
    return value if isinstance(value, Mapping) else {}
