"""GRPO steps of the real TRL on a tiny random model, with the rewards of two people whose tastes differ.

`make test-trl` runs it, as torch is large. The rewards by person and step go to the file that TRL_LOG names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from datasets import Dataset
from people import WAYS, WORDS, likes
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, set_seed
from trl import GRPOConfig, GRPOTrainer

from polyreward import Client
from polyreward.integrations import trl_reward

STEPS = 60
FIRST, LAST = range(1, 11), range(STEPS - 9, STEPS + 1)
PEOPLE = {"ada": "tea", "bob": "coffee"}


def tokenizer() -> Any:
    """Words, one token each."""
    words = dict.fromkeys(["<pad>", "</s>", "tea", "coffee", "have", "some", "for", "A", "drink", *PEOPLE, *WORDS])
    words |= dict.fromkeys(" ".join(WAYS).split())
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


def policy(vocabulary: int) -> Any:
    """A random Llama of a few thousand weights."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def prompt_for(person: str) -> str:
    return f"A drink for {person}"


def settings(folder: Path) -> Any:
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=5,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        shuffle_dataset=False,  # so that every step has both people
        beta=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        seed=1,
    )


class Recorder:
    """A reward function that asks ours, and keeps what it answered."""

    def __init__(self, url: str) -> None:
        self.asked = trl_reward(url, model="lore", reward_scale="standard", name="taste")
        self.steps: dict[int, list[tuple[str, float]]] = {}

    def function(self) -> Any:
        async def taste(
            prompts: Sequence[Any], completions: Sequence[Any], user_id: Sequence[str], **columns: Any
        ) -> list[float | None]:
            rewards = await self.asked(prompts, completions, user_id=user_id, **columns)
            step = self.steps.setdefault(columns["trainer_state"].global_step + 1, [])
            step += [(user, reward) for user, reward in zip(user_id, rewards) if reward is not None]
            return rewards

        return taste

    def mean(self, step: int, person: str | None = None) -> float:
        return fmean(reward for user, reward in self.steps[step] if person in (None, user))


def own_drink_logit(model: Any, tokens: Any, person: str) -> float:
    """How much likelier than the other drink a person's own is as the first word, in logits."""
    own, other = PEOPLE[person], next(drink for who, drink in PEOPLE.items() if who != person)
    inputs = tokens(prompt_for(person), return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    return float(logits[tokens.convert_tokens_to_ids(own)] - logits[tokens.convert_tokens_to_ids(other)])


def write_log(path: str | None, recorder: Recorder, logged: Sequence[dict[str, Any]]) -> None:
    """Mean rewards by person and step, beside the mean in the trainer's own log."""
    heads = [f"{person} ({drink})" for person, drink in PEOPLE.items()]
    lines = ["step" + "".join(f"{head:>15}" for head in [*heads, "TRL's log"])]
    for step, entry in enumerate(logged, 1):
        means = [*(recorder.mean(step, person) for person in PEOPLE), entry["rewards/taste/mean"]]
        lines.append(f"{step:>4}" + "".join(f"{mean:>15.4f}" for mean in means))
    text = "\n".join(lines) + "\n"
    print(text)
    if path:
        Path(path).write_text(text, encoding="utf-8")


def test_rewards_reach_the_trainer_and_differ_by_person(client: Client, url: str, tmp_path: Path) -> None:
    for person, drink in PEOPLE.items():
        client.add_examples(person, likes(drink))
    set_seed(1)
    tokens = tokenizer()
    model = policy(len(tokens))
    before = {person: own_drink_logit(model, tokens, person) for person in PEOPLE}
    rows = [{"prompt": prompt_for(person), "user_id": person} for person in PEOPLE] * 64
    recorder = Recorder(url)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=recorder.function(),
        args=settings(tmp_path),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokens,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()

    logged = [entry for entry in trainer.state.log_history if "rewards/taste/mean" in entry]
    write_log(os.environ.get("TRL_LOG"), recorder, logged)
    assert len(logged) == len(recorder.steps) == STEPS
    for step, entry in enumerate(logged, 1):
        assert entry["rewards/taste/mean"] == pytest.approx(recorder.mean(step), abs=1e-5)
        assert "reward_server/latency_ms" in entry
    assert recorder.asked.failures.by_kind == {}

    # One text is worth something else to each of them.
    item = {"prompt": prompt_for("ada"), "responses": ["have some tea"]}
    of_ada, of_bob = (client.score(items=[item], user_id=who, model="lore").results[0].rewards[0] for who in PEOPLE)
    assert abs(of_ada - of_bob) > 0.1

    # And the policy has learned it: each is offered what they like more than at the beginning.
    for person in PEOPLE:
        early, late = (fmean(recorder.mean(step, person) for step in steps) for steps in (FIRST, LAST))
        assert late > early, person
        assert own_drink_logit(trainer.model, tokens, person) > before[person], person
