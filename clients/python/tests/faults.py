"""Faults that a real server cannot be made to show, and a clock that only a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone

import httpx

from polyreward import Timing

START = datetime(2026, 11, 25, 12, 0, 0, tzinfo=timezone.utc)
BASE = "http://server.test"

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Script:
    """Answers in their order, and the requests that came."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx.Request] = []

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)


class Time:
    """A clock that sleeping moves; jitter is the share `jitter` of what it may be."""

    def __init__(self, jitter: float = 0.5) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []
        self.jitter = jitter

    @property
    def timing(self) -> Timing:
        return Timing(
            sleep=self.sleep,
            async_sleep=self.async_sleep,
            clock=lambda: self.seconds,
            now=lambda: START + timedelta(seconds=self.seconds),
            random=lambda: self.jitter,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)


def problem(status: int, kind: str = "overloaded", **headers: str) -> httpx.Response:
    """A refusal as the server sends it."""
    body = {"type": f"/problems/{kind}", "title": "The title", "status": status, "detail": "The detail"}
    return httpx.Response(
        status, json=body, headers={"content-type": "application/problem+json", "x-request-id": "r-1", **headers}
    )


def ok(body: object, status: int = 200, **headers: str) -> httpx.Response:
    """An answer."""
    return httpx.Response(status, json=body, headers=headers)


HEALTH = {"status": "ok"}
