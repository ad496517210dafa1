#!/usr/bin/env python3
"""Turns a BERT encoder's safetensors into a backbone folder (backbone.json, model.onnx, tokenizer.json).

    build_backbone.py --weights DIR --precision fp32|int8_row --name NAME --out DIR

DIR holds config.json, model.safetensors and tokenizer.json. The graph takes `input_ids` and
`attention_mask` (int64 [batch, seq]) and gives `sentence_embedding` (float32 [batch, dim]): the mean over
the unmasked tokens, not normalised. All token types are zero, so their embedding is part of the position
table. The same input gives the same bytes.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

OPSET = 17
IR_VERSION = 8
MAX_TOKENS = 256
INPUT_MODE = "pair"
LICENCE = "Apache-2.0"
SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
CONTRIB = "com.microsoft"


class Graph:
    """Collects nodes and constants; every method returns the name of the tensor it made."""

    def __init__(self):
        self.nodes = []
        self.constants = {}

    def const(self, name, array):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def ints(self, *values):
        return self.const("i64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def f32(self, name, value):
        return self.const(name, np.array(value, np.float32))

    def op(self, op_type, *inputs, out=None, domain="", **attributes):
        name = f"{op_type}_{len(self.nodes)}"
        output = out or name
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, domain=domain, **attributes))
        return output

    def model(self, inputs, outputs, name):
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="polyreward")
        onnx.checker.check_model(model)
        return model


class Float32Linear:
    """x W^T + b in float32."""

    def __init__(self, graph, weights):
        self.graph, self.weights = graph, weights

    def prepare(self, x):
        return x

    def __call__(self, x, name, scale=1.0):
        g = self.graph
        weight = self.weights[name + ".weight"].T * np.float32(scale)
        product = g.op("MatMul", x, g.const(name + ".weight", weight))
        return g.op("Add", product, bias_of(g, self.weights, name, scale))


class Int8RowLinear:
    """x W^T + b with int8 weights (a scale per output) and activations quantised per token.

    One scale per tensor, as dynamic quantisation takes, would let a text's batch mates change its
    embedding; a scale per token cannot.
    """

    def __init__(self, graph, weights):
        self.graph, self.weights = graph, weights

    def prepare(self, x):
        """[tokens, width] float32 to (uint8 around 128, scale [tokens, 1])."""
        g = self.graph
        largest = g.op("ReduceMax", g.op("Abs", x), axes=[1], keepdims=1)
        scale = g.op("Mul", g.op("Max", largest, g.f32("tiny", 1e-8)), g.f32("one_127th", 1 / 127))
        scales = g.op("Squeeze", scale, g.ints(1))
        zero_point = g.const("zero_point", np.array([128], np.uint8))
        zero_points = g.op("Expand", zero_point, g.op("Shape", scales))
        return g.op("QuantizeLinear", x, scales, zero_points, axis=0), scale

    def __call__(self, x, name, scale=1.0):
        g = self.graph
        tokens, token_scale = x
        weight = self.weights[name + ".weight"].T * np.float32(scale)
        column_scale = int8_scales(weight)
        quantised = np.rint(weight / column_scale).astype(np.int8)
        zero_point = g.const("zero_point_scalar", np.array(128, np.uint8))
        product = g.op("MatMulInteger", tokens, g.const(name + ".weight", quantised), zero_point)
        product = g.op("Cast", product, to=TensorProto.FLOAT)
        product = g.op("Mul", product, g.const(name + ".scale", column_scale))
        product = g.op("Mul", product, token_scale)
        return g.op("Add", product, bias_of(g, self.weights, name, scale))


def int8_scales(weight):
    """A scale per column of [inputs, outputs] with which no processor's int8 product can saturate.

    Without VNNI, x86 adds the products of two neighbouring inputs in 16 bits: 255 (|a| + |b|) must stay below
    32768 where a and b have one sign. With the plain scale it does not, and such processors give other,
    worse embeddings than the rest.
    """
    limit = np.float32(127)
    sums = [np.maximum(part, 0)[0::2] + np.maximum(part, 0)[1::2] for part in (weight, -weight)]
    return np.maximum(np.abs(weight).max(0), np.maximum(*sums).max(0)).clip(np.float32(1e-8)) / limit


def bias_of(graph, weights, name, scale):
    return graph.const(name + ".bias", weights[name + ".bias"] * np.float32(scale))


def gelu(graph, x):
    """The exact form; ONNX Runtime fuses it, bias included."""
    erf = graph.op("Erf", graph.op("Div", x, graph.f32("sqrt_2", np.sqrt(2.0))))
    gate = graph.op("Add", erf, graph.f32("one", 1.0))
    return graph.op("Mul", graph.op("Mul", x, gate), graph.f32("half", 0.5))


def layer_norm(graph, weights, config, x, name):
    weight = graph.const(name + ".weight", weights[name + ".weight"])
    bias = graph.const(name + ".bias", weights[name + ".bias"])
    return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=config["layer_norm_eps"])


def embed_tokens(graph, weights, config, token_types):
    """[batch, seq, width] before the first layer."""
    words = graph.const("word_embeddings", weights["embeddings.word_embeddings.weight"])
    positions = weights["embeddings.position_embeddings.weight"]
    types = weights["embeddings.token_type_embeddings.weight"]
    if not token_types:
        positions = positions + types[0]
    length = graph.op("Shape", "input_ids", start=1, end=2)
    position = graph.op("Slice", graph.const("positions", positions), graph.ints(0), length, graph.ints(0))
    x = graph.op("Add", graph.op("Gather", words, "input_ids"), position)
    if token_types:
        x = graph.op("Add", x, graph.op("Gather", graph.const("token_types", types), "token_type_ids"))
    return layer_norm(graph, weights, config, x, "embeddings.LayerNorm")


def mean_pool(graph, x):
    """The mean over unmasked tokens, as `sentence_embedding`."""
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    total = graph.op("MatMul", graph.op("Unsqueeze", mask, graph.ints(1)), x)
    total = graph.op("Squeeze", total, graph.ints(1))
    count = graph.op("ReduceSum", mask, graph.ints(1), keepdims=1)
    count = graph.op("Max", count, graph.f32("one_token", 1.0))
    graph.op("Div", total, count, out="sentence_embedding")


def last_hidden_state(g, config, weights, linear, token_types=False):
    """[batch, seq, width] after the last layer; `linear` computes the dense layers."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_width = width // heads

    x = embed_tokens(g, weights, config, token_types)
    shape = g.op("Shape", "input_ids")
    split_heads = g.op("Concat", shape, g.ints(heads, head_width), axis=0)
    x = g.op("Reshape", x, g.ints(-1, width))
    mask = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    masked = g.op("Mul", g.op("Sub", g.f32("one", 1.0), mask), g.f32("minus_many", -10000.0))
    masked = g.op("Unsqueeze", masked, g.ints(1, 2))

    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        attention = name + "attention.self."
        tokens = linear.prepare(x)
        parts = []
        for part, order, scale in (
            ("query", [0, 2, 1, 3], head_width**-0.5),
            ("key", [0, 2, 3, 1], 1.0),
            ("value", [0, 2, 1, 3], 1.0),
        ):
            y = g.op("Reshape", linear(tokens, attention + part, scale), split_heads)
            parts.append(g.op("Transpose", y, perm=order))
        query, key, value = parts
        attended = g.op("Softmax", g.op("Add", g.op("MatMul", query, key), masked), axis=-1)
        y = g.op("Transpose", g.op("MatMul", attended, value), perm=[0, 2, 1, 3])
        y = g.op("Reshape", y, g.ints(-1, width))
        y = linear(linear.prepare(y), name + "attention.output.dense")
        x = layer_norm(g, weights, config, g.op("Add", y, x), name + "attention.output.LayerNorm")
        y = gelu(g, linear(linear.prepare(x), name + "intermediate.dense"))
        y = linear(linear.prepare(y), name + "output.dense")
        x = layer_norm(g, weights, config, g.op("Add", y, x), name + "output.LayerNorm")

    return g.op("Reshape", x, g.op("Concat", shape, g.ints(width), axis=0))


def token_inputs(*names):
    return [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in names]


def sentence_encoder(config, weights, linear_type):
    """The whole graph, pooling included."""
    g = Graph()
    mean_pool(g, last_hidden_state(g, config, weights, linear_type(g, weights)))
    shape = ["batch", config["hidden_size"]]
    outputs = [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, shape)]
    return g.model(token_inputs("input_ids", "attention_mask"), outputs, "encoder")


PRECISIONS = {"fp32": Float32Linear, "int8_row": Int8RowLinear}


def read_weights(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise SystemExit(f"{folder}: only BERT encoders with GELU can be built, this is {config['model_type']}")
    weights = load_file(folder / "model.safetensors")
    return config, {name.removeprefix("bert."): array for name, array in weights.items()}


def plain_tokenizer(text):
    """The tokenizer without padding and truncation, which are the server's business."""
    tokenizer = json.loads(text)
    tokenizer["padding"] = None
    tokenizer["truncation"] = None
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n"


def build(weights_folder, precision, name, out):
    config, weights = read_weights(weights_folder)
    model = sentence_encoder(config, weights, PRECISIONS[precision]).SerializeToString(deterministic=True)
    tokenizer = plain_tokenizer((weights_folder / "tokenizer.json").read_text(encoding="utf-8")).encode()
    backbone = {
        "format": 1,
        "name": name,
        "dim": config["hidden_size"],
        "max_tokens": MAX_TOKENS,
        "pooling": "none",
        "input": INPUT_MODE,
        "padding_side": "right",
        "output": "sentence_embedding",
        "sha256": hashlib.sha256(model).hexdigest(),
        "tokenizer_sha256": hashlib.sha256(tokenizer).hexdigest(),
        "precision": precision,
        "licence": LICENCE,
        "source": SOURCE,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(model)
    (out / "tokenizer.json").write_bytes(tokenizer)
    (out / "backbone.json").write_text(json.dumps(backbone, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder with the published model")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), required=True)
    parser.add_argument("--name", required=True, help="the backbone's name")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    build(arguments.weights, arguments.precision, arguments.name, arguments.out)


if __name__ == "__main__":
    main()
