"""Scoring on a real server that takes eight texts at once."""

from __future__ import annotations

import asyncio
import math

import pytest
from people import PROMPT, answers, likes

from polyreward import AsyncClient, Client, InvalidInput, NotFound, Retry, TooLarge
from polyreward.models import ItemResult, PairResult, RefusedResult, Tournament
from polyreward.types import Audience, Item, Pair

TEA, COFFEE = answers("tea"), answers("coffee")


def items(count: int) -> list[Item]:
    return [{"prompt": PROMPT, "responses": [TEA[n], COFFEE[n]]} for n in range(count)]


def pairs(count: int) -> list[Pair]:
    return [{"prompt": PROMPT, "response_a": TEA[n], "response_b": COFFEE[n]} for n in range(count)]


@pytest.fixture
def drinkers(client: Client) -> None:
    client.add_examples("tea-lover", likes("tea"), attributes={"drink": "tea"})
    client.add_examples("coffee-lover", likes("coffee"), attributes={"drink": "coffee"})


def test_rewards_differ_by_person(client: Client, drinkers: None) -> None:
    item: Item = {"prompt": PROMPT, "responses": [TEA[20], COFFEE[20]]}
    tea = client.score(items=[item], user_id="tea-lover", model="lore")
    coffee = client.score(items=[item], user_id="coffee-lover", model="lore")
    assert tea.results[0].ranking == [0, 1]
    assert coffee.results[0].ranking == [1, 0]
    assert tea.user is not None
    assert tea.user.known
    assert tea.state_versions != coffee.state_versions


def test_an_unknown_person_has_the_population_s_reward(client: Client) -> None:
    stranger = client.score(items=items(1), user_id="nobody", model="lore")
    population = client.score(items=items(1), model="lore")
    assert stranger.user is not None
    assert not stranger.user.known
    assert stranger.results == population.results


def test_a_pair_is_antisymmetric(client: Client) -> None:
    there = client.score(pairs=[{"prompt": PROMPT, "response_a": TEA[0], "response_b": COFFEE[0]}])
    back = client.score(pairs=[{"prompt": PROMPT, "response_a": COFFEE[0], "response_b": TEA[0]}])
    assert there.results[0].preference == 1 - back.results[0].preference
    assert isinstance(there.results[0], PairResult)


def test_people_are_scored_together(client: Client, drinkers: None) -> None:
    of_both = client.score(items=items(1), user_ids=["tea-lover", "coffee-lover"], model="lore")
    alone = [client.score(items=items(1), user_id=who, model="lore") for who in ("tea-lover", "coffee-lover")]
    for together, single in zip(of_both.results[0].rewards, alone):
        assert together == pytest.approx(single.results[0].rewards, abs=1e-4)
    assert of_both.users is not None
    assert [user.user_id for user in of_both.users] == ["tea-lover", "coffee-lover"]


def test_an_audience_has_the_aggregates_that_were_asked_for(client: Client, drinkers: None) -> None:
    reply = client.score(
        pairs=pairs(1),
        audience={"group": {"drink": "tea"}, "aggregate": ["mean", "min"]},
        model="lore",
        reward_scale="win_rate",
    )
    aggregates = reply.results[0].aggregates
    assert aggregates.mean is not None
    assert aggregates.min is not None
    assert aggregates.share is None
    assert all(0 <= reward <= 1 for reward in aggregates.mean + aggregates.min)
    assert reply.audience is not None
    assert reply.audience.users == 1


BOTH: Audience = {
    "groups": [
        {"group": {"drink": "tea"}, "weight": 0.75},
        {"group": {"drink": "coffee"}, "weight": 0.25},
    ]
}


def test_groups_count_by_weight_and_the_worst_off_by_themselves(client: Client, drinkers: None) -> None:
    reply = client.score(
        items=items(1), audience={**BOTH, "aggregate": ["mean", "min", "nash"]}, model="lore", reward_scale="win_rate"
    )
    result = reply.results[0]
    tea, coffee = result.groups
    aggregates = result.aggregates
    assert aggregates.mean == pytest.approx([0.75 * a + 0.25 * b for a, b in zip(tea, coffee)], abs=1e-5)
    assert aggregates.min == pytest.approx([min(a, b) for a, b in zip(tea, coffee)], abs=1e-6)
    assert aggregates.nash == pytest.approx([a**0.75 * b**0.25 for a, b in zip(tea, coffee)], abs=1e-5)
    assert reply.audience is not None
    assert reply.audience.groups == [1, 1]
    with pytest.raises(InvalidInput) as refused:
        client.score(items=items(1), audience={**BOTH, "aggregate": ["nash"]}, model="lore")
    assert [fault.pointer for fault in refused.value.errors] == ["/audience/aggregate/0"]


def test_the_group_that_is_worst_off_over_the_whole_call_is_served(client: Client, drinkers: None) -> None:
    asked: Audience = {**BOTH, "aggregate": ["maxmin", "min"]}
    reply = client.score(items=items(3), audience=asked, model="lore", reward_scale="win_rate")
    means = [
        sum(sum(result.groups[group]) for result in reply.results)
        / sum(len(result.ranking) for result in reply.results)
        for group in (0, 1)
    ]
    assert reply.audience is not None
    assert reply.audience.worst_off == means.index(min(means))
    for result in reply.results:
        assert result.aggregates.maxmin == result.groups[reply.audience.worst_off]
    # A batch that is judged as one is not divided: the server takes eight texts.
    with pytest.raises(TooLarge):
        client.score(items=items(5), audience=asked, model="lore", reward_scale="win_rate")
    mean: Audience = {**BOTH, "aggregate": ["mean"]}
    assert len(client.score(items=items(5), audience=mean, model="lore").results) == 5


def test_a_tournament_names_a_winner_by_each_rule(client: Client, url: str, drinkers: None) -> None:
    responses = [COFFEE[20], TEA[20], "neither"]
    reply = client.tournament(PROMPT, responses, BOTH, model="lore")
    assert reply.preference[0][1] == 1 - reply.preference[1][0]
    assert sum(reply.maximal_lottery) == pytest.approx(1)
    assert sum(reply.regularized.lottery) == pytest.approx(1)
    assert reply.regularized.beta == 0.1
    uniform = client.tournament(PROMPT, responses, BOTH, model="lore", beta=10).regularized
    assert uniform.lottery == pytest.approx([1 / 3] * 3, abs=0.05)
    assert reply.winners.borda == reply.borda.index(max(reply.borda))

    async def awaited() -> Tournament:
        async with AsyncClient(url) as other:
            return await other.tournament(PROMPT, responses, BOTH, model="lore")

    assert asyncio.run(awaited()).preference == reply.preference


@pytest.mark.parametrize("kind", ["pairs", "items"])
def test_a_call_that_is_divided_keeps_its_order(client: Client, drinkers: None, kind: str) -> None:
    def rewards(start: int, stop: int) -> list[list[float]]:
        if kind == "items":
            reply = client.score(items=items(stop)[start:], user_id="tea-lover", model="lore")
            return [result.rewards for result in reply.results]
        answer = client.score(pairs=pairs(stop)[start:], user_id="tea-lover", model="lore")
        return [[result.reward_a, result.reward_b] for result in answer.results]

    together = rewards(0, 23)
    one_by_one = [rewards(n, n + 1)[0] for n in range(23)]
    assert len(together) == 23
    for here, there in zip(together, one_by_one):
        assert here == pytest.approx(there, abs=1e-4)
    assert len({tuple(reward) for reward in together}) == 23


def test_usage_of_a_divided_call_is_that_of_all_parts(client: Client) -> None:
    reply = client.score(items=items(12))
    assert reply.usage.texts == 24
    assert len(reply.state_versions) == 1


def test_a_divided_call_is_answered_by_one_version(client: Client) -> None:
    named = client.score(items=items(12), model="lore")
    assert named.model.startswith("lore@")
    again = client.score(items=items(12), model=named.model)
    assert again.model == named.model
    assert again.results == named.results


def test_limits_are_asked_for_once(client: Client) -> None:
    assert client.limits().max_batch == 8
    assert client.limits() is client.limits()


def test_one_item_with_more_responses_than_are_taken_is_refused_with_the_limit(client: Client) -> None:
    with pytest.raises(TooLarge) as refused:
        client.score(items=[{"prompt": PROMPT, "responses": TEA[:9]}, {"prompt": PROMPT, "responses": TEA[:1]}])
    assert refused.value.problem.limit is not None
    assert (refused.value.problem.limit.name, refused.value.problem.limit.value) == ("max_batch", 8)


def test_a_pointer_is_into_the_call_and_not_into_a_part_of_it(client: Client) -> None:
    asked = items(20)
    asked[17] = {"prompt": " ".join(TEA * 40), "responses": ["long"]}
    with pytest.raises(InvalidInput) as refused:
        client.score(items=asked, on_overflow="error")
    assert [fault.pointer for fault in refused.value.errors] == ["/items/17/responses/0"]
    assert refused.value.type == "/problems/invalid-input"
    assert refused.value.request_id


def test_partial_answers_the_good_ones(client: Client) -> None:
    asked = items(20)
    asked[17] = {"prompt": " ".join(TEA * 40), "responses": ["long"]}
    reply = client.score(items=asked, on_overflow="error", partial=True)
    assert [type(result) for result in reply.results] == [ItemResult] * 17 + [RefusedResult] + [ItemResult] * 2
    refused = reply.results[17]
    assert isinstance(refused, RefusedResult)
    assert refused.error.type == "/problems/too-long"
    assert refused.error.pointer == "/items/17/responses/0"


def test_an_unknown_model_is_named(client: Client) -> None:
    with pytest.raises(InvalidInput, match="no such model") as refused:
        client.score(items=items(1), model="nonesuch")
    assert refused.value.type == "/problems/unknown-model"


def test_a_chat_is_a_prompt(client: Client) -> None:
    chat: Item = {"prompt": [{"role": "user", "content": PROMPT}], "responses": [TEA[0]]}
    assert math.isfinite(client.score(items=[chat]).results[0].rewards[0])


def test_what_contradicts_itself_is_not_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="pairs or items"):
        client.score(pairs=pairs(1), items=items(1))  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="one of user_id"):
        client.score(items=items(1), user_id="ada", user_ids=["ada"])  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="surrogate"):
        client.score(items=[{"prompt": "\ud800", "responses": [""]}])


def test_a_wrong_path_is_not_found(url: str) -> None:
    with Client(url + "/elsewhere", retry=Retry.never()) as client, pytest.raises(NotFound):
        client.score(items=items(1))


def test_awaiting_gives_the_same(client: Client, url: str, drinkers: None) -> None:
    async def ask() -> list[list[float]]:
        async with AsyncClient(url, retry=Retry.never(), max_concurrency=3) as asynchronous:
            replies = await asyncio.gather(
                *(
                    asynchronous.score(items=items(23), user_id=who, model="lore")
                    for who in ("tea-lover", "coffee-lover")
                )
            )
        return [result.rewards for reply in replies for result in reply.results]

    awaited = asyncio.run(ask())
    waited = [
        result.rewards
        for who in ("tea-lover", "coffee-lover")
        for result in client.score(items=items(23), user_id=who, model="lore").results
    ]
    assert awaited == [pytest.approx(rewards, abs=1e-4) for rewards in waited]


def test_one_client_serves_two_event_loops(url: str) -> None:
    client = AsyncClient(url, retry=Retry.never())

    async def ask() -> list[ItemResult]:
        reply = await client.score(items=items(12))
        await client.aclose()
        return reply.results

    assert asyncio.run(ask()) == asyncio.run(ask())


def test_one_client_serves_two_event_loops_at_the_same_time(url: str) -> None:
    client = AsyncClient(url, retry=Retry.never())

    async def elsewhere() -> list[ItemResult]:
        async with client:
            return (await client.score(items=items(12))).results

    async def here() -> None:
        async with client:
            before = await client.score(items=items(12))
            other = await asyncio.to_thread(asyncio.run, elsewhere())
            after = await client.score(items=items(12))
            assert before.results == other == after.results

    asyncio.run(here())
