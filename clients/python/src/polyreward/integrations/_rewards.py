"""Rewards of rows that may each be another person's: what the adapters share. The server does the scoring."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from polyreward._async_client import AsyncClient
from polyreward._client import Client
from polyreward.errors import PolyrewardError
from polyreward.integrations._failures import Failures, can_be_substituted
from polyreward.integrations._whose import Whose
from polyreward.models import Aggregates, AudienceResult, RefusedResult, ScoreReply
from polyreward.types import Aggregate, Item, OnOverflow, RewardScale

OnError = Literal["raise", "none"] | float
"""What becomes of a reward that is missing: an exception, None, or this number."""

_MAX_PEOPLE_AT_ONCE = 8


@dataclass(frozen=True)
class Row:
    """One response to one prompt, and whose reward it asks for."""

    whose: Whose
    item: Item


@dataclass(frozen=True)
class Reward:
    """A row's reward. `value` is None only where `on_error` is "none"."""

    value: float | None
    #: Whether the person has examples, or the group a member.
    known: bool = False
    truncated: bool = False
    substituted: bool = False
    #: A number an aggregate, of a group.
    aggregates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """How an adapter asks."""

    model: str | None = None
    reward_scale: RewardScale | None = None
    on_overflow: OnOverflow | None = None
    #: What stands for a group; the first is the reward.
    aggregate: tuple[Aggregate, ...] = ("mean",)
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if isinstance(self.on_error, str) and self.on_error not in ("raise", "none"):
            raise ValueError('on_error is "raise", "none" or a number')
        if isinstance(self.on_error, bool) or self.on_error is None:
            raise ValueError('on_error is "raise", "none" or a number')
        if not self.aggregate:
            raise ValueError("aggregate names nothing")

    @property
    def substitutes(self) -> bool:
        """Whether a reward may take the place of a missing one."""
        return self.on_error != "raise"

    @property
    def substitute(self) -> float | None:
        """What takes its place."""
        return None if isinstance(self.on_error, str) else float(self.on_error)

    def question(self, whose: Whose, rows: Sequence[Row]) -> dict[str, Any]:
        """The arguments of `score`."""
        return {
            "items": [row.item for row in rows],
            "user_id": whose.user_id,
            "audience": whose.audience(self.aggregate),
            "model": self.model,
            "reward_scale": self.reward_scale,
            "on_overflow": self.on_overflow,
            "partial": self.substitutes,
        }


class Rewarder:
    """Asks for the rewards of rows. Safe to use from several threads and event loops."""

    def __init__(self, name: str, rules: Rules, failures: Failures | None = None) -> None:
        self.name = name
        self.rules = rules
        self.failures = failures or Failures()

    def ask(self, client: Client, rows: Sequence[Row]) -> list[Reward]:
        """A reward a row, in their order. Rows of one person share requests."""
        groups = _by_person(rows)
        with self._counting():
            if len(groups) < 2:
                return _in_order(rows, [self._ask_one(client, *group) for group in groups])
            waiting = deque(groups)
            answers: list[_Answers] = []

            def work() -> None:
                while waiting:
                    try:
                        group = waiting.popleft()
                    except IndexError:  # another worker was faster
                        return
                    try:
                        answers.append(self._ask_one(client, *group))
                    except BaseException:
                        waiting.clear()  # no other group begins
                        raise

            workers = min(len(groups), _MAX_PEOPLE_AT_ONCE)
            with ThreadPoolExecutor(workers, thread_name_prefix="polyreward") as pool:
                for worker in [pool.submit(work) for _ in range(workers)]:
                    worker.result()
            return _in_order(rows, answers)

    async def ask_async(self, client: AsyncClient, rows: Sequence[Row]) -> list[Reward]:
        """The same, awaited."""
        places = asyncio.Semaphore(_MAX_PEOPLE_AT_ONCE)

        async def ask_one(whose: Whose, positions: list[int], members: list[Row]) -> _Answers:
            async with places:
                try:
                    reply = await client.score(**self.rules.question(whose, members))
                except PolyrewardError as error:
                    return positions, self._instead(error, len(members))
            return positions, self._rewards(reply)

        with self._counting():
            asking = [asyncio.ensure_future(ask_one(*group)) for group in _by_person(rows)]
            try:
                return _in_order(rows, await asyncio.gather(*asking))
            except BaseException:
                for other in asking:
                    other.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
                raise

    def _ask_one(self, client: Client, whose: Whose, positions: list[int], members: list[Row]) -> _Answers:
        try:
            reply = client.score(**self.rules.question(whose, members))
        except PolyrewardError as error:
            return positions, self._instead(error, len(members))
        return positions, self._rewards(reply)

    def _instead(self, error: PolyrewardError, rewards: int) -> list[Reward]:
        """Substitutes, where they were asked for and the error allows them."""
        if not self.rules.substitutes or not can_be_substituted(error):
            raise error
        self.failures.note_substituted(error, rewards, self.name, self.rules.substitute)
        return [Reward(self.rules.substitute, substituted=True)] * rewards

    def _rewards(self, reply: ScoreReply[Any]) -> list[Reward]:
        known = reply.user.known if reply.user else bool(reply.audience and reply.audience.users)
        return [self._reward(result, known) for result in reply.results]

    def _reward(self, result: Any, known: bool) -> Reward:
        if isinstance(result, RefusedResult):
            self.failures.note_substituted(result.error, 1, self.name, self.rules.substitute)
            return Reward(self.rules.substitute, substituted=True)
        if isinstance(result, AudienceResult):
            numbers: dict[str, float] = {name: _aggregate(result.aggregates, name) for name in self.rules.aggregate}
            return Reward(numbers[self.rules.aggregate[0]], known, result.truncated, aggregates=numbers)
        return Reward(result.rewards[0], known, result.truncated)

    def _counting(self) -> _Counting:
        return _Counting(self.failures)


class _Counting:
    """Counts an exception on its way out."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self._failures.note_raised(error)


_Answers = tuple[list[int], list[Reward]]


def _by_person(rows: Sequence[Row]) -> list[tuple[Whose, list[int], list[Row]]]:
    """Who is asked for, with the positions of their rows."""
    groups: dict[Whose, tuple[list[int], list[Row]]] = {}
    for at, row in enumerate(rows):
        positions, members = groups.setdefault(row.whose, ([], []))
        positions.append(at)
        members.append(row)
    return [(whose, positions, members) for whose, (positions, members) in groups.items()]


def _in_order(rows: Sequence[Row], answers: Sequence[_Answers]) -> list[Reward]:
    placed = {at: reward for positions, rewards in answers for at, reward in zip(positions, rewards)}
    return [placed[at] for at in range(len(rows))]


def _aggregate(aggregates: Aggregates, name: Aggregate) -> float:
    of_responses: list[float] = getattr(aggregates, name)
    return of_responses[0]


_clients: dict[tuple[int, str | None, str | None], Client] = {}
_async_clients: dict[tuple[int, str | None, str | None], AsyncClient] = {}
_clients_lock = threading.Lock()


def shared_client(base_url: str | None, api_key: str | None) -> Client:
    """One connection pool a server and process: trainers call plain functions thousands of times, from many threads."""
    with _clients_lock:
        # A process that was forked must not use its parent's connections.
        key = (os.getpid(), base_url, api_key)
        if key not in _clients:
            _clients[key] = Client(base_url, api_key)
        return _clients[key]


def shared_async_client(base_url: str | None, api_key: str | None) -> AsyncClient:
    """The same, to be awaited."""
    with _clients_lock:
        key = (os.getpid(), base_url, api_key)
        if key not in _async_clients:
            _async_clients[key] = AsyncClient(base_url, api_key)
        return _async_clients[key]
