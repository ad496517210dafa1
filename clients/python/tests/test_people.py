"""People, their examples and the server itself, on a real server."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from people import PROMPT, answers, likes
from servers import Server

from polyreward import AsyncClient, BadRequest, Client, Conflict, InvalidInput, NotFound, Retry
from polyreward.types import Pair


@pytest.fixture
def somebody() -> str:
    """An id that no other test uses."""
    return f"somebody-{uuid.uuid4().hex}"


def test_examples_are_stored_and_learned_from(client: Client, somebody: str) -> None:
    reply = client.add_examples(somebody, likes("coffee", 3), attributes={"country": "DE"})
    assert (reply.accepted, reply.duplicates, reply.examples) == (3, 0, 3)
    assert {prediction.model.split("@")[0] for prediction in reply.predictions} == {"bt", "lore"}
    assert not reply.replayed
    profile = client.user(somebody)
    assert profile.attributes == {"country": "DE"}
    assert profile.state_version == reply.state_version
    assert any(state.head == "lore" and state.examples == 3 and state.weights for state in profile.states.values())


def test_a_key_of_the_caller_s_own_gives_the_first_answer_again(client: Client, somebody: str) -> None:
    first = client.add_examples(somebody, likes("tea", 2), idempotency_key=somebody)
    again = client.add_examples(somebody, likes("tea", 2), idempotency_key=somebody)
    assert again.replayed
    assert again.model_dump() == first.model_dump()
    with pytest.raises(Conflict) as refused:
        client.add_examples(somebody, likes("coffee", 2), idempotency_key=somebody)
    assert refused.value.type == "/problems/idempotency-conflict"


def test_two_calls_are_two_requests(client: Client, somebody: str) -> None:
    client.add_examples(somebody, likes("tea", 2))
    again = client.add_examples(somebody, likes("tea", 2))
    assert (again.accepted, again.duplicates) == (0, 2)
    assert not again.replayed


def test_an_example_is_listed_and_can_be_forgotten(client: Client, somebody: str) -> None:
    ids = client.add_examples(somebody, likes("tea", 3)).example_ids
    assert [example.id for example in client.examples(somebody, page_size=1)] == ids
    client.delete_example(somebody, ids[1])
    assert [example.id for example in client.examples(somebody)] == [ids[0], ids[2]]
    with pytest.raises(NotFound):
        client.delete_example(somebody, ids[1])


def test_every_page_is_read(client: Client, somebody: str) -> None:
    names = [f"{somebody}-{n}" for n in range(5)]
    for name in names:
        client.put_user(name, {"of": somebody, "number": name[-1]})
    found = [user.user_id for user in client.users(page_size=2) if user.user_id.startswith(somebody)]
    assert found == names
    groups = {(group.key, group.value): group.users for group in client.groups(page_size=3)}
    assert groups["of", somebody] == 5
    assert groups["number", "3"] >= 1


def test_pages_are_read_as_they_are_asked_for(client: Client, somebody: str) -> None:
    async def ask() -> tuple[list[str], list[str]]:
        async with AsyncClient(client._options.target.base_url, retry=Retry.never()) as asynchronous:
            ids = (await asynchronous.add_examples(somebody, likes("tea", 3))).example_ids
            listed = [example.id async for example in asynchronous.examples(somebody, page_size=2)]
        return ids, listed

    ids, listed = asyncio.run(ask())
    assert listed == ids


def test_a_person_can_be_erased(client: Client, somebody: str) -> None:
    client.add_examples(somebody, likes("tea", 1))
    client.delete_user(somebody)
    with pytest.raises(NotFound) as missing:
        client.user(somebody)
    assert missing.value.type == "/problems/unknown-user"


def test_attributes_are_replaced(client: Client, somebody: str) -> None:
    client.put_user(somebody, {"country": "UK", "age": "25-34"})
    assert client.put_user(somebody, {"country": "DE"}).attributes == {"country": "DE"}


@pytest.mark.parametrize("identifier", [".", "..", "~", "a.b_c-d~e"])
def test_every_id_that_the_server_takes_reaches_it(client: Client, identifier: str) -> None:
    client.put_user(identifier, {"odd": "yes"})
    assert client.user(identifier).user_id == identifier
    client.delete_user(identifier)


@pytest.mark.parametrize("identifier", ["", "a/b", "a b", "ä", "x" * 129, "a\n"])
def test_an_id_that_could_be_another_route_is_not_sent(client: Client, identifier: str) -> None:
    with pytest.raises(ValueError, match="a user id is"):
        client.delete_user(identifier)
    with pytest.raises(ValueError, match="an example id is"):
        client.delete_example("ada", identifier)


def test_the_pair_to_ask_about_comes_first(client: Client, somebody: str) -> None:
    tea, coffee = answers("tea"), answers("coffee")
    pairs: list[Pair] = [
        {"prompt": PROMPT, "response_a": tea[0], "response_b": tea[0]},
        {"prompt": PROMPT, "response_a": tea[0], "response_b": coffee[0]},
    ]
    reply = client.queries(somebody, pairs, model="lore")
    assert [query.index for query in reply.queries] == [1, 0]
    assert reply.queries[0].information_gain > reply.queries[1].information_gain
    assert len(client.queries(somebody, pairs, limit=1).queries) == 1


def test_wrong_input_is_named(client: Client, somebody: str) -> None:
    examples = likes("tea", 2)
    examples[1]["strength"] = 1000.0
    with pytest.raises(InvalidInput) as refused:
        client.add_examples(somebody, examples)
    assert [fault.pointer for fault in refused.value.errors] == ["/examples/1/strength"]
    assert "/examples/1/strength" in str(refused.value)
    with pytest.raises(BadRequest) as wrong:
        list(client.users(page_size=0))
    assert wrong.value.errors[0].parameter == "limit"


def test_models_are_listed_and_chosen(client: Client) -> None:
    models = {model.name: model for model in client.models(page_size=1)}
    assert set(models) == {"bt", "lore"}
    assert client.failed_models() == []
    assert client.reload_models().failed == []
    before = client.info().default_model
    assert before is not None
    try:
        assert client.set_default_model("lore").model == models["lore"].model
        assert client.info().default_model == models["lore"].model
    finally:
        client.set_default_model(before)


def test_the_server_says_what_it_is(client: Client, server: Server) -> None:
    assert client.health().status == "ok"
    assert client.ready().ready
    info = client.info()
    assert info.name == "polyreward"
    assert info.limits.max_batch == 8
    assert info.backbone.dim > 0
    assert repr(client) == f"Client({server.url!r})"
