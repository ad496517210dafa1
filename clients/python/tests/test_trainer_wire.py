"""OpenRLHF and slime over HTTP, by aiohttp as they do: one sample a request, hundreds at once, no header settable."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from people import PROMPT, answers, likes
from servers import Server, binary, environment

from polyreward import Client, Retry

AT_ONCE = 512
POSTS = 2000
TEXTS = [f"{PROMPT} {answer}, cup {n}" for n, answer in zip(range(500), (answers("tea") + answers("coffee")) * 8)]
"""Prompt and response in one, as a policy's tokenizer decodes them."""

Send = Callable[[aiohttp.ClientSession, int], Awaitable[Any]]


async def post(session: aiohttp.ClientSession, url: str, body: object) -> Any:
    """As both trainers: a status that is no success raises, and the answer has to call itself JSON."""
    async with session.post(url, json=body) as response:
        response.raise_for_status()
        return await response.json()


def sample(text: str, label: object = "") -> dict[str, list[object]]:
    """OpenRLHF's request for one sample."""
    return {"query": [text], "prompts": [PROMPT], "labels": [label]}


def gathered(count: int, connections: int, timeout_s: float, send: Send) -> list[Any]:
    """`count` requests of which at most `AT_ONCE` are on their way, over so many connections; answers by position."""

    async def run() -> list[Any]:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(at: int) -> Any:
            async with places:
                return await send(session, at)

        timeout = aiohttp.ClientTimeout(total=timeout_s)
        connector = aiohttp.TCPConnector(limit=connections)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return list(await asyncio.gather(*(one(at) for at in range(count))))

    return asyncio.run(run())


def asked(url: str, body: object) -> Any:
    """One request alone."""
    return gathered(1, 1, 60, lambda session, _: post(session, url, body))[0]


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server that asks for a key, and the key; it knows two people."""
    folder = tmp_path_factory.mktemp("guarded")

    def key(scopes: str) -> str:
        command = [str(binary()), "keys", "create", "--name", scopes, "--scopes", scopes]
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    score, write = key("score"), key("write")
    running = Server(folder, models)
    with Client(running.url, api_key=write, retry=Retry.never()) as writer:
        writer.add_examples("tea-lover", likes("tea"), attributes={"drink": "tea"})
        writer.add_examples("coffee-lover", likes("coffee"), attributes={"drink": "coffee"})
    yield running.url, score
    running.stop()


def with_key(guarded: tuple[str, str], path: str) -> str:
    """The URL as a user gives it to a trainer: `http://any:KEY@host/path`."""
    url, key = guarded
    return url.replace("://", f"://any:{key}@", 1) + path


def batched(url: str, texts: Sequence[str], labels: Sequence[object] | None = None) -> list[float]:
    """The rewards of texts that are asked for together."""
    rewards: list[float] = []
    for start in range(0, len(texts), 50):
        some = list(texts[start : start + 50])
        body: dict[str, object] = {"query": some, "prompts": [PROMPT] * len(some)}
        if labels is not None:
            body["labels"] = list(labels[start : start + 50])
        rewards += asked(url, body)["rewards"]
    return rewards


def test_openrlhf_gets_each_sample_its_own_reward_with_hundreds_at_once(guarded: tuple[str, str]) -> None:
    url = with_key(guarded, "/get_reward?model=lore")

    async def send(session: aiohttp.ClientSession, at: int) -> Any:
        return await post(session, url, sample(TEXTS[at % len(TEXTS)]))

    found = gathered(POSTS, AT_ONCE, 180, send)
    expected = batched(url, TEXTS)
    assert len(set(expected)) > len(TEXTS) / 2
    for at, answer in enumerate(found):
        assert set(answer) == {"rewards", "scores", "extra_logs"}
        assert answer["rewards"] == [pytest.approx(expected[at % len(TEXTS)], abs=1e-4)]
        assert 0 <= answer["scores"][0] <= 1
        # Each becomes a tensor, and those of all samples one.
        assert list(answer["extra_logs"]) == ["reward_std"]
        assert isinstance(answer["extra_logs"]["reward_std"], float)


def test_openrlhf_s_servers_without_a_sample_answer_with_none(guarded: tuple[str, str]) -> None:
    url = with_key(guarded, "/get_reward")
    empty: dict[str, list[object]] = {"query": [], "prompts": [], "labels": []}
    assert asked(url, empty) == {"rewards": [], "scores": [], "extra_logs": {}}


def test_openrlhf_s_labels_carry_the_person(guarded: tuple[str, str]) -> None:
    people = ["tea-lover", "coffee-lover", "", {"user_id": "tea-lover"}, {"group": {"drink": "coffee"}}]
    by_label = with_key(guarded, "/get_reward?model=lore&labels=user_id")

    async def send(session: aiohttp.ClientSession, at: int) -> Any:
        return await post(session, by_label, sample(TEXTS[at // len(people)], people[at % len(people)]))

    found = [answer["rewards"][0] for answer in gathered(200, AT_ONCE, 180, send)]
    queries = ["&user_id=tea-lover", "&user_id=coffee-lover", "", "&user_id=tea-lover", "&group=drink:coffee"]
    for person, query in enumerate(queries):
        expected = batched(with_key(guarded, f"/get_reward?model=lore{query}"), TEXTS[:40])
        assert found[person :: len(people)] == [pytest.approx(reward, abs=1e-4) for reward in expected]
    assert found[0] != pytest.approx(found[1], abs=1e-3)
    together = batched(by_label, [TEXTS[0]] * len(people), people)
    assert together == [pytest.approx(reward, abs=1e-4) for reward in found[: len(people)]]


@pytest.mark.parametrize("path", ["/get_reward", "/rm"])
def test_without_the_key_in_its_url_a_trainer_is_refused(guarded: tuple[str, str], path: str) -> None:
    for url in (guarded[0] + path, with_key((guarded[0], "not-the-key"), path)):
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            asked(url, sample(TEXTS[0]))
        assert refused.value.status == 401


def test_slime_gets_a_bare_number_or_an_object_by_its_shape(guarded: tuple[str, str]) -> None:
    prompts: list[object] = [PROMPT, [{"role": "user", "content": PROMPT}]]
    responses = answers("tea") + answers("coffee")
    labels = ["tea-lover", "coffee-lover", None]

    def body(at: int) -> dict[str, object]:
        prompt, label = prompts[at % 2], labels[at % 3]
        return {"prompt": prompt, "response": responses[at % len(responses)], "label": label}

    def all_of(shape: str) -> list[Any]:
        url = with_key(guarded, f"/rm?model=lore&labels=user_id{shape}")

        async def send(session: aiohttp.ClientSession, at: int) -> Any:
            return await post(session, url, body(at))

        return gathered(POSTS, 64, 120, send)

    numbers, objects = all_of("&shape=number"), all_of("")
    assert all(isinstance(number, float) for number in numbers)
    assert numbers == [pytest.approx(answer["score"], abs=1e-4) for answer in objects]
    assert all(0 <= answer["prob"] <= 1 for answer in objects)
    period = 2 * 3 * len(responses)
    assert numbers[: POSTS - period] == [pytest.approx(number, abs=1e-4) for number in numbers[period:]]
    assert len(set(numbers)) > 100
