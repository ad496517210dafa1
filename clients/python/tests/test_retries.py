"""When a request is sent again, and when it is not."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import httpx
import pytest
from faults import BASE, HEALTH, START, Answer, Script, Time, ok, problem

from polyreward import (
    AsyncClient,
    Client,
    InvalidInput,
    InvalidReply,
    NoAnswer,
    NotFound,
    ProblemError,
    RateLimited,
    ReplyTimeout,
    Retry,
    ServerError,
    Unavailable,
)
from polyreward.types import Item

EXAMPLES_REPLY = {
    "user_id": "ada",
    "accepted": 1,
    "duplicates": 0,
    "examples": 1,
    "example_ids": ["e"],
    "predictions": [],
    "states": {},
    "state_version": "1",
}


def client_of(script: Script, time: Time, retry: Retry | None = None) -> Client:
    return Client(BASE, transport=script.transport, timing=time.timing, retry=retry)


def http_date(moment: datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_load_and_proxies_are_tried_again(status: int) -> None:
    script, time = Script([problem(status), problem(status), ok(HEALTH)]), Time()
    with client_of(script, time) as client:
        assert client.health().status == "ok"
    assert len(script.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_a_refusal_that_would_come_again_is_not_tried_again(status: int) -> None:
    script, time = Script([problem(status, **{"retry-after": "1"})]), Time()
    with client_of(script, time) as client, pytest.raises(ProblemError) as refused:
        client.health()
    assert refused.value.status == status
    assert time.slept == []


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("closed"),
    ],
)
def test_a_connection_that_broke_is_made_again(broken: Exception) -> None:
    script, time = Script([broken, ok(HEALTH)]), Time()
    with client_of(script, time) as client:
        assert client.health().status == "ok"


def test_the_time_between_attempts_doubles_up_to_a_cap_and_is_random() -> None:
    retry = Retry(attempts=6, base_s=1.0, cap_s=4.0, total_s=100.0)
    for jitter in (0.0, 0.25, 1.0):
        script, time = Script([problem(503)] * 6), Time(jitter)
        with client_of(script, time, retry) as client, pytest.raises(Unavailable):
            client.health()
        assert time.slept == [jitter * ceiling for ceiling in (1.0, 2.0, 4.0, 4.0, 4.0)]
        assert len(script.requests) == 6


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": http_date(START + timedelta(seconds=9))}, 9.0),
        # The server's clock is an hour behind ours; what counts is the time between its two dates.
        (
            {
                "retry-after": http_date(START - timedelta(minutes=60) + timedelta(seconds=4)),
                "date": http_date(START - timedelta(minutes=60)),
            },
            4.0,
        ),
        ({"retry-after": http_date(START - timedelta(seconds=9))}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-1"}, 0.0),
        ({}, 0.0),
    ],
)
def test_retry_after_is_honoured_in_seconds_and_as_a_date(headers: dict[str, str], expected: float) -> None:
    script, time = Script([problem(503, **headers), ok(HEALTH)]), Time(jitter=0.5)
    with client_of(script, time, Retry(base_s=1.0)) as client:
        client.health()
    assert time.slept == [expected + 0.5]


def test_more_patience_than_is_left_is_an_error_at_once() -> None:
    script, time = Script([problem(429, **{"retry-after": "3600"})]), Time()
    with client_of(script, time) as client, pytest.raises(RateLimited) as refused:
        client.health()
    assert time.slept == []
    assert refused.value.retry_after_s == 3600


def test_no_attempt_begins_after_the_total_time() -> None:
    script, time = Script([problem(503, **{"retry-after": "4"})] * 10), Time(jitter=0.0)
    with client_of(script, time, Retry(attempts=10, total_s=10.0)) as client, pytest.raises(Unavailable):
        client.health()
    assert time.slept == [4.0, 4.0]


def test_one_attempt_can_be_enough() -> None:
    script, time = Script([problem(503)]), Time()
    with client_of(script, time, Retry.never()) as client, pytest.raises(Unavailable) as refused:
        client.health()
    assert (refused.value.title, refused.value.detail) == ("The title", "The detail")
    assert refused.value.request_id == "r-1"
    assert time.slept == []


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"total_s": -1.0}, {"base_s": -1.0}, {"cap_s": -1.0}])
def test_a_retry_that_makes_no_sense_cannot_be_made(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"attempts must|must not be negative"):
        Retry(**wrong)  # type: ignore[arg-type]


def test_a_timeout_is_the_caller_s_own_limit() -> None:
    for late in (httpx.ReadTimeout("late"), httpx.WriteTimeout("late"), httpx.PoolTimeout("late")):
        script, time = Script([late]), Time()
        with client_of(script, time) as client, pytest.raises(ReplyTimeout, match="GET /health"):
            client.health()
        assert time.slept == []


def test_connections_that_never_come_about_end_in_an_error_with_its_cause() -> None:
    script, time = Script([httpx.ConnectError("refused")] * 2), Time()
    with client_of(script, time, Retry(attempts=2)) as client, pytest.raises(NoAnswer, match="2 attempt") as failed:
        client.health()
    assert isinstance(failed.value.__cause__, httpx.ConnectError)


def test_every_attempt_to_add_examples_carries_the_key_of_the_call() -> None:
    lost: list[Answer] = [httpx.ReadError("reset"), problem(503), ok(EXAMPLES_REPLY, 201)]
    script, time = Script([*lost, ok(EXAMPLES_REPLY, 201, **{"idempotency-replayed": "true"})]), Time()
    with client_of(script, time) as client:
        assert not client.add_examples("ada", [{"prompt": "p", "chosen": "c", "rejected": "r"}]).replayed
        assert client.add_examples("ada", [{"prompt": "p", "chosen": "c", "rejected": "r"}]).replayed
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]
    assert len({request.content for request in script.requests}) == 1


def test_an_erasure_whose_answer_was_lost_is_done_when_nothing_is_left() -> None:
    script, time = Script([httpx.ReadError("reset"), problem(404, "unknown-user")]), Time()
    with client_of(script, time) as client:
        client.delete_user("ada")
    script = Script([problem(503), problem(404, "unknown-user")])
    with client_of(script, time) as client, pytest.raises(NotFound):
        client.delete_user("ada")


def test_what_is_not_ready_says_what_is_missing() -> None:
    checks = {"backbone": True, "database": False, "models": True, "accepting": True}
    body = {"type": "/problems/not-ready", "title": "Not ready", "status": 503, "ready": False, "checks": checks}
    script, time = Script([ok(body, 503)]), Time()
    with client_of(script, time) as client:
        assert not client.ready().checks.database


def test_a_proxy_s_own_words_are_not_repeated() -> None:
    script, time = Script([httpx.Response(500, html="<p>secret</p>")]), Time()
    with client_of(script, time) as client, pytest.raises(ServerError) as refused:
        client.health()
    assert str(refused.value) == "500 Internal Server Error"
    assert refused.value.type == "about:blank"


@pytest.mark.parametrize("body", ["not json", json.dumps({"status": 3}), json.dumps([1]), "{}"])
def test_an_answer_that_is_none_is_an_error_that_does_not_quote_it(body: str) -> None:
    script, time = Script([httpx.Response(200, text=body)]), Time()
    with client_of(script, time) as client, pytest.raises(InvalidReply) as failed:
        client.health()
    assert "GET /health" in str(failed.value)
    assert "not json" not in str(failed.value)


@pytest.mark.parametrize("number", ["null", '"1.5"', "NaN", "1e999"])
def test_a_reward_that_is_no_finite_number_is_an_error(number: str) -> None:
    result = f'{{"rewards": [{number}], "uncertainties": [0.1], "ranking": [0], "truncated": false}}'
    usage = '{"texts": 1, "tokens": 1, "embeddings_cached": 0}'
    body = f'{{"model": "m@1", "backbone": "b", "results": [{result}], "usage": {usage}}}'
    script, time = Script([httpx.Response(200, text=body)]), Time()
    with client_of(script, time) as client, pytest.raises(InvalidReply):
        client.score(items=[{"prompt": "", "responses": [""]}])


def test_awaiting_is_tried_again_as_well() -> None:
    script, time = Script([problem(503, **{"retry-after": "2"}), httpx.ConnectError("refused"), ok(HEALTH)]), Time()

    async def ask() -> str:
        async with AsyncClient(BASE, transport=script.transport, timing=time.timing) as client:
            return (await client.health()).status

    assert asyncio.run(ask()) == "ok"
    assert time.slept == [2.125, 0.25]


def test_fewer_results_than_were_asked_for_are_an_error() -> None:
    script, time = Script([ok({**score_reply(), "results": []})]), Time()
    with client_of(script, time) as client, pytest.raises(InvalidReply, match="0 results for 1 items"):
        client.score(items=fifty_items()[:1])


def info(max_batch: int) -> dict[str, object]:
    fields = ("max_tokens", "max_users", "max_rewards", "max_pending_cells", "max_examples", "max_body_bytes")
    more = ("max_pending_body_bytes", "max_in_flight", "request_timeout_ms", "min_users")
    return {
        "name": "polyreward",
        "version": "0",
        "backbone": {"name": "b", "hash": "h", "dim": 1, "max_tokens": 1},
        "models": [],
        "limits": {"max_batch": max_batch, **dict.fromkeys((*fields, *more), 10_000)},
        "max_input_length": 1,
        "max_client_batch_size": 1,
        "max_concurrent_requests": 1,
        "auto_truncate": True,
        "embedding_cache": {"entries": 0, "bytes": 0, "max_bytes": 0, "hits": 0, "misses": 0},
        "queue": {"texts": 0},
    }


def score_reply() -> dict[str, object]:
    result = {"rewards": [1.0], "uncertainties": [0.1], "ranking": [0], "truncated": False}
    usage = {"texts": 1, "tokens": 1, "embeddings_cached": 0}
    return {"model": "m@1", "backbone": "b", "results": [result], "usage": usage}


def fifty_items() -> list[Item]:
    return [{"prompt": str(n), "responses": ["r"]} for n in range(50)]


def failing_script() -> Script:
    return Script([ok(info(1)), ok(score_reply()), ok(score_reply()), problem(422, "invalid-input")])


def assert_that_the_error_was_the_end(script: Script) -> None:
    assert len(script.requests) == 4
    models = [json.loads(request.content).get("model") for request in script.requests[1:]]
    assert models == [None, "m@1", "m@1"]


def test_the_first_error_of_a_divided_call_ends_it() -> None:
    script, time = failing_script(), Time()
    with (
        Client(BASE, transport=script.transport, timing=time.timing, max_concurrency=1) as client,
        pytest.raises(InvalidInput),
    ):
        client.score(items=fifty_items(), user_id="ada")
    assert_that_the_error_was_the_end(script)


def test_the_first_error_of_a_divided_call_that_is_awaited_ends_it() -> None:
    script, time = failing_script(), Time()

    async def ask() -> None:
        async with AsyncClient(BASE, transport=script.transport, timing=time.timing, max_concurrency=1) as client:
            await client.score(items=fifty_items(), user_id="ada")

    with pytest.raises(InvalidInput):
        asyncio.run(ask())
    assert_that_the_error_was_the_end(script)


def test_a_body_is_kept_below_the_server_s_limit() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert len(request.content) <= 10_000
        count = len(json.loads(request.content)["items"])
        reply = score_reply()
        return ok({**reply, "results": reply["results"] * count})  # type: ignore[operator]

    script, time = Script([ok(info(1000)), *[answer] * 9]), Time()
    items: list[Item] = [{"prompt": "p" * 1500, "responses": ["r"]} for _ in range(50)]
    with client_of(script, time) as client:
        assert len(client.score(items=items).results) == 50
    assert len(script.requests) == 10
