"""Exported backbones, read by the server, against the models they were made of, read by transformers."""

import json
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import tiny_models
import torch
from place import ROOT, Place
from readers import ChatReader, ConcatReader, PairReader
from transformers import AutoModelForSequenceClassification

CLOSE = 1e-4  # of values that are of the order of one
SHORT = [
    ("Name a fish.", "A trout."),
    ("Name a fish.", "Fish are tasty."),
    ("", "A response without a prompt."),
    (None, "A trout."),
    ("Name a fish.", None),
    ("Qu'est-ce qu'on cuisine ?", "Une crème brûlée… 👍🏽"),
    ("川の魚は何ですか。", "ニジマス。"),
    ("Sort it.", "def sort(a):\n    return sorted(a)"),
    ("Would you rather have tea or coffee in the morning?", "Tea, with a little milk, please."),
]
LONG = [
    ("Tell me a story. " + "The river went on and on. " * 30, "It was a long day by the water."),
    ("Tell me a long story.", " ".join(f"Day {day}: we went to the garden." for day in range(1, 41))),
]
QUESTION = {"role": "user", "content": "Name a fish."}
CHATS = [
    ([{"role": "system", "content": "Answer in one word."}, QUESTION], "Trout."),
    ([QUESTION, {"role": "assistant", "content": "A trout."}, {"role": "user", "content": "Again?"}], "A pike."),
]


def run_export(*arguments):
    """The command, as a user would run it."""
    command = [ROOT / "tools" / "export-backbone", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def embed(place, texts):
    """What the server reads: (embedding, tokens, truncated) of each text."""
    lines = [{"prompt": prompt, "response": response} for prompt, response in texts]
    lines = [{name: text for name, text in line.items() if text is not None} for line in lines]
    place.folder.joinpath("texts.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    place.run("embed", "--in", "texts.jsonl", "--out", "texts.parquet")
    rows = parquet.read_table(place.folder / "texts.parquet").to_pylist()
    return [(row["embedding"], row["tokens"], row["truncated"]) for row in rows]


class Exported:
    """A model is made and exported; `settings` of its backbone.json are expected, and `lines` on the way."""

    options, texts, lines = (), (*SHORT, *LONG), ()

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="polyreward-export-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.model, cls.backbone = cls.folder / "model", cls.folder / "backbone"
        cls.make(cls.model)
        cls.done = run_export(cls.model, "--out", cls.backbone, *cls.options)
        if cls.done.returncode:
            raise AssertionError(f"the export failed: {cls.done.stderr}")
        cls.config = json.loads((cls.backbone / "backbone.json").read_text(encoding="utf-8"))
        cls.place = Place(cls.folder, cls.backbone)
        cls.reader = cls.reads()
        cls.served = embed(cls.place, cls.texts)

    def test_the_folder_says_what_was_chosen_and_the_command_why(self):
        self.assertEqual({field: self.config.get(field) for field in self.settings}, self.settings)
        for line in self.lines:
            self.assertIn(line, self.done.stdout)
        self.assertEqual(self.done.stderr, "")

    def test_every_text_has_the_embedding_that_transformers_gives_it(self):
        for text, (embedding, tokens, truncated) in zip(self.texts, self.served):
            with self.subTest(text=str(text)[:60]):
                expected, expected_tokens, expected_truncated = self.reader.read(*text)
                self.assertEqual((tokens, truncated), (expected_tokens, expected_truncated))
                np.testing.assert_allclose(embedding, expected, rtol=0, atol=CLOSE)

    def test_the_texts_differ_and_the_long_ones_are_cut(self):
        rows = np.array([embedding for embedding, _, _ in self.served])
        distances = np.abs(rows[:, None] - rows[None]).max(2)[np.triu_indices(len(rows), 1)]
        self.assertGreater(distances.min(), 100 * CLOSE)
        self.assertEqual([cut for text, (_, _, cut) in zip(self.texts, self.served) if text in LONG], [True, True])

    def test_what_shares_a_batch_changes_nothing(self):
        order = random.Random(1).sample(range(len(self.texts)), len(self.texts))
        shuffled = embed(self.place, [self.texts[at] for at in order] + [LONG[0]] * 3)
        ((alone, _, _),) = embed(self.place, [self.texts[order[0]]])
        np.testing.assert_allclose(alone, self.served[order[0]][0], rtol=0, atol=CLOSE / 10)
        for at, (embedding, _, _) in zip(order, shuffled):
            np.testing.assert_allclose(embedding, self.served[at][0], rtol=0, atol=CLOSE / 10)

    def test_the_server_checks_the_folder(self):
        said = self.place.run("backbone", "check", self.backbone)
        for field in ("name", "dim"):
            self.assertRegex(said, rf"(?m)^{field} +{re.escape(str(self.config[field]))}$")
        self.assertIn("texts/s", said)


class BertTest(Exported, unittest.TestCase):
    make = staticmethod(tiny_models.bert)
    settings = {"name": "model", "pooling": "mean", "input": "pair", "max_tokens": 64, "licence": "mit", "dim": 32}
    lines = ["pooling mean: it is an encoder", "input pair", "max-tokens 64: the model's positions"]

    @classmethod
    def reads(cls):
        frame = ["[CLS]"], ["[SEP]"], ["[SEP]"]
        return PairReader(cls.model, 64, "mean", frame=frame, token_types=True)


class BertPoolerTest(Exported, unittest.TestCase):
    """The model's own pooler, and what else can be asked for."""

    make = staticmethod(tiny_models.bert)
    options = "--pooling", "none", "--max-tokens", "40", "--name", "small", "--licence", "CC0-1.0"
    settings = {"name": "small", "pooling": "none", "max_tokens": 40, "licence": "CC0-1.0", "output": "pooler_output"}

    @classmethod
    def reads(cls):
        frame = ["[CLS]"], ["[SEP]"], ["[SEP]"]
        return PairReader(cls.model, 40, "none", frame=frame, token_types=True)


class RobertaTest(Exported, unittest.TestCase):
    """Positions that begin after the padding's, and sentence-transformers' pooling."""

    settings = {"pooling": "cls", "input": "pair", "max_tokens": 64, "licence": None}
    lines = ["pooling cls: 1_Pooling/config.json says so", "max-tokens 64: the model's positions", "names no licence"]

    @staticmethod
    def make(folder):
        tiny_models.roberta(folder)
        (folder / "1_Pooling").mkdir()
        pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")

    @classmethod
    def reads(cls):
        frame = ["<s>"], ["</s>", "</s>"], ["</s>"]
        return PairReader(cls.model, 64, "cls", frame=frame, token_types=False)


class QwenRewardModelTest(Exported, unittest.TestCase):
    """A reward model on a decoder: what is exported are the hidden states under its score."""

    make = staticmethod(tiny_models.qwen2_reward)
    texts = (*SHORT, *CHATS, *LONG)
    settings = {"pooling": "last", "input": "chat", "max_tokens": 96, "padding_side": "right", "bos_token": None}
    settings |= {"eos_token": "<|im_end|>", "licence": "apache-2.0", "precision": "fp32"}
    lines = ["pooling last: it is a decoder", "input chat: its tokenizer has a chat template"]

    @classmethod
    def reads(cls):
        cls.judge = AutoModelForSequenceClassification.from_pretrained(cls.model).eval()
        return ChatReader(cls.model, 96, "last", header="<|im_start|>{}\n", model=cls.judge.model)

    def test_the_reward_models_own_reward_follows_from_the_embedding(self):
        for text, (embedding, _, _) in zip(self.texts, self.served):
            ids, _, _ = self.reader.tokens(*text)
            with torch.no_grad():
                reward = self.judge(torch.tensor([ids])).logits
                score = self.judge.score(torch.tensor([embedding]))
            torch.testing.assert_close(score, reward, rtol=0, atol=10 * CLOSE)


class LlamaTest(Exported, unittest.TestCase):
    """Both tokenizer and template write the token that opens a text, the template asks for the date, and a weight has
    two bytes."""

    make = staticmethod(tiny_models.llama)
    texts = (*SHORT, *CHATS, *LONG)
    settings = {"pooling": "last", "input": "chat", "max_tokens": 128, "bos_token": "<|begin_of_text|>"}
    settings |= {"precision": "bf16"}
    lines = ["the server has no clock"]

    @classmethod
    def reads(cls):
        header = "<|start_header_id|>{}<|end_header_id|>\n\n"
        return ChatReader(cls.model, 128, "last", header=header, day=tiny_models.TEMPLATE_DATE)

    def test_no_text_is_opened_twice(self):
        opening = self.reader.tokenizer.bos_token_id
        for text in self.texts:
            ids, _, _ = self.reader.tokens(*text)
            self.assertEqual((ids[0], ids.count(opening)), (opening, 1))

    def test_the_server_checks_a_folder_whose_template_refuses_a_response_alone(self):
        folder = shutil.copytree(self.backbone, self.folder / "alternating")
        source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        refusal = "{% if messages[0].role == 'assistant' %}{{ raise_exception('roles must alternate') }}{% endif %}"
        (folder / "chat_template.jinja").write_text(refusal + source, encoding="utf-8")
        config = {name: value for name, value in self.config.items() if name != "chat_template_sha256"}
        (folder / "backbone.json").write_text(json.dumps(config), encoding="utf-8")
        self.assertIn("texts/s", self.place.run("backbone", "check", folder))


class LlamaAsOneTextTest(Exported, unittest.TestCase):
    make = staticmethod(tiny_models.llama)
    options = "--input", "concat", "--pooling", "mean"
    settings = {"pooling": "mean", "input": "concat", "max_tokens": 128, "chat_template_sha256": None}

    @classmethod
    def reads(cls):
        return ConcatReader(cls.model, 128, "mean")


if __name__ == "__main__":
    unittest.main()
