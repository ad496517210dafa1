"""How a client is made: addresses, keys, errors, and that the two clients are the same."""

from __future__ import annotations

import inspect
import logging
import pickle
import re
import traceback

import httpx
import pytest
from faults import BASE, HEALTH, Script, ok, problem

import polyreward
from polyreward import AsyncClient, Client, NoAnswer, ProblemError, Retry, Unauthorized
from polyreward._wire import Target

KEY = "pr_0123456789abcdef"


def sent_key(client: Client, script: Script) -> str | None:
    with client:
        client.health()
    key: str | None = script.requests[0].headers.get("authorization")
    return key


def script_of_health() -> Script:
    return Script([ok(HEALTH)])


def test_the_key_is_that_of_the_argument_else_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    script = script_of_health()
    assert sent_key(Client(BASE, transport=script.transport), script) is None
    monkeypatch.setenv("POLYREWARD_KEY", "of-import")
    script = script_of_health()
    assert sent_key(Client(BASE, transport=script.transport), script) == "Bearer of-import"
    monkeypatch.setenv("POLYREWARD_API_KEY", "of-environment")
    script = script_of_health()
    assert sent_key(Client(BASE, transport=script.transport), script) == "Bearer of-environment"
    script = script_of_health()
    assert sent_key(Client(BASE, KEY, transport=script.transport), script) == f"Bearer {KEY}"


def test_a_key_in_the_url_is_sent_as_a_header_and_nowhere_else() -> None:
    script = script_of_health()
    client = Client(f"http://any:{KEY}@server.test/base/", transport=script.transport)
    assert repr(client) == "Client('http://server.test/base')"
    assert sent_key(client, script) == f"Bearer {KEY}"
    assert str(script.requests[0].url) == "http://server.test/base/health"


def test_the_address_is_that_of_the_environment_else_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Target.of(None, None).base_url == "http://127.0.0.1:8080"
    monkeypatch.setenv("POLYREWARD_URL", "http://elsewhere.test")
    assert Target.of(None, None).base_url == "http://elsewhere.test"
    assert Target.of("http://here.test", None).base_url == "http://here.test"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://server.test", None),
        ("server.test", None),
        ("http://", None),
        ("http://server.test?a=b", None),
        ("http://server.test:port", None),
        (f"http://any:{KEY}@server.test", KEY),
        (BASE, "two words"),
        (BASE, "line\nbreak"),
        (BASE, "schlüssel"),
    ],
)
def test_what_cannot_be_used_is_refused_without_showing_the_key(url: str, key: str | None) -> None:
    with pytest.raises(ValueError, match=r"base URL|API key") as refused:
        Client(url, key)
    assert KEY not in str(refused.value)
    assert key is None or key not in str(refused.value)


def test_a_key_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = Script([problem(401, "unauthorized"), httpx.ConnectError("refused")])
    shown = [repr(Target.of(BASE, KEY))]
    with Client(f"http://any:{KEY}@server.test", transport=script.transport, retry=Retry.never()) as client:
        shown += [repr(client), str(client), repr(client._options)]
        for expected in (Unauthorized, NoAnswer):
            with pytest.raises(expected) as failed:
                client.health()
            shown.append("".join(traceback.format_exception(failed.value)))
            shown.append(repr(vars(failed.value)))
    assert script.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert all(KEY not in text for text in [*shown, caplog.text])


def test_an_error_can_be_sent_to_another_process() -> None:
    script = Script([problem(429, **{"retry-after": "3"})])
    with Client(BASE, transport=script.transport, retry=Retry.never()) as client, pytest.raises(ProblemError) as failed:
        client.health()
    again = pickle.loads(pickle.dumps(failed.value))
    assert type(again) is polyreward.RateLimited
    assert (str(again), again.problem, again.request_id, again.retry_after_s) == (
        "429 The title; The detail",
        failed.value.problem,
        "r-1",
        3.0,
    )


def test_the_server_is_told_how_long_somebody_waits() -> None:
    script = script_of_health()
    with Client(BASE, transport=script.transport, timeout=2.5) as client:
        client.health()
    assert script.requests[0].headers["x-request-timeout-ms"] == "2500"
    assert script.requests[0].headers["user-agent"].startswith("polyreward-python/")


def test_a_client_takes_at_least_one_request_at_a_time() -> None:
    with pytest.raises(ValueError, match="max_concurrency"):
        Client(BASE, max_concurrency=0)


def methods(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in ("close", "aclose")
    }


def test_the_two_clients_have_the_same_methods() -> None:
    waiting, awaiting = methods(Client), methods(AsyncClient)
    assert waiting.keys() == awaiting.keys()
    for name, signature in waiting.items():
        assert signature.parameters == awaiting[name].parameters, name
        returned = str(signature.return_annotation)
        assert re.sub("^Iterator", "AsyncIterator", returned) == awaiting[name].return_annotation, name
        assert getattr(Client, name).__doc__ == getattr(AsyncClient, name).__doc__, name
        if not returned.startswith("Iterator"):
            assert inspect.iscoroutinefunction(getattr(AsyncClient, name)), name


def test_everything_public_says_what_it_is() -> None:
    undocumented = [name for name in polyreward.__all__ if not inspect.getdoc(getattr(polyreward, name))]
    assert undocumented == ["__version__"] or undocumented == []
    for name in methods(Client):
        assert inspect.getdoc(getattr(Client, name)), name
