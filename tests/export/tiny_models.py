"""Random models of a few thousand weights, saved as people publish theirs, with tokenizers made of a few sentences."""

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    RobertaConfig,
    RobertaModel,
)

transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()

SENTENCES = [
    "Name a fish that lives in the river, and say why you like it.",
    "A trout is a fish, and it is tasty with butter, salt and a glass of wine.",
    "How do I tell my friend the bad news? Sit with her, hold her hand, and say it gently.",
    "The cat sleeps on the warm windowsill while it rains in the garden.",
    "You are a helpful assistant. Answer in one or two sentences.",
    "Une truite à la crème brûlée, s'il vous plaît; and two cups of tea in the morning.",
    "Interest rates rose by half a point; the central bank made borrowing dearer.",
    "def sort(numbers): return sorted(numbers, key=lambda number: -number)",
]
WIDTH, LAYERS, HEADS, INNER = 32, 2, 4, 64

# As the chat models of the Qwen family write conversations, a system turn of the template's own included.
CHATML = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or message.role == 'assistant' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# As Llama 3 does: it writes the opening token and strips contents; the date is today's where there is a clock.
HEADERS = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now('%d %b %Y') %}
    {%- else %}
        {%- set date_string = '26 Jul 2024' %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' }}
{{- system_message + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {%- generation %}
            {{- message['content'] | trim + '<|eot_id|>' }}
        {%- endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
TEMPLATE_DATE = "26 Jul 2024"


def word_piece():
    """BERT's tokenizer."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    frame = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", frame)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, model_max_length=64, **names)


def byte_pairs(special, split=None):
    """Byte-level pairs; `split` is the pattern that words are cut by before, as Qwen and Llama have one."""
    backend = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def save(folder, model, tokenizer, licence=None):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if licence is not None:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n\n# A random model\n", encoding="utf-8")
    return folder


def sizes(tokenizer, positions):
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": positions,
        "initializer_range": 0.3,  # so that every part of it matters
    }


def bert(folder):
    """An encoder with token types, 64 positions and a licence."""
    torch.manual_seed(1)
    tokenizer = word_piece()
    config = BertConfig(**sizes(tokenizer, 64), pad_token_id=tokenizer.pad_token_id)
    return save(folder, BertModel(config), tokenizer, "mit")


def roberta(folder):
    """An encoder whose positions begin after the padding's row: 66 rows, 64 tokens."""
    torch.manual_seed(2)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = byte_pairs(special)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    config = RobertaConfig(**sizes(tokenizer, 66), pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1)
    return save(folder, RobertaModel(config), tokenizer)


def qwen2_reward(folder):
    """A reward model on a decoder: a chat template, no token that opens a text."""
    torch.manual_seed(3)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = byte_pairs(special, WORDS)
    backend.normalizer = normalizers.NFC()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    config = Qwen2Config(**sizes(tokenizer, 96), num_key_value_heads=2, num_labels=1, pad_token_id=0)
    return save(folder, Qwen2ForSequenceClassification(config), tokenizer, "apache-2.0")


def llama(folder):
    """A decoder in bfloat16 whose tokenizer and whose template both write the opening token."""
    torch.manual_seed(4)
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend = byte_pairs(special, WORDS)
    bos = ("<|begin_of_text|>", 0)
    opened = processors.TemplateProcessing(f"{bos[0]} $A", f"{bos[0]} $A {bos[0]}:1 $B:1", [bos])
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), opened])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos[0], eos_token="<|eot_id|>")
    tokenizer.chat_template = HEADERS
    config = LlamaConfig(**sizes(tokenizer, 128), num_key_value_heads=2, rope_theta=500000.0)
    return save(folder, LlamaModel(config).to(torch.bfloat16), tokenizer)
