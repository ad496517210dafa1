"""What becomes of an attempt: the answer, an error, or a time to wait before the next one. No input or output."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Generic, TypeVar

import httpx

from polyreward._retry import RETRIED_EXCEPTIONS, RETRIED_STATUSES, Attempts, Retry, retry_after_s
from polyreward._wire import Call, read, refusal
from polyreward.errors import NoAnswer, ReplyTimeout

T = TypeVar("T")


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Timing:
    """Clocks, sleep and randomness of a client."""

    sleep: Callable[[float], None] = time.sleep
    async_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    #: Seconds that never go back.
    clock: Callable[[], float] = time.monotonic
    #: The time of day, in UTC.
    now: Callable[[], datetime] = _now
    #: A number from 0 to 1.
    random: Callable[[], float] = random.random


@dataclass(frozen=True)
class Wait:
    """Seconds to wait before the next attempt."""

    seconds: float


class Exchange(Generic[T]):
    """One call until it is answered."""

    def __init__(self, call: Call[T], retry: Retry, timing: Timing) -> None:
        self._call = call
        self._now = timing.now
        self._attempts = Attempts(retry, timing.clock, timing.random)
        self._lost_answers = 0

    def answered(self, response: httpx.Response) -> T | Wait:
        """After an answer.

        Raises:
            ProblemError: it is a refusal, and there is no further attempt.
            InvalidReply: it is not what the server's document promises.
        """
        status = response.status_code
        if response.is_success or status in self._call.also:
            return read(self._call, response)
        if self._lost_answers and status in self._call.done_before:
            return None  # type: ignore[return-value]  # such a call has no reply
        patience = retry_after_s(response.headers, self._now)
        wait = self._attempts.wait_s(patience) if status in RETRIED_STATUSES else None
        if wait is None:
            raise refusal(response, patience)
        return Wait(wait)

    def failed(self, error: httpx.HTTPError) -> Wait:
        """After an attempt without an answer.

        Raises:
            NoAnswer: there is no further attempt.
        """
        self._lost_answers += 1
        wait = self._attempts.wait_s(None) if isinstance(error, RETRIED_EXCEPTIONS) else None
        if wait is not None:
            return Wait(wait)
        where = f"{self._call.method} {self._call.path}"
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            raise ReplyTimeout(f"no answer to {where} within the timeout ({type(error).__name__})") from error
        attempts = f"{self._attempts.failed or 1} attempt(s)"
        raise NoAnswer(f"no answer to {where} after {attempts}: {type(error).__name__}") from error
