"""What a type checker is told: `mypy --strict` reads this file, and it runs as well."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from people import PROMPT, answers
from typing_extensions import assert_type

from polyreward import AsyncClient, Client, Retry
from polyreward.models import (
    AnyResult,
    AudienceResult,
    ItemResult,
    ItemResultOfUsers,
    PairResult,
    PairResultOfUsers,
    RefusedResult,
    ScoreReply,
    User,
)
from polyreward.types import Audience, Item, Pair

TEA, COFFEE = answers("tea", 1)[0], answers("coffee", 1)[0]
PAIRS: list[Pair] = [{"prompt": PROMPT, "response_a": TEA, "response_b": COFFEE}]
ITEMS: list[Item] = [{"prompt": PROMPT, "responses": [TEA]}]
EVERYBODY: Audience = {"group": {}}


def test_the_kind_of_result_follows_from_the_question(client: Client) -> None:
    assert_type(client.score(pairs=PAIRS), ScoreReply[PairResult])
    assert_type(client.score(items=ITEMS, user_id="ada", model="lore"), ScoreReply[ItemResult])
    assert_type(client.score(pairs=PAIRS, user_ids=["ada"]), ScoreReply[PairResultOfUsers])
    assert_type(client.score(items=ITEMS, user_ids=["ada"]), ScoreReply[ItemResultOfUsers])
    assert_type(client.score(pairs=PAIRS, audience=EVERYBODY), ScoreReply[AudienceResult])
    assert_type(client.score(items=ITEMS, partial=True), ScoreReply[AnyResult])
    assert_type(client.users(), Iterator[User])
    first = client.score(pairs=PAIRS).results[0]
    assert_type(first.preference, float)


def test_the_class_of_a_result_is_what_the_checker_was_told(client: Client) -> None:
    kinds: list[tuple[ScoreReply, type]] = [
        (client.score(pairs=PAIRS), PairResult),
        (client.score(items=ITEMS), ItemResult),
        (client.score(pairs=PAIRS, user_ids=["ada"]), PairResultOfUsers),
        (client.score(items=ITEMS, user_ids=["ada"]), ItemResultOfUsers),
        (client.score(items=ITEMS, audience=EVERYBODY), AudienceResult),
    ]
    assert [type(reply.results[0]) for reply, _ in kinds] == [kind for _, kind in kinds]
    result = client.score(items=ITEMS, partial=True).results[0]
    assert not isinstance(result, RefusedResult)


def test_awaiting_has_the_same_kinds(url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(url, retry=Retry.never()) as client:
            assert_type(await client.score(pairs=PAIRS), ScoreReply[PairResult])
            assert_type(await client.score(items=ITEMS, user_ids=["ada"]), ScoreReply[ItemResultOfUsers])

    asyncio.run(ask())
