"""The adapters as their trainers call them, on a real server; faults come from a script."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from faults import BASE, Script, Time, problem
from frameworks import Tensor, frameworks
from people import PROMPT, answers, likes

from polyreward import AsyncClient, Client, InvalidInput, NoAnswer, Retry, Unauthorized, Unavailable
from polyreward.integrations import (
    SubstitutedRewardWarning,
    trl_reward,
    verl_compute_score,
    verl_compute_score_async,
)
from polyreward.integrations import _rewards as rewards_module
from polyreward.integrations import verl as verl_module
from polyreward.integrations.verifiers import verifiers_group_reward, verifiers_reward

__all__ = ["frameworks"]

TEA, COFFEE = answers("tea"), answers("coffee")
LONG = " ".join(TEA * 40)


@pytest.fixture(autouse=True)
def people(client: Client) -> Iterator[None]:
    """Two people whose tastes differ, and an adapters' pool that is closed at the end."""
    client.add_examples("tea-lover", likes("tea"), attributes={"drink": "tea"})
    client.add_examples("coffee-lover", likes("coffee"), attributes={"drink": "coffee"})
    yield
    for shared in rewards_module._clients.values():
        shared.close()
    rewards_module._clients.clear()
    rewards_module._async_clients.clear()
    verl_module.failures.clear()


def single(client: Client, prompt: Any, response: str, user: str | None, **more: Any) -> float:
    """The reward that the server gives to one response."""
    reply = client.score(items=[{"prompt": prompt, "responses": [response]}], user_id=user, model="lore", **more)
    reward: float = reply.results[0].rewards[0]
    return reward


def near(value: float | None) -> Any:
    return pytest.approx(value, abs=1e-4)


def unreachable(status: int = 503) -> Script:
    return Script([problem(status)] * 100)


def awaited(call: Any, *clients: AsyncClient) -> Any:
    """Runs a coroutine function, and closes clients on its loop."""

    async def run() -> Any:
        try:
            return await call()
        finally:
            for client in clients:
                await client.aclose()

    return asyncio.run(run())


# TRL


def trl(url: str, columns: dict[str, Any], prompts: list[Any], completions: list[Any], **settings: Any) -> Any:
    client = AsyncClient(url, retry=Retry.never())
    reward = trl_reward(client=client, model="lore", **settings)
    return awaited(lambda: reward(prompts=prompts, completions=completions, **columns), client)


def test_trl_takes_it_for_an_asynchronous_function_with_a_name() -> None:
    reward = trl_reward(BASE, model="pal-a@3f9c")
    assert inspect.iscoroutinefunction(reward)
    assert reward.__name__ == "polyreward_pal_a_3f9c"
    assert trl_reward(BASE, name="of_ada").__name__ == "of_ada"


def test_trl_rewards_are_each_row_s_person_s_in_order(client: Client, url: str) -> None:
    users = ["tea-lover", "coffee-lover", None, "nobody"] * 6
    responses = [*TEA[:12], *COFFEE[:12]]
    columns = {"user_id": users, "completion_ids": [[1]] * 24, "trainer_state": object(), "log_extra": print}
    found = trl(url, columns, [PROMPT] * 24, responses)
    assert found == [near(single(client, PROMPT, text, user)) for text, user in zip(responses, users)]
    assert len(set(found)) > 20


def test_trl_conversations_are_prompts_and_responses(client: Client, url: str) -> None:
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    plain = [{"role": "system", "content": "Be short."}, {"role": "user", "content": PROMPT}]
    completions: list[Any] = [
        [{"role": "assistant", "content": TEA[0]}],
        [
            {"role": "assistant", "content": None, "tool_calls": [{"name": "kettle"}]},
            {"role": "tool", "content": "hot"},
            {"role": "assistant", "content": TEA[1]},
        ],
    ]
    found = trl(url, {"user_id": ["tea-lover"] * 2}, [chat, chat], completions)
    turns = [*plain, {"role": "assistant", "content": ""}, {"role": "tool", "content": "hot"}]
    assert found == [
        near(single(client, plain, TEA[0], "tea-lover")),
        near(single(client, turns, TEA[1], "tea-lover")),
    ]


def test_trl_groups_are_audiences(client: Client, url: str) -> None:
    columns = {"of": [{"drink": "tea", "age": None}, "drink:coffee", "drink=coffee"]}
    found = trl(url, columns, [PROMPT] * 3, [TEA[0]] * 3, user_column=None, group_column="of")
    assert found == [near(single(client, PROMPT, TEA[0], who)) for who in ("tea-lover", "coffee-lover", "coffee-lover")]


def test_trl_metrics_are_reported(url: str) -> None:
    metrics: dict[str, float] = {}
    columns = {"user_id": [None], "log_metric": metrics.__setitem__}
    trl(url, columns, [PROMPT], [TEA[0]], clock=iter([1.0, 1.25]).__next__)
    assert metrics == {"reward_server/latency_ms": 250.0}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "says nothing of 'user_id'"),
        ({"user_id": ["a"]}, "1 values for 2 prompts"),
        ({"user_id": ["a b", "a"]}, "a user id is"),
    ],
)
def test_trl_rows_that_cannot_be_understood_are_errors(url: str, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trl(url, columns, [PROMPT] * 2, TEA[:2])


def test_trl_pictures_are_refused(url: str) -> None:
    picture = [{"role": "user", "content": [{"type": "image", "image": "..."}]}]
    with pytest.raises(ValueError, match="reads text only"):
        trl(url, {"user_id": [None]}, [picture], [TEA[0]])


def test_trl_needs_no_column_for_the_population(client: Client, url: str) -> None:
    assert trl(url, {}, [PROMPT], [TEA[0]], user_column=None) == [near(single(client, PROMPT, TEA[0], None))]


def test_trl_nothing_in_nothing_out(url: str) -> None:
    assert trl(url, {"user_id": []}, [], []) == []


def test_trl_raises_where_a_text_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        trl(url, {"user_id": [None] * 2}, [PROMPT] * 2, [LONG, TEA[0]], on_overflow="error")


@pytest.mark.parametrize(("on_error", "expected"), [("none", None), (-3, -3.0)])
def test_trl_replaces_a_refused_text_alone_and_counts_it(
    client: Client, url: str, on_error: Any, expected: float | None
) -> None:
    asked = AsyncClient(url, retry=Retry.never())
    reward = trl_reward(client=asked, model="lore", on_overflow="error", on_error=on_error)
    metrics: dict[str, float] = {}
    with pytest.warns(SubstitutedRewardWarning, match="1 reward"):
        found = awaited(
            lambda: reward([PROMPT] * 3, [TEA[0], LONG, TEA[1]], user_id=[None] * 3, log_metric=metrics.__setitem__),
            asked,
        )
    assert found == [near(single(client, PROMPT, TEA[0], None)), expected, near(single(client, PROMPT, TEA[1], None))]
    assert reward.failures.substituted == 1
    assert reward.failures.by_kind == {"/problems/too-long": 1}
    assert metrics["reward_server/substituted"] == 1.0


def scripted(script: Script) -> AsyncClient:
    return AsyncClient(BASE, transport=script.transport, retry=Retry.never(), timing=Time().timing)


def test_trl_replaces_the_rewards_of_an_outage_only_on_request() -> None:
    client = scripted(unreachable())
    with pytest.raises(Unavailable):
        awaited(lambda: trl_reward(client=client)([PROMPT], ["r"], user_id=[None]), client)
    reward = trl_reward(client=client, on_error="none")
    with pytest.warns(SubstitutedRewardWarning):
        assert awaited(lambda: reward([PROMPT] * 3, ["r"] * 3, user_id=["a", "a", "b"]), client) == [None] * 3
    assert (reward.failures.substituted, reward.failures.raised) == (3, 0)


def test_what_every_call_would_meet_again_is_never_replaced() -> None:
    client = scripted(unreachable(401))
    reward = trl_reward(client=client, on_error=0.0)
    with pytest.raises(Unauthorized):
        awaited(lambda: reward([PROMPT], ["r"], user_id=[None]), client)
    assert (reward.failures.substituted, reward.failures.raised) == (0, 1)


@pytest.mark.parametrize("wrong", ["zero", True, None])
def test_a_substitute_is_none_or_a_number(wrong: Any) -> None:
    with pytest.raises(ValueError, match="on_error is"):
        trl_reward(BASE, on_error=wrong)


# verl


def verl_settings(url: str) -> dict[str, Any]:
    return {"base_url": url, "model": "lore", "reward_router_address": None, "reward_model_tokenizer": None}


def test_verl_gives_the_person_s_reward_with_the_same_keys_always(client: Client, url: str) -> None:
    for extra, known in (
        ({"user_id": "tea-lover", "prompt": PROMPT, "num_turns": 2}, 1.0),
        ({"user_id": None, "question": PROMPT}, 0.0),
        ({"group": {"drink": "tea"}, "prompt": PROMPT}, 1.0),
    ):
        found = verl_compute_score(
            data_source="d", solution_str=TEA[0], ground_truth="", extra_info=extra, **verl_settings(url)
        )
        assert list(found) == ["score", "known", "truncated", "substituted"]
        assert all(type(value) is float for value in found.values())
        assert found["known"] == known
        who = "tea-lover" if known else None
        assert found["score"] == near(single(client, PROMPT, TEA[0], who))


def test_verl_can_be_awaited(client: Client, url: str) -> None:
    async def ask() -> dict[str, float]:
        extra = {"user_id": "coffee-lover", "prompt": PROMPT}
        found = await verl_compute_score_async(
            data_source="d", solution_str=TEA[0], ground_truth="", extra_info=extra, **verl_settings(url)
        )
        await rewards_module.shared_async_client(url, None).aclose()
        return found

    assert inspect.iscoroutinefunction(verl_compute_score_async)
    assert asyncio.run(ask())["score"] == near(single(client, PROMPT, TEA[0], "coffee-lover"))


def test_verl_s_batch_manager_gets_a_list_in_order(client: Client, url: str) -> None:
    users = ["tea-lover", "coffee-lover"] * 6
    found = verl_module.compute_score_batch(
        data_sources=["d"] * 12,
        solution_strs=TEA[:12],
        ground_truths=[""] * 12,
        extra_infos=[{"user_id": user, "prompt": PROMPT} for user in users],
        **verl_settings(url),
    )
    assert [row["score"] for row in found] == [
        near(single(client, PROMPT, text, user)) for text, user in zip(TEA, users)
    ]


def test_verl_loads_the_file_by_its_path(url: str) -> None:
    """As verl does: the module has no package, and a name of verl's."""
    spec = importlib.util.spec_from_file_location("custom_module", verl_module.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    extra = {"user_id": "tea-lover", "prompt": PROMPT}
    found = module.compute_score("d", TEA[0], "", extra, **verl_settings(url))
    assert found == verl_compute_score("d", TEA[0], "", extra, **verl_settings(url))


def test_verl_s_prompt_and_person_must_be_in_extra_info(url: str) -> None:
    with pytest.raises(ValueError, match='no "prompt"'):
        verl_compute_score("d", TEA[0], "", {"user_id": "ada"}, **verl_settings(url))
    with pytest.raises(ValueError, match="'user_id' or 'group'"):
        verl_compute_score("d", TEA[0], "", {"prompt": PROMPT}, **verl_settings(url))
    extra = {"user_id": "ada", "group": "drink:tea", "prompt": PROMPT}
    with pytest.raises(ValueError, match="a user and a group"):
        verl_compute_score("d", TEA[0], "", extra, **verl_settings(url))
    with pytest.raises(ValueError, match="stacks numbers"):
        verl_compute_score("d", TEA[0], "", {"prompt": PROMPT}, on_error="none", **verl_settings(url))


def test_verl_substitutes_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    script = unreachable()
    made = Client(BASE, transport=script.transport, retry=Retry.never())
    monkeypatch.setattr(verl_module, "shared_client", lambda url, key: made)
    extra = {"user_id": "ada", "prompt": PROMPT}
    with pytest.raises(Unavailable):
        verl_compute_score("d", TEA[0], "", extra)
    with pytest.warns(SubstitutedRewardWarning, match=r"set to -1\.0"):
        found = verl_compute_score("d", TEA[0], "", extra, on_error=-1.0)
    assert found == {"score": -1.0, "known": 0.0, "truncated": 0.0, "substituted": 1.0}
    assert (verl_module.failures.raised, verl_module.failures.substituted) == (1, 1)
    made.close()


def test_a_process_that_was_forked_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    here = rewards_module.shared_client(url, None)
    assert rewards_module.shared_client(url, None) is here
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert rewards_module.shared_client(url, None) is not here


# OpenRLHF


def load_openrlhf(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    """As OpenRLHF does: by the path of the file, under a name of its own."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = importlib.util.find_spec("polyreward.integrations.openrlhf")
    assert found is not None
    assert found.origin is not None
    spec = importlib.util.spec_from_file_location("reward_func", found.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def openrlhf_prompt() -> str:
    return f"<|user|>\n{PROMPT}<|end|>\n<|assistant|>\n"


@pytest.mark.usefixtures("frameworks")
def test_openrlhf_loads_the_file_and_calls_it_with_lists_of_one(
    client: Client, url: str, monkeypatch: pytest.MonkeyPatch, openrlhf_prompt: str
) -> None:
    file = load_openrlhf(monkeypatch, POLYREWARD_URL=url, POLYREWARD_MODEL="lore")
    labels: list[Any] = ["tea-lover", '{"group": {"drink": "coffee"}}', {"user_id": "tea-lover"}, "", None]
    people = ["tea-lover", "coffee-lover", "tea-lover", None, None]
    for label, who in zip(labels, people):
        found = file.reward_func([openrlhf_prompt + TEA[0]], [openrlhf_prompt], [label])
        assert list(found) == ["rewards", "scores", "extra_logs"]
        assert isinstance(found["rewards"], Tensor)
        assert found["rewards"].tolist() == [near(single(client, openrlhf_prompt, TEA[0], who))]
        win_rate = single(client, openrlhf_prompt, TEA[0], who, reward_scale="win_rate")
        assert found["scores"].tolist() == [near(win_rate)]
        logs = {name: values.tolist() for name, values in found["extra_logs"].items()}
        assert logs == {
            "known": [float(who is not None)],
            "truncated": [0.0],
            "substituted": [0.0],
            "whole_text": [0.0],
        }


@pytest.mark.usefixtures("frameworks")
def test_openrlhf_texts_whose_prompt_changed_are_scored_whole_and_counted(
    client: Client, url: str, openrlhf_prompt: str
) -> None:
    module = importlib.import_module("polyreward.integrations.openrlhf")
    reward = module.openrlhf_reward(client=client, model="lore", labels="ignore", scores="raw")
    text = " " + openrlhf_prompt + TEA[0]
    found = reward([text], [openrlhf_prompt], ["not an id!"])
    assert found["rewards"].tolist() == [near(single(client, "", text, None))]
    assert found["scores"].tolist() == found["rewards"].tolist()
    assert found["extra_logs"]["whole_text"].tolist() == [1.0]


@pytest.mark.usefixtures("frameworks")
def test_openrlhf_answers_empty_lists_and_refuses_what_it_cannot_read(client: Client) -> None:
    module = importlib.import_module("polyreward.integrations.openrlhf")
    reward = module.openrlhf_reward(client=client, model="lore")
    assert reward([], [], [])["rewards"].tolist() == []
    for label, message in (("a b", "a user id is"), ({"who": "ada"}, "'who'"), ("{", "JSON object")):
        with pytest.raises(ValueError, match=message):
            reward(["pr"], ["p"], [label])
    with pytest.raises(ValueError, match="1 queries with 2 prompts"):
        reward(["pr"], ["p", "p"], [None])
    with pytest.raises(ValueError, match="labels is"):
        module.openrlhf_reward(client=client, labels="users")


# SkyRL, verifiers, rLLM, NeMo RL


@pytest.mark.usefixtures("frameworks")
def test_skyrl_s_environment_ends_after_one_answer(client: Client, url: str) -> None:
    module = importlib.import_module("polyreward.integrations.skyrl")
    prompt = [{"role": "user", "content": PROMPT}]
    env = module.PolyrewardEnv({"base_url": url, "model": "lore"}, extras={"extra_info": {"user_id": "tea-lover"}})
    with pytest.raises(RuntimeError, match="before init"):
        env.step(TEA[0])
    assert env.init(prompt) == (prompt, {})
    found = env.step(TEA[0])
    assert found["reward"] == near(single(client, prompt, TEA[0], "tea-lover"))
    assert (found["observations"], found["done"], env.turns) == ([], True, 1)
    assert found["metadata"] == {"known": True, "truncated": False, "substituted": False}
    with pytest.raises(ValueError, match="unknown settings: url"):
        module.PolyrewardEnv({"url": url}, extras={"user_id": "ada"})
    with pytest.raises(ValueError, match="says nothing of"):
        module.PolyrewardEnv({"base_url": url}, extras={})


@pytest.mark.usefixtures("frameworks")
def test_skyrl_never_turns_an_error_into_a_reward_by_itself() -> None:
    module = importlib.import_module("polyreward.integrations.skyrl")
    script = Script([httpx.ConnectError("refused")] * 2)
    with Client(BASE, transport=script.transport, retry=Retry.never()) as client:
        env = module.PolyrewardEnv({"client": client}, extras={"user_id": "ada"})
        env.init(PROMPT)
        with pytest.raises(NoAnswer):
            env.step("r")
        env = module.PolyrewardEnv({"client": client, "on_error": 0.0}, extras={"user_id": "ada"})
        env.init(PROMPT)
        with pytest.warns(SubstitutedRewardWarning):
            assert env.step("r")["metadata"]["substituted"]
    assert module.failures.substituted == 1


def test_verifiers_functions_are_single_or_of_groups_by_their_parameters(client: Client, url: str) -> None:
    asked = AsyncClient(url, retry=Retry.never())
    one = verifiers_reward(client=asked, model="lore", name="taste")
    many = verifiers_group_reward(client=asked, model="lore")
    assert one.__name__ == "taste"
    assert inspect.iscoroutinefunction(one)
    assert inspect.iscoroutinefunction(many)
    plural = {"states", "prompts", "completions", "answers", "tasks", "infos"}
    assert not plural & set(inspect.signature(one).parameters)
    assert plural & set(inspect.signature(many).parameters)
    chat, answer = [{"role": "user", "content": PROMPT}], [SimpleNamespace(role="assistant", content=TEA[0])]

    async def ask() -> list[Any]:
        return [
            await one(prompt=chat, completion=answer, answer="", state={}, task=None, info={"user_id": "tea-lover"}),
            await one(prompt=chat, completion=answer, info={}, user_id="coffee-lover"),
            *await many(
                prompts=[chat] * 2, completions=[answer] * 2, infos=[{"user_id": None}, '{"user_id": "tea-lover"}']
            ),
        ]

    people = ["tea-lover", "coffee-lover", None, "tea-lover"]
    assert awaited(ask, asked) == [near(single(client, chat, TEA[0], who)) for who in people]
    with pytest.raises(ValueError, match="adds numbers"):
        verifiers_reward(BASE, on_error="none")


def test_a_rubric_that_swallows_errors_can_be_found_out() -> None:
    client = scripted(unreachable())
    reward = verifiers_reward(client=client)
    for _ in range(2):
        with pytest.raises(Unavailable):
            awaited(lambda: reward(PROMPT, "r", info={"user_id": "ada"}), client)
    assert reward.failures.raised == 2
    assert reward.failures.by_kind == {"/problems/overloaded": 2}


@pytest.mark.usefixtures("frameworks")
def test_rllm_gets_a_reward_and_what_it_calls_correct(client: Client, url: str) -> None:
    module = importlib.import_module("polyreward.integrations.rllm")
    expected = single(client, PROMPT, TEA[0], "tea-lover")
    task = {"question": PROMPT, "user_id": "tea-lover", "ground_truth": ""}
    for threshold, correct in ((expected - 1, True), (expected + 1, False)):
        reward = module.RllmReward(url, model="lore", correct_above=threshold)
        for action in (TEA[0], SimpleNamespace(action=TEA[0])):
            found = reward(task_info=task, action=action)
            assert (found.reward, found.is_correct) == (near(expected), correct)
            assert found.metadata == {"known": True, "truncated": False, "substituted": False}
    evaluator = module.RllmEvaluator(url, model="lore")
    step = SimpleNamespace(output=TEA[0])
    episodes = [
        SimpleNamespace(artifacts={"answer": TEA[0]}, trajectories=[]),
        SimpleNamespace(artifacts={}, trajectories=[SimpleNamespace(output=None, steps=[step])]),
    ]
    for episode in episodes:
        output = evaluator.evaluate(SimpleNamespace(data=task), episode)
        assert output.reward == near(expected)
        assert output.signals[0].value == output.reward
    with pytest.raises(ValueError, match="no answer"):
        evaluator.evaluate(task, SimpleNamespace(artifacts={}, trajectories=[]))
    with pytest.raises(ValueError, match='no "question"'):
        module.RllmReward(url)({"user_id": "ada"}, "r")


@pytest.mark.usefixtures("frameworks")
def test_nemo_rl_gets_tensors_of_a_batch(client: Client, url: str) -> None:
    module = importlib.import_module("polyreward.integrations.nemo_rl")
    env = module.PolyrewardEnvironment({"base_url": url, "model": "lore"})
    users = ["tea-lover", "coffee-lover"] * 5
    logs = [
        [{"role": "user", "content": PROMPT, "token_ids": object()}, {"role": "assistant", "content": text}]
        for text in TEA[:10]
    ]
    found = env.step(logs, [{"user_id": user} for user in users])
    chat = [{"role": "user", "content": PROMPT}]
    expected = [near(single(client, chat, text, user)) for text, user in zip(TEA, users)]
    assert found.rewards.tolist() == expected
    assert found.terminateds.tolist() == [True] * 10
    assert found.answers == TEA[:10]
    assert len(found.observations) == len(found.metadata) == len(found.next_stop_strings) == 10
    assert env.global_post_process_and_metrics({"a": 1}) == ({"a": 1}, {"polyreward/substituted": 0.0})


@pytest.mark.usefixtures("frameworks")
def test_nemo_rl_gets_a_tensor_for_each_aggregate(client: Client, url: str) -> None:
    module = importlib.import_module("polyreward.integrations.nemo_rl")
    settings = {"base_url": url, "model": "lore", "aggregate": ["mean", "min"], "reward_scale": "win_rate"}
    env = module.PolyrewardEnvironment(settings)
    log = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": TEA[0]}]
    found = env.step([log] * 2, [{"group": "drink:tea"}, {"user_id": "tea-lover"}])
    expected = single(client, log[:1], TEA[0], "tea-lover", reward_scale="win_rate")
    assert {name: values.tolist() for name, values in found.rewards.items()} == {
        name: [near(expected)] * 2 for name in ("mean", "min")
    }


def test_requests_carry_only_prompts_responses_and_the_person() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        result = {"rewards": [1.0], "uncertainties": [0.1], "ranking": [0], "truncated": False}
        usage = {"texts": 1, "tokens": 1, "embeddings_cached": 0}
        results = [result] * len(asked["items"])
        return httpx.Response(200, json={"model": "m@1", "backbone": "b", "results": results, "usage": usage})

    script = Script([answer])
    client = scripted(script)
    reward = trl_reward(client=client)
    columns = {"user_id": ["ada"], "answer": ["secret"], "environments": [object()], "trainer_state": object()}
    assert awaited(lambda: reward([PROMPT], ["r"], completion_ids=[[1, 2]], **columns), client) == [1.0]
    assert json.loads(script.requests[0].content) == {
        "user_id": "ada",
        "reward_scale": "raw",
        "on_overflow": "truncate",
        "items": [{"prompt": PROMPT, "responses": ["r"]}],
    }
