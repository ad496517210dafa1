"""When to try again: a pure computation over a clock and a source of randomness that the caller gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""Load, a quota, or something between here and the server; never a refusal that another attempt would meet again."""

RETRIED_EXCEPTIONS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
)
"""A connection that was not made or broke off. A timeout of the answer is the caller's own limit, so not among them."""


@dataclass(frozen=True)
class Retry:
    """How often and for how long a request is tried.

    Between attempts passes a random time of at most `base_s * 2**n`, never more than `cap_s`; after a `Retry-After`,
    that time on top of the server's. No attempt begins once `total_s` have passed since the first: an answer that asks
    for more patience than is left is an error at once.
    """

    attempts: int = 6
    total_s: float = 120.0
    base_s: float = 0.25
    cap_s: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be 1 or more")
        if min(self.total_s, self.base_s, self.cap_s) < 0:
            raise ValueError("times of a retry must not be negative")

    @classmethod
    def never(cls) -> Retry:
        """One attempt."""
        return cls(attempts=1)


class Attempts:
    """The attempts of one request."""

    def __init__(self, retry: Retry, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._retry = retry
        self._clock = clock
        self._random = random
        self._started = clock()
        #: Attempts that have failed.
        self.failed = 0

    def wait_s(self, retry_after_s: float | None) -> float | None:
        """After a failed attempt: how long to wait for the next one, in seconds; None where there is none."""
        self.failed += 1
        if self.failed >= self._retry.attempts:
            return None
        ceiling = min(self._retry.cap_s, self._retry.base_s * 2.0 ** (self.failed - 1))
        wait = (retry_after_s or 0.0) + self._random() * ceiling
        left = self._retry.total_s - (self._clock() - self._started)
        return wait if wait <= left else None


def retry_after_s(headers: httpx.Headers, now: Callable[[], datetime]) -> float | None:
    """The time that `Retry-After` names, in seconds or as a date; None where there is none that can be read.

    A date is compared with the answer's own `Date`, so that the two clocks need not agree.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    then = _date(text)
    if then is None:
        return None
    return max(0.0, (then - (_date(headers.get("date", "")) or now())).total_seconds())


def _date(text: str) -> datetime | None:
    """An HTTP date."""
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)
