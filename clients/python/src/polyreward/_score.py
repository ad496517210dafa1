"""A request to score as parts that the server takes, and their answers as one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyreward._wire import Call, encode, without_none
from polyreward.errors import InvalidReply, ProblemError
from polyreward.models import (
    AudienceResult,
    InputFault,
    ItemResult,
    ItemResultOfUsers,
    Limits,
    PairResult,
    PairResultOfUsers,
    RefusedResult,
    ScoreReply,
    Usage,
)
from polyreward.types import Audience, Item, OnOverflow, Pair, RewardScale

PATH = "/score"

_POINTER = re.compile(r"/(pairs|items)/(\d+)")
_RESULTS: dict[tuple[str, str], Any] = {
    ("pairs", "one"): ScoreReply[PairResult],
    ("items", "one"): ScoreReply[ItemResult],
    ("pairs", "users"): ScoreReply[PairResultOfUsers],
    ("items", "users"): ScoreReply[ItemResultOfUsers],
    ("pairs", "audience"): ScoreReply[AudienceResult],
    ("items", "audience"): ScoreReply[AudienceResult],
}
_PARTIAL_RESULTS: dict[tuple[str, str], Any] = {
    ("pairs", "one"): ScoreReply[PairResult | RefusedResult],
    ("items", "one"): ScoreReply[ItemResult | RefusedResult],
    ("pairs", "users"): ScoreReply[PairResultOfUsers | RefusedResult],
    ("items", "users"): ScoreReply[ItemResultOfUsers | RefusedResult],
    ("pairs", "audience"): ScoreReply[AudienceResult | RefusedResult],
    ("items", "audience"): ScoreReply[AudienceResult | RefusedResult],
}


@dataclass(frozen=True)
class Part:
    """Some of the pairs or items, by position."""

    start: int
    stop: int


class ScoreQuestion:
    """What is asked in one call of `score`."""

    def __init__(
        self,
        *,
        pairs: Sequence[Pair] | None,
        items: Sequence[Item] | None,
        user_id: str | None,
        user_ids: Sequence[str] | None,
        audience: Audience | None,
        model: str | None,
        reward_scale: RewardScale | None,
        on_overflow: OnOverflow | None,
        partial: bool,
    ) -> None:
        if (pairs is None) == (items is None):
            raise ValueError("give either pairs or items")
        if sum(who is not None for who in (user_id, user_ids, audience)) > 1:
            raise ValueError("give one of user_id, user_ids and audience, or none of them")
        self.model = model
        self.kind = "pairs" if items is None else "items"
        units: Sequence[Mapping[str, Any]] = (items if pairs is None else pairs) or ()
        self._units = [encode(unit) for unit in units]
        self._texts = [2 if items is None else len(unit["responses"]) for unit in units]
        self._users = 1 if user_ids is None else len(user_ids)
        self._is_one_batch = audience is not None and "maxmin" in (audience.get("aggregate") or ())
        self._options = without_none(
            {
                "user_id": user_id,
                "user_ids": None if user_ids is None else list(user_ids),
                "audience": audience,
                "reward_scale": reward_scale,
                "on_overflow": on_overflow,
                "partial": partial or None,
            }
        )
        whose = "one" if user_ids is None and audience is None else "users" if audience is None else "audience"
        self._reply = (_PARTIAL_RESULTS if partial else _RESULTS)[self.kind, whose]

    @property
    def may_be_divided(self) -> bool:
        """Whether the server's limits matter: one pair or item goes as it is, and so does what is one batch."""
        return len(self._units) > 1 and not self._is_one_batch

    def parts(self, limits: Limits | None) -> list[Part]:
        """Pairs or items, in order, in as few requests as the limits allow."""
        if limits is None:
            return [Part(0, len(self._units))]
        return list(self._parts(limits))

    def _parts(self, limits: Limits) -> Iterator[Part]:
        max_texts = min(limits.max_batch, max(1, limits.max_rewards // max(1, self._users)))
        max_bytes = limits.max_body_bytes - len(self._body(b"", self.model or "")) - _SPARE_BYTES
        start = texts = size = 0
        for at, (unit, count) in enumerate(zip(self._units, self._texts)):
            if at > start and (texts + count > max_texts or size + len(unit) + 1 > max_bytes):
                yield Part(start, at)
                start, texts, size = at, 0, 0
            texts += count
            size += len(unit) + 1
        yield Part(start, len(self._units))

    def call(self, part: Part, model: str | None) -> Call[Any]:
        """The request for a part."""
        units = b",".join(self._units[part.start : part.stop])
        return Call("POST", PATH, self._reply, content=self._body(units, model))

    def _body(self, units: bytes, model: str | None) -> bytes:
        options = encode({**self._options, **without_none({"model": model})})
        head = options[:-1] + (b"," if len(options) > 2 else b"")
        return head + f'"{self.kind}":['.encode() + units + b"]}"

    def check(self, part: Part, reply: ScoreReply[Any]) -> None:
        """Each pair or item has a result.

        Raises:
            InvalidReply: there are more, or fewer.
        """
        if len(reply.results) != part.stop - part.start:
            raise InvalidReply(f"the answer has {len(reply.results)} results for {part.stop - part.start} {self.kind}")

    def error(self, error: ProblemError, part: Part) -> ProblemError:
        """The error of a part, with pointers into what the caller gave."""
        if part.start == 0 or not error.problem.errors:
            return error
        moved = [_moved(fault, part.start) for fault in error.problem.errors]
        problem = error.problem.model_copy(update={"errors": moved})
        return type(error)(problem, error.request_id, error.retry_after_s)

    def joined(self, parts: Sequence[Part], replies: Sequence[ScoreReply[Any]]) -> ScoreReply[Any]:
        """The answers as one; of texts, tokens and known embeddings the sums."""
        first = replies[0]
        if len(replies) == 1:
            return first
        results = [_result(result, part.start) for part, reply in zip(parts, replies) for result in reply.results]
        usages = [reply.usage for reply in replies]
        usage = Usage(
            texts=sum(usage.texts for usage in usages),
            tokens=sum(usage.tokens for usage in usages),
            embeddings_cached=sum(usage.embeddings_cached for usage in usages),
        )
        joined: ScoreReply[Any] = first.model_copy(update={"results": results, "usage": usage})
        return with_state_versions(joined, [version for reply in replies for version in reply.state_versions])


_SPARE_BYTES = 128
"""For the model's full name, which the parts after the first carry."""


def with_state_versions(reply: ScoreReply[Any], versions: Sequence[str]) -> ScoreReply[Any]:
    """The reply with what it was derived from, each once."""
    reply._state_versions = tuple(dict.fromkeys(versions))
    return reply


def _result(result: Any, offset: int) -> Any:
    if offset and isinstance(result, RefusedResult):
        return result.model_copy(update={"error": _moved(result.error, offset)})
    return result


def _moved(fault: InputFault, offset: int) -> InputFault:
    match = _POINTER.match(fault.pointer or "")
    if match is None or fault.pointer is None:
        return fault
    pointer = f"/{match[1]}/{int(match[2]) + offset}{fault.pointer[match.end() :]}"
    return fault.model_copy(update={"pointer": pointer})
