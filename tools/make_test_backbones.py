#!/usr/bin/env python3
"""Writes the small backbones and golden embeddings that the tests of crates/backbone read.

    make_test_backbones.py [--weights DIR]

The folders tiny-encoder, tiny-encoder-cls and tiny-decoder hold random two-layer networks; each has a
golden.json with inputs, token ids and embeddings. With `--weights` (the unpacked default model: config.json,
model.safetensors, tokenizer.json) minilm-golden.json is written too. Golden embeddings come from the forward
passes in float64 below, which share nothing with the ONNX graphs. Needs tokenizers and jinja2 besides
requirements.txt; checks the graphs with ONNX Runtime.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import jinja2
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from build_backbone import Float32Linear, Graph, last_hidden_state, plain_tokenizer, read_weights, token_inputs

FIXTURES = Path(__file__).resolve().parent.parent / "crates" / "backbone" / "tests" / "fixtures"
MAX_TOKENS = 64
PAIR_TRUNCATION = (
    "Special tokens are never cut. What does not fit is cut from the start of the prompt's tokens, "
    "then from the start of the response's tokens."
)
CHAT_TRUNCATION = (
    "The rendered conversation is tokenised without the tokenizer's own special tokens. What the template wrote "
    "is never cut; of the contents' tokens, the earliest are, until it fits."
)

WORDS = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but
not what all were we when your can said there use an each which she do how their if will up other about out many
then them these so some her would make like him into time has look two more write go see number no way could
people my than first water been call who oil its now find long down day did get come made may part over new sound
take only little work know place year live me back give most very after thing our just name good sentence man
think say great where help through much before line right too mean old any same tell boy follow came want show
also around form three small set put end does another well large must big even such because turn here why ask
went men read need land different home us move try kind hand picture again change off play spell air away animal
house point page letter mother answer found study still learn should world fish trout tasty river cook kitchen
garden music book table paper yes never always maybe short story country city summer winter spring green blue red
""".split()
SUFFIXES = ["##s", "##ed", "##ing", "##er", "##ly", "##tion", "##ness", "##able", "##est", "##ful"]

# A dozen inputs: short, empty prompt, accents, other scripts, emoji, code, white space, and two that do not fit.
EXAMPLES = [
    ("Name a fish.", "A trout."),
    ("Name a fish.", "Fish are tasty."),
    ("", "A response without a prompt."),
    ("Why is the river green?", ""),
    ("Qu'est-ce qu'on cuisine en été ?", "Une truite, à la crème brûlée…"),
    ("川の魚は何ですか。", "ニジマスです。"),
    ("Which one? 🐟 or 🐠", "🐟, because it is 10/10 👍🏽"),
    ("Sort it.", "def sort(a):\n    return sorted(a, key=lambda x: -x[1])"),
    ("  two   spaces\tand a tab ", "\n\nlines\r\nand more \u00a0 space "),
    ("Answer with one word.", "NEVER!!! always? may-be; (perhaps) [sometimes] {often} <now> & then."),
    ("Tell me a story. " + "the river went on and on, " * 30, "It was a long day by the water."),
    ("Tell me a long story.", " ".join(f"day {day}: we went to the garden." for day in range(1, 31))),
]
CONVERSATION = [
    {"role": "system", "content": "Answer in a friendly way."},
    {"role": "user", "content": " Name a fish. "},
    {"role": "assistant", "content": "A trout."},
    {"role": "user", "content": "Another one?"},
    {"role": "assistant", "content": "A pike, from the same river."},
]

CHAT_TEMPLATE = """\
{#- Conversations as <|im_start|>role ... <|im_end|>, closed by the end-of-text token. -#}
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('unknown role: ' + message['role']) }}
    {%- endif %}
    {%- set content = message['content'] | trim %}
    {{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>' }}
    {%- if not loop.last %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt is defined and add_generation_prompt %}
    {{- '\\n<|im_start|>assistant\\n' }}
{%- else %}
    {{- eos_token }}
{%- endif %}
"""

MINILM_EXAMPLES = [
    *EXAMPLES,
    ("", "Good morning!"),
    ("Is it going to rain tomorrow?", "I cannot see the forecast from here, so take an umbrella to be safe."),
    ("Explain recursion to a child.", "Open the box, and inside is a smaller box with the same note."),
    ("How do I undo the last commit?", "Run `git reset --soft HEAD~1`; your changes stay staged."),
    ("SELECT name FROM users WHERE id = 1;", "Use a bound parameter: `WHERE id = $1`, never string concatenation."),
    ("Übersetze: Guten Abend, schöne Grüße!", "Good evening, best wishes!"),
    ("ما هي عاصمة فرنسا؟", "باريس هي عاصمة فرنسا."),
    ("Посоветуй книгу.", "«Мастер и Маргарита» — хороший выбор."),
    ("What is 12 × 12?", "144"),
    ("Should the town build a new bridge?", "Yes: the old one closes whenever the water is high."),
    ("Should the town build a new bridge?", "No: repairing the old one costs a tenth as much."),
    (
        "Summarise the minutes of the meeting.",
        " ".join(
            f"Point {point}: the group talked about the garden, the kitchen and the road, and put it off."
            for point in range(1, 11)
        ),
    ),
]


# Files


def seven_digits(values):
    return [float(f"{value:.7g}") for value in values]


def write_json(path, value):
    """Items one to a line, so that a change shows as one."""
    if "items" in value:
        items = ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value["items"])
        head = json.dumps({key: each for key, each in value.items() if key != "items"}, indent=1, ensure_ascii=False)
        text = head[:-2] + ',\n "items": [\n' + items + "\n ]\n}\n"
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def write_backbone(folder, model, tokenizer, settings, template=None):
    folder.mkdir(parents=True, exist_ok=True)
    model = model.SerializeToString(deterministic=True)
    tokenizer = (json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    (folder / "model.onnx").write_bytes(model)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    backbone = {"format": 1, "name": folder.name, "dim": 32, "max_tokens": MAX_TOKENS, **settings}
    backbone["sha256"] = hashlib.sha256(model).hexdigest()
    backbone["tokenizer_sha256"] = hashlib.sha256(tokenizer).hexdigest()
    backbone.update(precision="fp32", licence="Apache-2.0", source="random weights, tools/make_test_backbones.py")
    write_json(folder / "backbone.json", backbone)


# Tokens


def fit_pair(prompt, response, room):
    """The ids that are left of both when `room` ids fit."""
    cut = max(0, len(prompt) + len(response) - room)
    from_prompt = min(cut, len(prompt))
    return prompt[from_prompt:], response[cut - from_prompt :], cut > 0


def pair_tokens(tokenizer, prompt, response, max_tokens):
    """([CLS] prompt [SEP] response [SEP], token types, whether something was cut)."""
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in (prompt, response)]
    first, second, truncated = fit_pair(*ids, max_tokens - 3)
    if not truncated:
        assert tokenizer.encode(prompt, response).ids == [start, *first, end, *second, end]
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    return [start, *first, end, *second, end], types, truncated


def fit_chat(encoding, contents, max_tokens):
    """Drops the earliest tokens that lie inside a content; what the template wrote around the contents stays."""
    cut = max(0, len(encoding.ids) - max_tokens)
    kept, left = [], cut
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if left and any(first <= start and end <= last for first, last in contents):
            left -= 1
        else:
            kept.append(token)
    return kept, cut > 0


def content_ranges(text, messages):
    """Where the contents stand in the rendered conversation, in characters."""
    ranges, at = [], 0
    for message in messages:
        opening = f"<|im_start|>{message['role']}\n"
        start = text.index(opening, at) + len(opening)
        at = start + len(message["content"].strip())
        ranges.append((start, at))
    return ranges


def word_piece():
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    digits, marks = list("0123456789"), list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *digits, *marks]
    pieces += ["##" + letter for letter in letters + digits] + SUFFIXES
    pieces += [word for word in dict.fromkeys(WORDS) if len(word) > 1]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    special = [special_token(index, pieces[index]) for index in range(5)]
    cls = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [cls, sequence("A", 0), {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [cls, sequence("A", 0), {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
        + [sequence("B", 1), {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
        "special_tokens": {
            piece: {"id": piece, "ids": [vocabulary[piece]], "tokens": [piece]} for piece in ("[CLS]", "[SEP]")
        },
    }
    return tokenizer_file(
        special,
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
        | {"lowercase": True},
        {"type": "BertPreTokenizer"},
        template,
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        | {"max_input_chars_per_word": 100, "vocab": vocabulary},
    )


def byte_level_bpe():
    """Bytes, and merges that spell the most used words with a space before them."""
    specials = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    pieces = specials + [byte_letter(byte) for byte in range(256)]
    known, merges = set(pieces), []
    for word in WORDS[:60] + ["user", "assistant", "system"]:
        for spelt in ("\u0120" + word, word):
            piece = spelt[0]
            for letter in spelt[1:]:
                if piece + letter not in known:
                    merges.append([piece, letter])
                    known.add(piece + letter)
                    pieces.append(piece + letter)
                piece += letter
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [bos, sequence("A", 0)],
        "pair": [bos, sequence("A", 0), {"SpecialToken": {"id": "<s>", "type_id": 1}}, sequence("B", 1)],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return tokenizer_file(
        [special_token(index, token) for index, token in enumerate(specials)],
        None,
        byte_level,
        template,
        byte_level,
        {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
        | {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
        | {"vocab": vocabulary, "merges": merges},
    )


def byte_letter(byte):
    """The printable letter that stands for a byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [other for other in range(256) if other not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


def special_token(index, content):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": content, **flags}


def sequence(name, type_id):
    return {"Sequence": {"id": name, "type_id": type_id}}


def tokenizer_file(added, normalizer, pre_tokenizer, post_processor, decoder, model):
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


# The encoder


def encoder_weights(config, seed):
    rng = np.random.default_rng(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    weights = {}

    def add(name, *shape, deviation=0.3):
        weights[name] = (rng.standard_normal(shape) * deviation).astype(np.float32)

    def add_norm(name):
        add(name + ".weight", width, deviation=0.1)
        weights[name + ".weight"] += np.float32(1)
        add(name + ".bias", width, deviation=0.1)

    add("embeddings.word_embeddings.weight", config["vocab_size"], width)
    add("embeddings.position_embeddings.weight", config["max_position_embeddings"], width)
    add("embeddings.token_type_embeddings.weight", 2, width)
    add_norm("embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            add(f"{name}{part}.weight", width, width)
            add(f"{name}{part}.bias", width, deviation=0.1)
        add_norm(name + "attention.output.LayerNorm")
        add(name + "intermediate.dense.weight", inner, width)
        add(name + "intermediate.dense.bias", inner, deviation=0.1)
        add(name + "output.dense.weight", width, inner)
        add(name + "output.dense.bias", width, deviation=0.1)
        add_norm(name + "output.LayerNorm")
    return weights


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def encoder_reference(config, weights, ids, types):
    """[tokens, width] in float64, for one text without padding."""
    width, heads = config["hidden_size"], config["num_attention_heads"]

    def of(name):
        return weights[name].astype(np.float64)

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        return centred / np.sqrt(variance + config["layer_norm_eps"]) * of(name + ".weight") + of(name + ".bias")

    def dense(x, name):
        return x @ of(name + ".weight").T + of(name + ".bias")

    def by_head(x):
        return x.reshape(len(ids), heads, width // heads).transpose(1, 0, 2)

    erf = np.vectorize(math.erf)
    x = of("embeddings.word_embeddings.weight")[ids] + of("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + of("embeddings.token_type_embeddings.weight")[types], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        query, key, value = (by_head(dense(x, f"{name}attention.self.{part}")) for part in ("query", "key", "value"))
        attended = softmax(query @ key.transpose(0, 2, 1) / math.sqrt(width // heads)) @ value
        attended = attended.transpose(1, 0, 2).reshape(len(ids), width)
        x = norm(dense(attended, name + "attention.output.dense") + x, name + "attention.output.LayerNorm")
        inner = dense(x, name + "intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(dense(inner, name + "output.dense") + x, name + "output.LayerNorm")
    return x


def tiny_encoder(folder, pooling, token_types, seed):
    tokenizer = word_piece()
    vocabulary = tokenizer["model"]["vocab"]
    config = {"vocab_size": len(vocabulary), "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    config.update(intermediate_size=64, max_position_embeddings=MAX_TOKENS, layer_norm_eps=1e-12)
    weights = encoder_weights(config, seed)
    g = Graph()
    hidden = last_hidden_state(g, config, weights, Float32Linear(g), token_types)
    g.op("Identity", hidden, out="last_hidden_state")
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * token_types
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "seq", 32])]
    settings = {"pooling": pooling, "input": "pair", "padding_side": "right", "output": "last_hidden_state"}
    write_backbone(folder, g.model(token_inputs(*inputs), outputs, "tiny-encoder"), tokenizer, settings)

    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    items = []
    for prompt, response in EXAMPLES:
        ids, types, truncated = pair_tokens(reader, prompt, response, MAX_TOKENS)
        hidden = encoder_reference(config, weights, ids, types if token_types else [0] * len(ids))
        embedding = hidden[0] if pooling == "cls" else hidden.mean(0)
        items.append(golden_item({"prompt": prompt, "response": response}, ids, truncated, embedding))
    write_golden(folder / "golden.json", PAIR_TRUNCATION, items)
    check(folder, items, pooling, token_types)


# The decoder


def decoder_weights(vocabulary, width, inner, layers, seed):
    rng = np.random.default_rng(seed)

    def normal(*shape, deviation=0.3):
        return (rng.standard_normal(shape) * deviation).astype(np.float32)

    weights = {"embed": normal(vocabulary, width)}
    for layer in range(layers):
        for part in ("q", "k", "v", "o"):
            weights[f"{layer}.{part}"] = normal(width, width)
        weights[f"{layer}.gate"], weights[f"{layer}.up"] = normal(width, inner), normal(width, inner)
        weights[f"{layer}.down"] = normal(inner, width)
        weights[f"{layer}.norm1"], weights[f"{layer}.norm2"] = 1 + normal(width, deviation=0.1), 1 + normal(width)
    weights["norm"] = 1 + normal(width, deviation=0.1)
    return {name: array.astype(np.float32) for name, array in weights.items()}


EPSILON = 1e-6


def rotation_angles(positions, head_width):
    frequencies = 10000.0 ** (-np.arange(0, head_width, 2) / head_width)
    return np.concatenate([np.outer(positions, frequencies)] * 2, axis=1)


def decoder_reference(weights, ids, heads, layers):
    """[tokens, width] in float64, for one text without padding."""
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    x = weights["embed"][ids]
    count, width = x.shape
    half = width // heads // 2
    angles = rotation_angles(np.arange(count), width // heads)
    future = np.triu(np.full((count, count), -np.inf), 1)

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * weights[name]

    def by_head(x):
        return x.reshape(count, heads, width // heads).transpose(1, 0, 2)

    def rotate(x):
        turned = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
        return x * np.cos(angles) + turned * np.sin(angles)

    for layer in range(layers):
        y = norm(x, f"{layer}.norm1")
        query, key, value = (by_head(y @ weights[f"{layer}.{part}"]) for part in ("q", "k", "v"))
        scores = rotate(query) @ rotate(key).transpose(0, 2, 1) / math.sqrt(width // heads)
        attended = (softmax(scores + future) @ value).transpose(1, 0, 2).reshape(count, width)
        x = x + attended @ weights[f"{layer}.o"]
        y = norm(x, f"{layer}.norm2")
        gate = y @ weights[f"{layer}.gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ weights[f"{layer}.up"])) @ weights[f"{layer}.down"]
    return norm(x, "norm")


def decoder_graph(weights, width, heads, layers):
    """A causal decoder whose positions count unmasked tokens, so padding on the left changes nothing."""
    g = Graph()
    head_width = width // heads
    half = head_width // 2

    def weight(name):
        return g.const(name, weights[name])

    def norm(x, name):
        square = g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=1)
        root = g.op("Sqrt", g.op("Add", square, g.f32("epsilon", EPSILON)))
        return g.op("Mul", g.op("Div", x, root), weight(name))

    position = g.op("Sub", g.op("CumSum", "attention_mask", g.const("axis_1", np.array(1, np.int64))), g.ints(1))
    position = g.op("Max", position, g.ints(0))
    angles = rotation_angles(np.arange(2 * MAX_TOKENS), head_width)
    cos, sin = (
        g.op("Unsqueeze", g.op("Gather", g.const(name, table.astype(np.float32)), position), g.ints(1))
        for name, table in (("cos", np.cos(angles)), ("sin", np.sin(angles)))
    )

    def rotate(x):
        first, second = (
            g.op("Slice", x, g.ints(start), g.ints(end), g.ints(3)) for start, end in ((0, half), (half, head_width))
        )
        turned = g.op("Concat", g.op("Neg", second), first, axis=3)
        return g.op("Add", g.op("Mul", x, cos), g.op("Mul", turned, sin))

    length = g.op("Squeeze", g.op("Shape", "input_ids", start=1, end=2), g.ints(0))
    zero, one = (g.const(f"scalar_{value}", np.array(value, np.int64)) for value in (0, 1))
    index = g.op("Range", zero, length, one)
    past = g.op("LessOrEqual", g.op("Unsqueeze", index, g.ints(0)), g.op("Unsqueeze", index, g.ints(1)))
    unmasked = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=TensorProto.BOOL), g.ints(1, 2))
    visible = g.op("And", past, unmasked)

    x = g.op("Gather", weight("embed"), "input_ids")
    for layer in range(layers):
        y = norm(x, f"{layer}.norm1")
        query, key, value = (
            g.op(
                "Transpose",
                g.op("Reshape", g.op("MatMul", y, weight(f"{layer}.{part}")), g.ints(0, 0, heads, head_width)),
                perm=[0, 2, 1, 3],
            )
            for part in ("q", "k", "v")
        )
        scores = g.op("MatMul", rotate(query), g.op("Transpose", rotate(key), perm=[0, 1, 3, 2]))
        scores = g.op("Mul", scores, g.f32("shrink", head_width**-0.5))
        attended = g.op("Softmax", g.op("Where", visible, scores, g.f32("masked", -1e9)), axis=-1)
        attended = g.op("Transpose", g.op("MatMul", attended, value), perm=[0, 2, 1, 3])
        attended = g.op("Reshape", attended, g.ints(0, 0, width))
        x = g.op("Add", x, g.op("MatMul", attended, weight(f"{layer}.o")))
        y = norm(x, f"{layer}.norm2")
        gate = g.op("MatMul", y, weight(f"{layer}.gate"))
        gate = g.op("Mul", gate, g.op("Sigmoid", gate))
        y = g.op("Mul", gate, g.op("MatMul", y, weight(f"{layer}.up")))
        x = g.op("Add", x, g.op("MatMul", y, weight(f"{layer}.down")))
    g.op("Identity", norm(x, "norm"), out="last_hidden_state")
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "seq", width])]
    return g.model(token_inputs("input_ids", "attention_mask"), outputs, "tiny-decoder")


def render(messages):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string(CHAT_TEMPLATE)
    return template.render(messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=False)


def tiny_decoder(folder, seed):
    width, heads, layers = 32, 2, 2
    tokenizer = byte_level_bpe()
    weights = decoder_weights(len(tokenizer["model"]["vocab"]), width, 64, layers, seed)
    settings = {"pooling": "last", "input": "chat", "padding_side": "left", "output": "last_hidden_state"}
    settings.update(bos_token="<s>", eos_token="</s>")
    write_backbone(folder, decoder_graph(weights, width, heads, layers), tokenizer, settings, CHAT_TEMPLATE)

    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inputs = [
        {"prompt": prompt, "response": response} | {"messages": conversation(prompt, response)}
        for prompt, response in EXAMPLES
    ]
    inputs.append({"prompt": CONVERSATION[:-1], "response": CONVERSATION[-1]["content"], "messages": CONVERSATION})
    items = []
    for given in inputs:
        text = render(given["messages"])
        encoding = reader.encode(text, add_special_tokens=False)
        ids, truncated = fit_chat(encoding, content_ranges(text, given["messages"]), MAX_TOKENS)
        embedding = decoder_reference(weights, ids, heads, layers)[-1]
        items.append(golden_item({**given, "rendered": text}, ids, truncated, embedding))
    write_golden(folder / "golden.json", CHAT_TRUNCATION, items)
    check(folder, items, "last", False, left=True)


def conversation(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


# Golden files


def golden_item(given, ids, truncated, embedding):
    return {**given, "token_ids": ids, "truncated": truncated, "embedding": seven_digits(embedding)}


def write_golden(path, truncation, items, **more):
    about = "Written by tools/make_test_backbones.py; embeddings by a forward pass in float64 numpy."
    write_json(path, {"about": about, **more, "truncation": truncation, "items": items})


def check(folder, items, pooling, token_types, left=False):
    """The graph, fed all items as one padded batch, must give the golden embeddings."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    longest = max(len(item["token_ids"]) for item in items)
    feed = {name: np.zeros((len(items), longest), np.int64) for name in ("input_ids", "attention_mask")}
    if token_types:
        feed["token_type_ids"] = np.zeros((len(items), longest), np.int64)
    for row, item in enumerate(items):
        ids = item["token_ids"]
        place = slice(longest - len(ids), longest) if left else slice(0, len(ids))
        feed["input_ids"][row, place], feed["attention_mask"][row, place] = ids, 1
        if token_types:
            feed["token_type_ids"][row, ids.index(3) + 1 : len(ids)] = 1
    hidden = session.run(None, feed)[0]
    weight = feed["attention_mask"][:, :, None]
    pooled = {
        "mean": lambda: (hidden * weight).sum(1) / weight.sum(1),
        "cls": lambda: hidden[:, 0],
        "last": lambda: hidden[:, -1],
    }[pooling]()
    error = np.abs(pooled - np.array([item["embedding"] for item in items])).max()
    assert error < 1e-5, f"{folder.name} differs from its golden values by {error}"
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name}: largest difference {error:.1e}, {size // 1024} KiB")


def minilm_golden(weights_folder):
    config, weights = read_weights(weights_folder)
    reader = Tokenizer.from_str(plain_tokenizer((weights_folder / "tokenizer.json").read_text(encoding="utf-8")))
    items = []
    for prompt, response in MINILM_EXAMPLES:
        ids, _, truncated = pair_tokens(reader, prompt, response, 256)
        embedding = encoder_reference(config, weights, ids, [0] * len(ids)).mean(0)
        items.append(golden_item({"prompt": prompt, "response": response}, ids, truncated, embedding))
    write_golden(FIXTURES / "minilm-golden.json", PAIR_TRUNCATION, items, input="pair", max_tokens=256)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="folder with the published all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    tiny_encoder(FIXTURES / "tiny-encoder", "mean", token_types=False, seed=1)
    tiny_encoder(FIXTURES / "tiny-encoder-cls", "cls", token_types=True, seed=2)
    tiny_decoder(FIXTURES / "tiny-decoder", seed=3)
    if arguments.weights:
        minilm_golden(arguments.weights)


if __name__ == "__main__":
    main()
