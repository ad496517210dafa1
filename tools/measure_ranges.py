#!/usr/bin/env python3
"""Measures how large the default backbone's activations become, for `build_backbone.py --precision int8_static`.

    measure_ranges.py --weights DIR

Writes all-minilm-l6-v2.ranges.json beside this file. DIR is the unpacked default model. The texts are the sample's
answers, a few in other scripts, made-up sequences of random tokens and of one token repeated: what is measured must
hold for texts that nobody has thought of. What lies outside of it all the same is cut to its edge. Needs tokenizers
besides requirements.txt. The file is committed, since a last bit that differs between processors would give the same
backbone two hashes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from build_backbone import (
    ATTENTION_OUTPUT,
    BEHIND_GELU,
    RANGES,
    Float32Linear,
    Graph,
    last_hidden_state,
    plain_tokenizer,
    read_weights,
    token_inputs,
)

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample" / "prompts.jsonl"
SEED = 1
RANDOM_SEQUENCES = 300
REPEATED_SEQUENCES = 60
LONGEST = 128
# How far a channel's size goes into its factor: chosen by the cosine to float32 over the sample, flat from .8 to 1.
SMOOTHING = 0.9
# What is kept free beyond the largest that was seen.
MARGIN = 1.1
OTHER_TEXTS = [
    ("川の魚は何ですか。", "ニジマスです。"),
    ("Qu'est-ce qu'on cuisine en été ?", "Une truite, à la crème brûlée…"),
    ("ما هي عاصمة فرنسا؟", "باريس هي عاصمة فرنسا."),
    ("Посоветуй книгу.", "«Мастер и Маргарита» — хороший выбор."),
    ("Sort it.", "def sort(a):\n    return sorted(a, key=lambda x: -x[1])"),
    ("AAAAAAAA 12345", "!!!!!! ???? {}[]();"),
    ("", "."),
    ("🐟", "👍🏽"),
]


class Recorded(Float32Linear):
    """Notes what each dense layer reads."""

    def __init__(self, graph):
        super().__init__(graph)
        self.inputs = {}

    def prepare(self, x, name):
        self.inputs[name] = x
        return x


def sequences(tokenizer):
    """Token ids of texts and of what is no text."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    texts = [(line["prompt"], answer["text"]) for line in map(json.loads, lines) for answer in line["responses"]]
    for prompt, response in [*texts, *OTHER_TEXTS]:
        yield tokenizer.encode(prompt, response).ids[: 2 * LONGEST]
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    random = np.random.default_rng(SEED)
    words = range(tokenizer.token_to_id("a"), tokenizer.get_vocab_size())
    for number in range(RANDOM_SEQUENCES + REPEATED_SEQUENCES):
        length = int(random.integers(1, LONGEST))
        distinct = length if number < RANDOM_SEQUENCES else 1
        body = np.resize(random.integers(words.start, words.stop, distinct), length).tolist()
        cut = int(random.integers(0, length + 1))
        yield [first, *body[:cut], last, *body[cut:], last]


def measure(config, weights, tokenizer):
    """The least and the largest value of each channel that a dense layer reads, by the layer's name."""
    g = Graph()
    linear = Recorded(g)
    last_hidden_state(g, config, weights, linear)
    shape = ["tokens", None]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in linear.inputs.values()]
    model = g.model(token_inputs("input_ids", "attention_mask"), outputs, "recorded")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    least, largest = {}, {}
    for ids in sequences(tokenizer):
        feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        read = session.run(list(linear.inputs.values()), feeds)
        for name, values in zip(linear.inputs, read, strict=True):
            least[name] = np.minimum(values.min(0), least.get(name, 0))
            largest[name] = np.maximum(values.max(0), largest.get(name, 0))
    return {name: (least[name], largest[name]) for name in linear.inputs}


def settings(name, least, largest):
    """Scale, zero point and exponents of the smoothing factors of one dense layer's input."""
    found = {}
    # What attention gives is even enough without.
    if not name.endswith(ATTENTION_OUTPUT):
        size = np.maximum(np.maximum(-least, largest), 1e-3)
        exponents = np.rint(4 * SMOOTHING * (np.log2(size) - np.log2(size).mean())).astype(int)
        found["smoothing"] = exponents.tolist()
        least, largest = least / np.exp2(exponents / 4), largest / np.exp2(exponents / 4)
    low, high = MARGIN * least.min(), MARGIN * largest.max()
    scale = float(f"{(high - low) / 255:.4g}")
    return {"scale": scale, "zero": round(-low / scale), **found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder with the published model")
    folder = parser.parse_args().weights
    config, weights = read_weights(folder)
    tokenizer = Tokenizer.from_str(plain_tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8")))
    found = measure(config, weights, tokenizer)
    # Behind Gelu a few tokens are ten times as large as the others: a scale of their own each serves them better.
    kept = {
        name: settings(name, *ends)
        for name, ends in found.items()
        if name.endswith(ATTENTION_OUTPUT) or not name.endswith(BEHIND_GELU)
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(each, separators=(',', ':'))}" for name, each in kept.items()]
    layers = ",\n".join(lines)
    text = f'{{\n "source": "tools/measure_ranges.py",\n "layers": {{\n{layers}\n }}\n}}\n'
    RANGES.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
