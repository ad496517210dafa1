"""Rewards that are missing: counted, warned of, and replaced only where that was asked for."""

from __future__ import annotations

import threading
import warnings
from collections import Counter

from polyreward.errors import NoAnswer, PolyrewardError, ProblemError, RateLimited, ServerError
from polyreward.models import InputFault


class SubstitutedRewardWarning(UserWarning):
    """A reward is not the server's."""


class Failures:
    """What went wrong in an adapter, since it was made or `clear` was called. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._raised: Counter[str] = Counter()
        self._substituted: Counter[str] = Counter()

    @property
    def raised(self) -> int:
        """Calls that ended in an exception: some trainers swallow those."""
        with self._lock:
            return self._raised.total()

    @property
    def substituted(self) -> int:
        """Rewards that are not the server's."""
        with self._lock:
            return self._substituted.total()

    @property
    def by_kind(self) -> dict[str, int]:
        """Both together, by the name of the exception or the type of the problem."""
        with self._lock:
            return dict(self._raised + self._substituted)

    def clear(self) -> None:
        """Forgets them."""
        with self._lock:
            self._raised.clear()
            self._substituted.clear()

    def note_raised(self, error: BaseException) -> None:
        """Counts an exception that is raised."""
        with self._lock:
            self._raised[_kind(error)] += 1

    def note_substituted(self, error: PolyrewardError | InputFault, rewards: int, adapter: str, value: object) -> None:
        """Counts rewards that take the place of missing ones, and warns."""
        with self._lock:
            self._substituted[_kind(error)] += rewards
            total = self._substituted.total()
        message = (
            f"{adapter}: {rewards} reward(s) set to {value} instead of the server's ({_kind(error)}); {total} so far"
        )
        warnings.warn(message, SubstitutedRewardWarning, stacklevel=2)


def can_be_substituted(error: PolyrewardError) -> bool:
    """Whether it is load, an outage or a broken connection.

    A wrong key, model or input would be met again by every call, and nobody asks to train on substitutes alone.
    """
    return isinstance(error, (NoAnswer, RateLimited, ServerError))


def _kind(error: BaseException | InputFault) -> str:
    if isinstance(error, (ProblemError, InputFault)):
        return error.type
    return type(error).__name__
