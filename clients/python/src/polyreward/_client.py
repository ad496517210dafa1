"""The client for code that waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import httpx
from typing_extensions import Self, Unpack

from polyreward import _calls, measures
from polyreward import models as replies
from polyreward._calls import GroupBy
from polyreward._exchange import Exchange, Timing, Wait
from polyreward._options import Options, ScoreOptions
from polyreward._retry import Retry
from polyreward._score import Part, ScoreQuestion, with_state_versions
from polyreward._wire import Call
from polyreward.errors import ProblemError
from polyreward.models import (
    AnyResult,
    AudienceResult,
    ItemResult,
    ItemResultOfUsers,
    PairResult,
    PairResultOfUsers,
    ScoreReply,
)
from polyreward.types import (
    Attributes,
    Audience,
    Example,
    Item,
    LabelledComparison,
    OnOverflow,
    Pair,
    Prompt,
    RewardScale,
    Step,
)

T = TypeVar("T")
Entry = TypeVar("Entry")


class Client:
    """A connection pool to one server. It may be used from several threads; close it, or use it in a `with`.

    Args:
        base_url: Where the server is; by default `POLYREWARD_URL`, else `http://127.0.0.1:8080`. A key in it
            (`http://any:KEY@host`) is taken out and sent as a header.
        api_key: The key; by default `POLYREWARD_API_KEY` or `POLYREWARD_KEY`.
        timeout: Seconds, or an `httpx.Timeout`. The time for an answer is told to the server, which does not work
            longer.
        retry: How often and how long to try; `Retry.never()` for once.
        max_concurrency: Requests at the same time for one call that is divided.
        transport: In place of the network.
        timing: Clocks, sleep and randomness.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: httpx.Timeout | float | None = None,
        retry: Retry | None = None,
        max_concurrency: int = 8,
        transport: httpx.BaseTransport | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._options = Options.of(base_url, api_key, timeout, retry, timing, max_concurrency)
        target = self._options.target
        self._http = httpx.Client(
            base_url=target.base_url,
            headers=target.headers(),
            timeout=self._options.timeout,
            limits=self._options.connections,
            transport=transport,
        )
        self._limits: replies.Limits | None = None
        self._limits_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Client({self._options.target.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    # Scores

    @overload
    def score(
        self, *, pairs: Sequence[Pair], user_id: str | None = None, **options: Unpack[ScoreOptions]
    ) -> ScoreReply[PairResult]: ...

    @overload
    def score(
        self, *, items: Sequence[Item], user_id: str | None = None, **options: Unpack[ScoreOptions]
    ) -> ScoreReply[ItemResult]: ...

    @overload
    def score(
        self, *, pairs: Sequence[Pair], user_ids: Sequence[str], **options: Unpack[ScoreOptions]
    ) -> ScoreReply[PairResultOfUsers]: ...

    @overload
    def score(
        self, *, items: Sequence[Item], user_ids: Sequence[str], **options: Unpack[ScoreOptions]
    ) -> ScoreReply[ItemResultOfUsers]: ...

    @overload
    def score(
        self, *, pairs: Sequence[Pair], audience: Audience, **options: Unpack[ScoreOptions]
    ) -> ScoreReply[AudienceResult]: ...

    @overload
    def score(
        self, *, items: Sequence[Item], audience: Audience, **options: Unpack[ScoreOptions]
    ) -> ScoreReply[AudienceResult]: ...

    @overload
    def score(
        self,
        *,
        pairs: Sequence[Pair] | None = None,
        items: Sequence[Item] | None = None,
        user_id: str | None = None,
        user_ids: Sequence[str] | None = None,
        audience: Audience | None = None,
        partial: Literal[True],
        **options: Unpack[ScoreOptions],
    ) -> ScoreReply[AnyResult]: ...

    def score(
        self,
        *,
        pairs: Sequence[Pair] | None = None,
        items: Sequence[Item] | None = None,
        user_id: str | None = None,
        user_ids: Sequence[str] | None = None,
        audience: Audience | None = None,
        model: str | None = None,
        reward_scale: RewardScale | None = None,
        on_overflow: OnOverflow | None = None,
        partial: bool = False,
    ) -> ScoreReply[Any]:
        """Rewards of the responses of `pairs` or of `items`: of one person, of several, of an audience, or of the
        population.

        More than the server takes at once is sent in parts, some at the same time, all to the model that answered the
        first; results come in the order of the request.

        Raises:
            ProblemError: the server refused; one wrong pair or item is enough for that, unless `partial` is set.
            NoAnswer: the server was not reached.
        """
        question = ScoreQuestion(
            pairs=pairs,
            items=items,
            user_id=user_id,
            user_ids=user_ids,
            audience=audience,
            model=model,
            reward_scale=reward_scale,
            on_overflow=on_overflow,
            partial=partial,
        )
        parts = question.parts(self.limits() if question.may_be_divided else None)
        first = self._score_part(question, parts[0], model)
        rest = self._score_parts(question, parts[1:], first.model) if parts[1:] else []
        return question.joined(parts, [first, *rest])

    def _score_parts(self, question: ScoreQuestion, parts: Sequence[Part], model: str) -> list[ScoreReply[Any]]:
        waiting = deque(enumerate(parts))
        answers: dict[int, ScoreReply[Any]] = {}

        def work() -> None:
            while waiting:
                try:
                    at, part = waiting.popleft()
                except IndexError:  # another worker was faster
                    return
                try:
                    answers[at] = self._score_part(question, part, model)
                except BaseException:
                    waiting.clear()  # no other part begins
                    raise

        workers = min(len(parts), self._options.max_concurrency)
        with ThreadPoolExecutor(workers, thread_name_prefix="polyreward") as pool:
            working = [pool.submit(work) for _ in range(workers)]
            try:
                for worker in working:
                    worker.result()
            finally:
                waiting.clear()  # where the caller is interrupted
        return [answers[at] for at in range(len(parts))]

    def _score_part(self, question: ScoreQuestion, part: Part, model: str | None) -> ScoreReply[Any]:
        try:
            reply, headers = self._send(question.call(part, model))
        except ProblemError as error:
            raise question.error(error, part) from None
        question.check(part, reply)
        return with_state_versions(reply, headers.get_list("x-user-state-version"))

    # People

    def add_examples(
        self,
        user_id: str,
        examples: Sequence[Example],
        *,
        attributes: Attributes | None = None,
        idempotency_key: str | None = None,
    ) -> replies.ExamplesReply:
        """Stores comparisons of a person and learns from them: all, or none. The next score reflects them.

        The call has a key of its own, so that it is done once however often it is tried. It is never divided: at most
        half of `limits().max_batch` examples go in one.
        """
        reply, headers = self._send(_calls.add_examples(user_id, examples, attributes, idempotency_key))
        reply._replayed = headers.get("idempotency-replayed") == "true"
        return reply

    def examples(self, user_id: str, *, page_size: int | None = None) -> Iterator[replies.StoredExample]:
        """What a person compared, in the order in which it came."""
        return self._entries(lambda cursor: _calls.examples(user_id, page_size, cursor))

    def queries(
        self,
        user_id: str,
        pairs: Sequence[Pair],
        *,
        model: str | None = None,
        limit: int | None = None,
        on_overflow: OnOverflow | None = None,
    ) -> replies.Queries:
        """Which of these pairs to ask a person about next, from the one whose answer would tell most."""
        return self._call(_calls.queries(user_id, pairs, model, limit, on_overflow))

    def tournament(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        audience: Audience,
        *,
        model: str | None = None,
        beta: float | None = None,
        on_overflow: OnOverflow | None = None,
    ) -> replies.Tournament:
        """Who wins among responses to one prompt before an audience, by rules that may disagree.

        `beta` says how far the regularised equilibrium is held to the uniform lottery.
        """
        return self._call(_calls.tournament(prompt, responses, audience, model, beta, on_overflow))

    def user(self, user_id: str) -> replies.UserProfile:
        """One person: attributes, examples, and what each model believes in words and numbers."""
        return self._call(_calls.user(user_id))

    def users(self, *, page_size: int | None = None) -> Iterator[replies.User]:
        """Everybody whose comparisons are stored, by id."""
        return self._entries(lambda cursor: _calls.users(page_size, cursor))

    def groups(self, *, page_size: int | None = None) -> Iterator[replies.Group]:
        """Attributes and their values, with how many people have each."""
        return self._entries(lambda cursor: _calls.groups(page_size, cursor))

    def put_user(self, user_id: str, attributes: Attributes) -> replies.UserProfile:
        """Sets a person's attributes, in place of those that are there; creates the person when new."""
        return self._call(_calls.put_user(user_id, attributes))

    def delete_user(self, user_id: str) -> None:
        """Erases a person: attributes, examples, states and predictions."""
        self._call(_calls.delete_user(user_id))

    def delete_example(self, user_id: str, example_id: str) -> None:
        """Forgets one example; the states are derived from the others."""
        self._call(_calls.delete_example(user_id, example_id))

    # Accuracy

    def accuracy(
        self,
        group_by: GroupBy = None,
        *,
        model: str | None = None,
        since: str | None = None,
        until: str | None = None,
        min_n: int | None = None,
    ) -> measures.Accuracy:
        """For whom a model's rewards are right, on predictions that it made before it learned.

        Args:
            group_by: Attributes that make the groups, at most two.
            model: The model; by default the server's.
            since: Predictions from then on: RFC 3339, or a day.
            until: Predictions before then.
            min_n: People that a shown group has at least; can only raise the server's floor.
        """
        return self._call(_calls.accuracy(group_by, model, since, until, min_n))

    def accuracy_shots(
        self,
        group_by: GroupBy = None,
        *,
        model: str | None = None,
        since: str | None = None,
        until: str | None = None,
        min_n: int | None = None,
    ) -> measures.AccuracyByShots:
        """Accuracy against the number of examples."""
        return self._call(_calls.accuracy_shots(group_by, model, since, until, min_n))

    def accuracy_timeline(
        self,
        group_by: GroupBy = None,
        *,
        model: str | None = None,
        since: str | None = None,
        until: str | None = None,
        min_n: int | None = None,
        step: Step | None = None,
    ) -> measures.AccuracyTimeline:
        """Accuracy against time."""
        return self._call(_calls.accuracy_timeline(group_by, model, since, until, min_n, step))

    def evaluate(
        self,
        comparisons: Sequence[LabelledComparison],
        *,
        group_by: GroupBy = None,
        model: str | None = None,
        min_n: int | None = None,
    ) -> measures.Accuracy:
        """Accuracy on labelled comparisons; nothing is stored."""
        return self._call(_calls.evaluate(comparisons, group_by, model, min_n))

    # Models and the server

    def models(self, *, page_size: int | None = None) -> Iterator[replies.Model]:
        """The models that can answer."""
        return self._entries(lambda cursor: _calls.models_page(page_size, cursor))

    def failed_models(self) -> list[replies.FailedModel]:
        """Model folders that could not be loaded."""
        return self._call(_calls.models_page(1, None)).failed

    def reload_models(self) -> replies.Reload:
        """Has the server scan its models folder again."""
        return self._call(_calls.reload_models())

    def set_default_model(self, model: str) -> replies.DefaultModel:
        """Chooses the model that answers when none is named."""
        return self._call(_calls.set_default_model(model))

    def info(self) -> replies.Info:
        """Version, backbone, models and limits."""
        return self._call(_calls.info())

    def limits(self) -> replies.Limits:
        """What the server takes at once; asked for once."""
        with self._limits_lock:
            if self._limits is None:
                self._limits = self.info().limits
            return self._limits

    def health(self) -> replies.Health:
        """Whether the process is alive."""
        return self._call(_calls.health())

    def ready(self) -> replies.Ready:
        """Whether the server can score, and what is missing where it cannot."""
        return self._call(_calls.ready())

    # Sending

    def _entries(self, page_call: Callable[[str | None], Call[replies.Page[Entry]]]) -> Iterator[Entry]:
        cursor: str | None = None
        while True:
            page = self._call(page_call(cursor))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def _call(self, call: Call[T]) -> T:
        return self._send(call)[0]

    def _send(self, call: Call[T]) -> tuple[T, httpx.Headers]:
        exchange = Exchange(call, self._options.retry, self._options.timing)
        headers = self._options.headers_of(call)
        while True:
            outcome: T | Wait
            try:
                response = self._http.request(
                    call.method, call.path, params=dict(call.params), content=call.content, headers=headers
                )
            except httpx.HTTPError as error:
                outcome = exchange.failed(error)
            else:
                outcome = exchange.answered(response)
                if not isinstance(outcome, Wait):
                    return outcome, response.headers
            self._options.timing.sleep(outcome.seconds)
