"""What both clients are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from typing_extensions import TypedDict

from polyreward._exchange import Timing
from polyreward._retry import Retry
from polyreward._wire import DEFAULT_TIMEOUT, Call, Target
from polyreward.types import OnOverflow, RewardScale


class ScoreOptions(TypedDict, total=False):
    """What can be said with every kind of request to score."""

    #: `name` for a model's newest version, or `name@version`; by default the server's.
    model: str | None
    #: The scale of the rewards; `raw` by default.
    reward_scale: RewardScale | None
    #: What becomes of a text longer than the backbone's window; `truncate` by default.
    on_overflow: OnOverflow | None


@dataclass(frozen=True)
class Options:
    """How a client reaches its server."""

    target: Target
    timeout: httpx.Timeout
    retry: Retry
    timing: Timing
    max_concurrency: int

    @classmethod
    def of(
        cls,
        base_url: str | None,
        api_key: str | None,
        timeout: httpx.Timeout | float | None,
        retry: Retry | None,
        timing: Timing | None,
        max_concurrency: int,
    ) -> Options:
        """Options of a constructor's arguments.

        Raises:
            ValueError: one of them cannot be used.
        """
        if max_concurrency < 1:
            raise ValueError("max_concurrency must be 1 or more")
        if timeout is None:
            timeout = DEFAULT_TIMEOUT
        elif not isinstance(timeout, httpx.Timeout):
            timeout = httpx.Timeout(timeout)
        target = Target.of(base_url, api_key)
        return cls(target, timeout, retry or Retry(), timing or Timing(), max_concurrency)

    @property
    def connections(self) -> httpx.Limits:
        """The pool: idle connections are let go of before servers usually do so."""
        return httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=4.0)

    def headers_of(self, call: Call[Any]) -> dict[str, str]:
        """Headers of one request: the server need not work longer than somebody waits for the answer."""
        headers = dict(call.headers)
        if call.content is not None:
            headers["content-type"] = "application/json"
        if self.timeout.read is not None:
            headers["x-request-timeout-ms"] = str(max(1, int(self.timeout.read * 1000)))
        return headers
