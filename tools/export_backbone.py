"""Turns a Hugging Face model, an encoder or a decoder, into a backbone folder.

    export-backbone MODEL --out DIR

MODEL is a local folder or a name on the hub; no code of the model's own is run. Of a reward model
(AutoModelForSequenceClassification) the hidden states are taken, without its score. The folder appears once the graph,
run by ONNX Runtime in padded batches, has given what the model gives in transformers: backbone.json, model.onnx,
tokenizer.json and, for chat input, chat_template.jinja.
"""

import argparse
import inspect
import json
import logging
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import onnx_ir
import onnxruntime
import torch
import transformers
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from onnx_ir.tensor_adapters import TorchTensor
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from build_backbone import plain_tokenizer
from setup_cache import fsync, fsync_tree, sha256_of

MODEL_FILE, TOKENIZER_FILE, TEMPLATE_FILE = "model.onnx", "tokenizer.json", "chat_template.jinja"
MAX_MODEL_BYTES = 2 << 30  # of one protobuf message; the server reads no external data
GRAPH_BYTES = 16 << 20  # left for nodes and names when weights are added up
DEFAULT_WINDOW = 2048  # where the model itself has no shorter one
VERIFIED_TOKENS = 4096  # no longer text is tried, as attention in float32 takes its square
TEMPLATE_ERRORS = (jinja2.exceptions.TemplateError, TypeError)
CLOCK = "strftime_now"  # what chat templates call it
TOLERANCE = 1e-4  # of the largest absolute value of a text's hidden states
OPSET = 18
NARROW_TYPES = (torch.bfloat16, torch.float16)
SMALLEST_WEIGHT = 1024  # numbers; smaller ones are left as they are
PRECISIONS = {
    onnx_ir.DataType.FLOAT: "fp32",
    onnx_ir.DataType.BFLOAT16: "bf16",
    onnx_ir.DataType.FLOAT16: "fp16",
}
POOLINGS = ("none", "mean", "cls", "last")
INPUTS = ("pair", "concat", "chat")
SENTENCE_TRANSFORMERS_POOLINGS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}

PAIRS = [
    ("Name a fish.", "A trout."),
    ("", "A response without a prompt."),
    ("Qu'est-ce qu'on cuisine en été ?", "Une truite, à la crème brûlée… 🐟"),
    ("How do I tell my friend the bad news?", "Sit with her, hold her hand, and say it gently. " * 4),
]


class ExportError(Exception):
    """Something the person who runs this can mend; the message says how."""


def say(line):
    print("export-backbone: " + line, flush=True)


# What a model's folder says


@dataclass(frozen=True)
class Source:
    """A model's files, in a local folder or on the hub."""

    model: str
    revision: str | None

    @property
    def keywords(self):
        return {"revision": self.revision, "trust_remote_code": False}

    def file(self, name):
        """Where a file is, or None."""
        folder = Path(self.model)
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
        try:
            return Path(hf_hub_download(self.model, name, revision=self.revision))
        except LocalEntryNotFoundError as error:
            raise ExportError(f"whether {self.model} has a {name} cannot be asked: {error}") from error
        except EntryNotFoundError:
            return None

    def json(self, name):
        path = self.file(name)
        return {} if path is None else json.loads(path.read_text(encoding="utf-8"))

    def described(self, config):
        """For backbone.json."""
        commit = getattr(config, "_commit_hash", None)
        return f"{self.model} at {commit}" if commit else Path(self.model).resolve().name

    def licence(self):
        """What the model card says."""
        card = self.file("README.md")
        said = (metadata_load(card) if card else None) or {}
        licence = said.get("license")
        if licence == "other":
            licence = said.get("license_name", licence)
        return ", ".join(licence) if isinstance(licence, list) else licence

    def load(self, what, automatic, **more):
        try:
            return automatic.from_pretrained(self.model, **self.keywords, **more)
        except Exception as error:  # there is no end to what strange files raise
            raise ExportError(f"the {what} of {self.model} cannot be loaded: {error}") from error


def check_bytes(weights):
    """Refuses weights that do not fit into one file."""
    if weights + GRAPH_BYTES > MAX_MODEL_BYTES:
        raise ExportError(f"the weights take {weights / 2**30:.2f} GiB, and model.onnx must stay below 2 GiB")


def check_size(config):
    """Refuses a model that is too large before it is fetched."""
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config)
    except ValueError as error:
        raise ExportError(f"transformers has no model of the kind {config.model_type}: {error}") from error
    stored = config.dtype if config.dtype in NARROW_TYPES else torch.float32
    check_bytes(sum(parameter.numel() for parameter in model.parameters()) * stored.itemsize)


def read_config(source):
    config = source.load("configuration", AutoConfig)
    if config.is_encoder_decoder:
        raise ExportError(
            f"{source.model} has an encoder and a decoder ({config.model_type}), only one can be exported"
        )
    check_size(config)
    return config


def read_model(source, config, pooling):
    """The hidden states' part of a checkpoint; every weight that is read must be in it."""
    model, report = source.load("model", AutoModel, config=config, dtype=torch.float32, output_loading_info=True)
    unread = () if pooling == "none" else ("pooler.",)
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unread))
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ExportError(f"the checkpoint has no {names}: their weights would be random")
    takes = inspect.signature(model.forward).parameters
    if "input_ids" not in takes or "attention_mask" not in takes:
        raise ExportError(f"{type(model).__name__} does not read token ids and a mask")
    return model.eval().requires_grad_(False)


def read_tokenizer(source):
    """The fast tokenizer, and its file without padding and truncation, which are the server's business."""
    tokenizer = source.load("tokenizer", AutoTokenizer)
    if not tokenizer.is_fast:
        raise ExportError(
            f"{source.model} has only a slow tokenizer ({type(tokenizer).__name__}); the server reads tokenizer.json: "
            "convert it first (transformers.convert_slow_tokenizer) and save it beside the model"
        )
    # Without any of these files transformers makes a tokenizer that knows no words.
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if not any(source.file(name) for name in sorted(files)):
        raise ExportError(f"{source.model} has no tokenizer: none of {', '.join(sorted(files))}")
    return tokenizer, plain_tokenizer(tokenizer.backend_tokenizer.to_str())


# What is said where nothing was asked for


def chosen(asked, field, guess, why):
    if asked is not None:
        return asked
    say(f"{field} {guess}: {why} (--{field} decides otherwise)")
    return guess


def is_causal(model):
    """Whether what follows a token leaves its hidden state as it is."""
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]]) % model.get_input_embeddings().num_embeddings
    with torch.no_grad():
        hidden = HiddenStates(model, "last_hidden_state")(ids, torch.ones_like(ids))[:, :3]
    return bool((hidden[0] - hidden[1]).abs().max() <= 1e-5 * hidden.abs().max())


def guess_pooling(source, causal):
    """(pooling, why)."""
    config = source.json("1_Pooling/config.json")
    if not config:
        return ("last", "it is a decoder") if causal else ("mean", "it is an encoder")
    mode = config.get("pooling_mode")
    modes = [name.removeprefix("pooling_mode_") for name, used in config.items() if used is True]
    modes = [mode] if isinstance(mode, str) else [name for name in modes if name != "include_prompt"]
    poolings = [SENTENCE_TRANSFORMERS_POOLINGS.get(name, name) for name in modes]
    if len(poolings) != 1 or poolings[0] not in POOLINGS:
        raise ExportError(
            f"1_Pooling/config.json asks for {' and '.join(modes)}, which the server cannot do: --pooling"
        )
    return poolings[0], "1_Pooling/config.json says so"


def guess_input(tokenizer, causal):
    """(input, why)."""
    if tokenizer.chat_template:
        return "chat", "its tokenizer has a chat template"
    return ("concat", "it is a decoder without a chat template") if causal else ("pair", "it is an encoder")


def positions(config, model):
    """Tokens that the model has positions for, or None."""
    count = getattr(config, "max_position_embeddings", None)
    if not isinstance(count, int) or count < 1:
        return None
    # RoBERTa and its like begin to count after the padding's row.
    reserved = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return count - max(reserved, default=0)


def choose_window(source, config, model, tokenizer, asked):
    most = positions(config, model)
    if asked is not None:
        if most is not None and asked > most:
            raise ExportError(f"--max-tokens {asked}: the model has positions for {most} tokens")
        if asked <= (added := tokenizer.num_special_tokens_to_add(pair=True)):
            raise ExportError(f"--max-tokens {asked}: the tokenizer's {added} special tokens alone fill it")
        return asked
    limits = {
        "the model's positions": most,
        "the tokenizer's limit": tokenizer.model_max_length,
        "sentence_bert_config.json": source.json("sentence_bert_config.json").get("max_seq_length"),
        "the default, a longer one costs memory and time": DEFAULT_WINDOW,
    }
    why, window = min(((why, limit) for why, limit in limits.items() if limit), key=lambda limit: limit[1])
    return chosen(None, "max-tokens", window, why)


# The graph


class HiddenStates(torch.nn.Module):
    """The model with the inputs that the server gives and the one output that it reads."""

    def __init__(self, model, output):
        super().__init__()
        self.model, self.output = model, output
        takes = inspect.signature(model.forward).parameters
        self.more = {"use_cache": False} if "use_cache" in takes else {}

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **types, **self.more)
        if output.get(self.output) is None:
            raise ExportError(f"{type(self.model).__name__} gives no {self.output}")
        return output[self.output]


def input_names(config, model, tokenizer):
    """The graph's inputs. Texts are padded on the right, so no model needs position_ids to count from their start."""
    takes = inspect.signature(model.forward).parameters
    has_types = getattr(config, "type_vocab_size", 0) > 1
    names = ["input_ids", "attention_mask"]
    if has_types and "token_type_ids" in takes and "token_type_ids" in tokenizer.model_input_names:
        names.append("token_type_ids")
    return names


def padded(texts, names):
    """Texts as (ids, type ids), filled up on the right as the server does."""
    width = max(len(ids) for ids, _ in texts)
    arrays = {name: np.zeros((len(texts), width), np.int64) for name in names}
    for row, (ids, types) in enumerate(texts):
        arrays["input_ids"][row, : len(ids)] = ids
        arrays["attention_mask"][row, : len(ids)] = 1
        if "token_type_ids" in arrays:
            arrays["token_type_ids"][row, : len(ids)] = types
    return arrays


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def narrowest(weight):
    """The weight in the first type that holds all of it."""
    for dtype in NARROW_TYPES:
        if torch.equal(weight.to(dtype).float(), weight):
            return weight.to(dtype)
    return weight


def store_narrowly(graph):
    """Stores large weights in two bytes where these hold the same numbers, as those of most checkpoints.

    A cast widens them; ONNX Runtime does it once, when it loads the graph. Gives the type of most of them.
    """
    numbers = Counter({onnx_ir.DataType.FLOAT: 0})
    for name, wide in list(graph.initializers.items()):
        if wide.dtype != onnx_ir.DataType.FLOAT or wide.const_value.size < SMALLEST_WEIGHT:
            continue
        weight = torch.from_numpy(wide.const_value.numpy())
        tensor = TorchTensor(narrowest(weight), name=f"{name}.stored")
        numbers[tensor.dtype] += tensor.size
        if tensor.dtype == wide.dtype:
            continue
        stored = onnx_ir.Value(
            name=tensor.name, shape=wide.shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
        )
        cast = onnx_ir.node("Cast", [stored], {"to": wide.dtype}, name=f"{name}.widen")
        wide.replace_all_uses_with(cast.outputs[0])
        del graph.initializers[name]
        graph.initializers.add(stored)
        graph.insert_before(graph[0], cast)
        cast.outputs[0].name, cast.outputs[0].type, cast.outputs[0].shape = name, wide.type, wide.shape
    return numbers.most_common(1)[0][0]


def write_graph(wrapper, names, texts, path):
    """Writes `path`, and gives the precision of its weights."""
    example = tensors(padded(texts, names))
    batch, seq = torch.export.Dim("batch"), torch.export.Dim("seq")
    # What the exporter says is of its own insides; what it writes is tried.
    for logger in ("torch", "onnxscript", "onnx_ir"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                wrapper,
                kwargs=example,
                output_names=[wrapper.output],
                dynamic_shapes={name: {0: batch, 1: seq} for name in names},
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = next(iter(str(cause).splitlines()), "")
            raise ExportError(f"torch.onnx cannot export this model: {type(cause).__name__}: {reason}") from error
    graph = program.model.graph
    precision = PRECISIONS[store_narrowly(graph)]
    check_bytes(sum(weight.const_value.nbytes for weight in graph.initializers.values()))
    program.save(path, external_data=False)
    return precision


# Trials


class Texts:
    """How prompts and responses become tokens, by transformers."""

    def __init__(self, tokenizer, shape):
        self.tokenizer, self.shape = tokenizer, shape

    def render(self, messages, withheld=()):
        """A conversation by the template, to which the names `withheld` are undefined."""
        unset = "".join(f"{{% set {name} = not_given %}}" for name in withheld)
        template = unset + self.tokenizer.get_chat_template()
        return self.tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=False
        )

    def render_as_served(self, messages):
        """With what the server gives a template: no clock, and of the special tokens these two."""
        return self.render(messages, {CLOCK, *self.tokenizer.special_tokens_map} - {"bos_token", "eos_token"})

    def encode(self, prompt, response):
        """(ids, type ids) of a pair."""
        if self.shape == "pair":
            text = self.tokenizer(prompt, response, return_token_type_ids=True)
        elif self.shape == "concat":
            text = self.tokenizer(f"{prompt}\n{response}", return_token_type_ids=True)
        else:
            text = self.render_as_served([turn("user", prompt), turn("assistant", response)])
            text = self.tokenizer(text, add_special_tokens=False, return_token_type_ids=True)
        return text["input_ids"], text["token_type_ids"]


def turn(role, content):
    return {"role": role, "content": content}


def check_template(texts):
    """The template must give the server what it gives transformers, the date aside."""
    ask, answer = turn("user", "Name a fish."), turn("assistant", "A trout.")
    for messages in ([ask], [ask, answer], [ask, answer, ask, answer]):
        try:
            served, without_clock = texts.render_as_served(messages), texts.render(messages, {CLOCK})
        except TEMPLATE_ERRORS as error:
            raise ExportError(f"the chat template does not work without a clock: {error} (--chat-template)") from error
        if served != without_clock:
            raise ExportError(
                "the chat template writes a special token that the server does not give (--chat-template)"
            )
    if CLOCK in texts.tokenizer.get_chat_template():
        say("the chat template asks for the date; the server has no clock, and so it writes what it does without one")
    others = {"a response without a prompt": [answer], "a system message": [turn("system", "Be brief."), ask]}
    for what, messages in others.items():
        try:
            texts.render_as_served(messages)
        except TEMPLATE_ERRORS as error:
            say(f"the chat template refuses {what} ({error}), and so will the server")


def check_tokenizer(texts, written):
    """tokenizer.json must give what transformers gives."""
    reader = Tokenizer.from_str(written)
    for prompt, response in PAIRS:
        ids, _ = texts.encode(prompt, response)
        if texts.shape == "pair":
            mine = reader.encode(prompt, response)
        elif texts.shape == "concat":
            mine = reader.encode(f"{prompt}\n{response}")
        else:
            mine = reader.encode(
                texts.render_as_served([turn("user", prompt), turn("assistant", response)]), add_special_tokens=False
            )
        if mine.ids != ids:
            raise ExportError("tokenizer.json does not give the token ids that transformers gives")


def trial_texts(texts, window):
    """(ids, type ids) of a text a pair, of one token, and of as many tokens as the window holds."""
    encoded = [texts.encode(prompt, response) for prompt, response in PAIRS]
    encoded = [(ids[:window], types[:window]) for ids, types in encoded]
    longest = min(window, VERIFIED_TOKENS)
    words = [number for ids, _ in encoded for number in ids]
    full = (words * (longest // len(words) + 1))[:longest]
    return [*encoded, (words[:1], [0]), (full, [0] * longest)]


def references(wrapper, texts, names):
    """What transformers gives for each text alone, without padding."""
    outputs = []
    for text in texts:
        try:
            with torch.no_grad():
                outputs.append(wrapper(**tensors(padded([text], names)))[0].numpy())
        except (IndexError, RuntimeError) as error:
            length = len(text[0])
            raise ExportError(f"the model cannot read a text of {length} tokens (--max-tokens): {error}") from error
    return outputs


def run_graph(path, names, output, batches):
    """The output for each batch of texts, by ONNX Runtime."""
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs = [session.run([output], padded(texts, names))[0] for texts in batches]
    except Exception as error:  # its errors have no class of their own in common
        raise ExportError(f"ONNX Runtime cannot run the graph: {error}") from error
    return outputs


def largest_difference(batches, outputs):
    """Of outputs from the references of `batches` of (text, reference), relative to a reference's largest value."""
    worst = 0.0
    for batch, rows in zip(batches, outputs):
        for row, (_, reference) in zip(rows, batch):
            row = row if reference.ndim == 1 else row[: len(reference)]
            # A NaN stays.
            worst = np.maximum(worst, np.abs(row - reference).max() / np.abs(reference).max())
    return float(worst)


def verify(path, names, output, trials):
    """Tries texts with their references: together, far shorter than their neighbour, and alone."""
    batches = [trials[:-1], trials[-2:], trials[-2:-1], trials[-1:]]
    outputs = run_graph(path, names, output, [[text for text, _ in batch] for batch in batches])
    worst = largest_difference(batches, outputs)
    if not worst <= TOLERANCE:  # nor is a NaN
        raise ExportError(
            f"ONNX Runtime differs from transformers by {worst:.1e} of the largest value, not {TOLERANCE}"
        )
    return worst


# The folder


def chat_template(tokenizer, shape):
    if shape != "chat":
        return None
    if not tokenizer.chat_template:
        raise ExportError("the tokenizer has no chat template: --chat-template FILE, or --input concat")
    return tokenizer.get_chat_template()


def write_folder(source, arguments, built):
    """Everything into `built`, tried; gives the size of the graph and the largest difference."""
    config = read_config(source)
    tokenizer, tokenizer_text = read_tokenizer(source)
    model = read_model(source, config, arguments.pooling)
    causal = is_causal(model)
    pooling = chosen(arguments.pooling, "pooling", *guess_pooling(source, causal))
    if arguments.chat_template is not None:
        tokenizer.chat_template = arguments.chat_template.read_text(encoding="utf-8")
    shape = chosen(arguments.input, "input", *guess_input(tokenizer, causal))
    template = chat_template(tokenizer, shape)
    window = choose_window(source, config, model, tokenizer, arguments.max_tokens)

    texts = Texts(tokenizer, shape)
    if template is not None:
        check_template(texts)
    check_tokenizer(texts, tokenizer_text)
    wrapper = HiddenStates(model, "pooler_output" if pooling == "none" else "last_hidden_state")
    names = input_names(config, model, tokenizer)
    samples = trial_texts(texts, window)
    expected = references(wrapper, samples, names)
    say("writing the graph, and trying it in ONNX Runtime")
    precision = write_graph(wrapper, names, samples[:2], built / MODEL_FILE)
    trials = list(zip(samples, expected))
    worst = verify(built / MODEL_FILE, names, wrapper.output, trials)

    (built / TOKENIZER_FILE).write_text(tokenizer_text, encoding="utf-8")
    licence = arguments.licence or source.licence()
    if licence is None:
        say("its model card names no licence (--licence)")
    backbone = {
        "format": 1,
        "name": arguments.name or Path(arguments.model).resolve().name,
        "dim": expected[0].shape[-1],
        "max_tokens": window,
        "pooling": pooling,
        "input": shape,
        "padding_side": "right",
        "output": wrapper.output,
        "sha256": sha256_of(built / MODEL_FILE),
        "tokenizer_sha256": sha256_of(built / TOKENIZER_FILE),
        "precision": precision,
        "source": source.described(config),
    }
    if template is not None:
        (built / TEMPLATE_FILE).write_text(template, encoding="utf-8")
        backbone["chat_template_sha256"] = sha256_of(built / TEMPLATE_FILE)
    given = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, "licence": licence}
    backbone |= {field: value for field, value in given.items() if value is not None}
    (built / "backbone.json").write_text(json.dumps(backbone, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return worst


def export(arguments):
    out = arguments.out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is there already: name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    built = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        worst = write_folder(Source(arguments.model, arguments.revision), arguments, built)
        built.chmod(0o755)  # a temporary folder is its owner's alone
        fsync_tree(built)
        built.rename(out)
        fsync(out.parent)
    except BaseException:
        shutil.rmtree(built)
        raise
    say(f"{out} is ready: ONNX Runtime differs from transformers by at most {worst:.0e} of the largest value")
    say(f"try it with: polyreward backbone check {arguments.out}")


def whole_number(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def parse(argv=None):
    parser = argparse.ArgumentParser(
        prog="export-backbone", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, or a name on the hub")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write; not there yet")
    parser.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="what becomes of the hidden states; none: the model's own pooler (default: 1_Pooling/config.json's, or "
        "mean for an encoder and last for a decoder)",
    )
    parser.add_argument(
        "--input",
        choices=INPUTS,
        help="how prompt and response become a text (default: chat with a chat template, pair for an encoder, concat "
        "else)",
    )
    parser.add_argument("--chat-template", type=Path, metavar="FILE", help="instead of the tokenizer's own")
    parser.add_argument(
        "--max-tokens",
        type=whole_number,
        metavar="N",
        help=f"the window (default: the model's, at most {DEFAULT_WINDOW})",
    )
    parser.add_argument("--name", help="the backbone's name (default: the model's)")
    parser.add_argument("--licence", help="of the weights (default: what the model card says)")
    return parser.parse_args(argv)


def main():
    arguments = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is unfinished goes then too
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        export(arguments)
    except (ExportError, OSError) as error:
        sys.exit(f"export-backbone: {error}")
    except KeyboardInterrupt:
        sys.exit("export-backbone: stopped; nothing is left")


if __name__ == "__main__":
    main()
