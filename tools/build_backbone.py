#!/usr/bin/env python3
"""Turns a BERT encoder's safetensors into a backbone folder (backbone.json, model.onnx, tokenizer.json).

    build_backbone.py --weights DIR --precision fp32|int8_static|int8_row|int8_block|int4_block --name NAME --out DIR

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
# What tools/measure_ranges.py measured of the default backbone's activations.
RANGES = Path(__file__).with_name("all-minilm-l6-v2.ranges.json")
# The layer that reads what Gelu gives, and just below the least that Gelu gives.
BEHIND_GELU = ".output.dense"
ATTENTION_OUTPUT = ".attention.output.dense"
GELU_LEAST = -0.17


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

    def split(self, x, parts):
        """Equal parts along the first axis."""
        name = f"Split_{len(self.nodes)}"
        outputs = [f"{name}_{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [x], outputs, name, axis=0))
        return outputs

    def model(self, inputs, outputs, name):
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="polyreward")
        onnx.checker.check_model(model)
        return model


class Float32Linear:
    """x W + b in float32."""

    def __init__(self, graph):
        self.graph = graph

    def prepare(self, x, name):
        """The input of the dense layer of that name."""
        return x

    def __call__(self, x, name, weight, bias):
        """`x` is prepared, `weight` is [inputs, outputs]."""
        g = self.graph
        return g.op("Add", g.op("MatMul", x, g.const(name + ".weight", weight)), g.const(name + ".bias", bias))


class Int8RowLinear(Float32Linear):
    """x W + b with int8 weights (a scale per output) and activations quantised per token.

    One scale per tensor, taken from the batch as dynamic quantisation does, would let a text's batch mates change
    its embedding; a scale per token cannot.
    """

    def prepare(self, x, name):
        """[tokens, width] float32 to (uint8, its zero point, scale [tokens, 1])."""
        g = self.graph
        if name.endswith(BEHIND_GELU) and not name.endswith(ATTENTION_OUTPUT):
            # Nothing lies below: most of the range is left to what lies above.
            zero = 16
            floor = g.f32("gelu_floor", -GELU_LEAST * (255 - zero) / zero)
            largest = g.op("Max", g.op("ReduceMax", x, axes=[1], keepdims=1), floor)
        else:
            zero = 128
            largest = g.op("Max", g.op("ReduceMax", g.op("Abs", x), axes=[1], keepdims=1), g.f32("tiny", 1e-8))
        scale = g.op("Mul", largest, g.f32(f"one_{255 - zero}th", 1 / (255 - zero)))
        scales = g.op("Squeeze", scale, g.ints(1))
        zero_points = g.op("Expand", g.const(f"zeros_{zero}", np.array([zero], np.uint8)), g.op("Shape", scales))
        return g.op("QuantizeLinear", x, scales, zero_points, axis=0), zero, scale

    def __call__(self, x, name, weight, bias):
        g = self.graph
        tokens, zero, scale = x
        # Scales of tokens are not among what the product can take.
        product = g.op("Mul", self.product(tokens, zero, g.f32("one", 1.0), name, weight), scale)
        # As a row: ONNX Runtime would fuse the addition of a vector with a Gelu behind it, and be slower for it.
        return g.op("Add", product, g.const(name + ".bias", bias[None]))

    def product(self, tokens, zero, scale, name, weight, *bias):
        """int8 to float32; the sums leave the integers while they are in the processor's cache."""
        g = self.graph
        column_scale = int8_scales(weight)
        quantised = np.rint(weight / column_scale).astype(np.int8)
        zero_points = g.const(f"zero_{zero}", np.array(zero, np.uint8)), g.const("zero_weight", np.array(0, np.int8))
        operands = [tokens, g.const(name + ".weight", quantised), scale, g.const(name + ".scale", column_scale)]
        return g.op("MatMulIntegerToFloat", *operands, *zero_points, *bias, domain=CONTRIB)


class Int8StaticLinear(Int8RowLinear):
    """The same, with scales that were measured beforehand where a token's own is not needed.

    Channels that are larger than others are made smaller in the activations and larger in the weights (SmoothQuant,
    Xiao et al. 2023, equation 4), which costs one multiplication and leaves less to round. What is constant needs no
    maximum, and scale and bias become part of the product.
    """

    def __init__(self, graph):
        super().__init__(graph)
        self.ranges = json.loads(RANGES.read_text(encoding="utf-8"))["layers"]

    def prepare(self, x, name):
        measured = self.ranges.get(name)
        if measured is None:
            return super().prepare(x, name)
        g = self.graph
        factors = smoothing(measured)
        if factors is not None:
            x = g.op("Mul", x, g.const(name + ".smoothing", 1 / factors))
        scale = g.f32(name + ".token_scale", measured["scale"])
        zero = g.const(f"zero_{measured['zero']}", np.array(measured["zero"], np.uint8))
        return g.op("QuantizeLinear", x, scale, zero)

    def __call__(self, x, name, weight, bias):
        measured = self.ranges.get(name)
        if measured is None:
            return super().__call__(x, name, weight, bias)
        factors = smoothing(measured)
        if factors is not None:
            weight = weight * factors[:, None]
        scale, bias = name + ".token_scale", self.graph.const(name + ".bias", bias)
        return self.product(x, measured["zero"], scale, name, weight, bias)


def smoothing(measured):
    """By how much each channel is divided before it is quantised, or `None`: powers of 2 to the quarter."""
    if "smoothing" not in measured:
        return None
    return np.exp2(np.array(measured["smoothing"], np.float32) / 4).astype(np.float32)


class BlockLinear(Float32Linear):
    """x W + b with weights alone quantised, a scale for each block of inputs; the activations are float32."""

    bits, block = 8, 32

    def __call__(self, x, name, weight, bias):
        g = self.graph
        inputs, outputs = weight.shape
        blocks = np.ascontiguousarray(weight.T).reshape(outputs, inputs // self.block, self.block)
        half = 1 << (self.bits - 1)
        scales = np.maximum(np.abs(blocks).max(-1, keepdims=True) / (half - 1), 1e-12).astype(np.float32)
        quantised = (np.rint(blocks / scales) + half).astype(np.uint8)
        if self.bits == 4:
            quantised = quantised[..., 0::2] | quantised[..., 1::2] << 4
        attributes = {"K": inputs, "N": outputs, "bits": self.bits, "block_size": self.block, "accuracy_level": 4}
        operands = [x, g.const(name + ".weight", quantised), g.const(name + ".scale", scales.reshape(-1))]
        product = g.op("MatMulNBits", *operands, domain=CONTRIB, **attributes)
        return g.op("Add", product, g.const(name + ".bias", bias[None]))


class Block4Linear(BlockLinear):
    """The same with four bits a weight."""

    bits = 4


def int8_scales(weight):
    """A scale per column of [inputs, outputs] with which no processor's int8 product can saturate.

    Without VNNI, x86 adds the products of two neighbouring inputs in 16 bits: 255 (|a| + |b|) must stay below
    32768 where a and b have one sign. With the plain scale it does not, and such processors give other,
    worse embeddings than the rest.
    """
    limit = np.float32(127)
    sums = [np.maximum(part, 0)[0::2] + np.maximum(part, 0)[1::2] for part in (weight, -weight)]
    return np.maximum(np.abs(weight).max(0), np.maximum(*sums).max(0)).clip(np.float32(1e-8)) / limit


def gelu(graph, x):
    """The exact form; ONNX Runtime fuses it."""
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


def attend(g, config, weights, linear, x, masked, name):
    """[tokens, width], each token what it reads of its text's other tokens."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_width = width // heads
    # One product for all three: the tokens are read once.
    scales = {"query": np.float32(head_width**-0.5), "key": np.float32(1), "value": np.float32(1)}
    dense = [dense_layer(weights, name + part) for part in scales]
    weight = np.concatenate([weight * scale for (weight, _), scale in zip(dense, scales.values(), strict=True)], axis=1)
    bias = np.concatenate([bias * scale for (_, bias), scale in zip(dense, scales.values(), strict=True)])
    name += "query_key_value"
    y = linear(linear.prepare(x, name), name, weight, bias)
    y = g.op("Reshape", y, g.op("Concat", g.op("Shape", "input_ids"), g.ints(3, heads, head_width), axis=0))
    y = g.op("Transpose", y, perm=[2, 0, 3, 1, 4])
    query, key, value = (g.op("Squeeze", part, g.ints(0)) for part in g.split(y, 3))
    logits = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
    attended = g.op("Softmax", g.op("Add", logits, masked), axis=-1)
    y = g.op("Transpose", g.op("MatMul", attended, value), perm=[0, 2, 1, 3])
    return g.op("Reshape", y, g.ints(-1, width))


def last_hidden_state(g, config, weights, linear, token_types=False):
    """[batch, seq, width] after the last layer; `linear` computes the dense layers."""
    width = config["hidden_size"]
    x = embed_tokens(g, weights, config, token_types)
    x = g.op("Reshape", x, g.ints(-1, width))
    mask = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    masked = g.op("Mul", g.op("Sub", g.f32("one", 1.0), mask), g.f32("minus_many", -10000.0))
    masked = g.op("Unsqueeze", masked, g.ints(1, 2))

    def dense(x, name):
        return linear(linear.prepare(x, name), name, *dense_layer(weights, name))

    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        y = attend(g, config, weights, linear, x, masked, name + "attention.self.")
        y = dense(y, name + "attention.output.dense")
        x = layer_norm(g, weights, config, g.op("Add", y, x), name + "attention.output.LayerNorm")
        y = gelu(g, dense(x, name + "intermediate.dense"))
        y = dense(y, name + "output.dense")
        x = layer_norm(g, weights, config, g.op("Add", y, x), name + "output.LayerNorm")

    shape = g.op("Shape", "input_ids")
    return g.op("Reshape", x, g.op("Concat", shape, g.ints(width), axis=0))


def dense_layer(weights, name):
    """([inputs, outputs], [outputs]) of a dense layer."""
    return weights[name + ".weight"].T, weights[name + ".bias"]


def token_inputs(*names):
    return [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in names]


def sentence_encoder(config, weights, linear_type):
    """The whole graph, pooling included."""
    g = Graph()
    mean_pool(g, last_hidden_state(g, config, weights, linear_type(g)))
    shape = ["batch", config["hidden_size"]]
    outputs = [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, shape)]
    return g.model(token_inputs("input_ids", "attention_mask"), outputs, "encoder")


PRECISIONS = {
    "fp32": Float32Linear,
    "int8_static": Int8StaticLinear,
    "int8_row": Int8RowLinear,
    "int8_block": BlockLinear,
    "int4_block": Block4Linear,
}


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
