"""What transformers makes of a text: the documented policy, computed from the published folder alone."""

import torch
from make_test_backbones import fit_chat, fit_pair
from transformers import AutoModel, AutoTokenizer


def messages_of(prompt, response):
    """A prompt, a response or both as a conversation."""
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
    return [*asked, *([] if response is None else [{"role": "assistant", "content": response}])]


class Reader:
    """A model in float32 and its tokenizer, one text at a time and without padding."""

    def __init__(self, folder, window, pooling, model=None):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = (model or AutoModel.from_pretrained(folder, dtype=torch.float32)).eval()
        self.window, self.pooling = window, pooling

    def plain(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def read(self, prompt, response):
        """(embedding, number of tokens, whether something was cut)."""
        ids, types, truncated = self.tokens(prompt, response)
        given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
        if types is not None:
            given["token_type_ids"] = torch.tensor([types])
        with torch.no_grad():
            output = self.model(**given)
        hidden = output.last_hidden_state[0]
        pooled = {"mean": lambda: hidden.mean(0), "cls": lambda: hidden[0], "last": lambda: hidden[-1]}
        embedding = output.pooler_output[0] if self.pooling == "none" else pooled[self.pooling]()
        return embedding.tolist(), len(ids), truncated


class PairReader(Reader):
    """Two segments between special tokens; the start of the prompt is cut first, then that of the response."""

    def __init__(self, *arguments, frame, token_types):
        super().__init__(*arguments)
        self.opening, self.between, self.closing = (self.tokenizer.convert_tokens_to_ids(part) for part in frame)
        self.token_types = token_types

    def tokens(self, prompt, response):
        texts = [text for text in (prompt, response) if text is not None]
        between = self.between if len(texts) == 2 else []
        room = self.window - len(self.opening) - len(between) - len(self.closing)
        first, second, truncated = fit_pair(*([[]] + [self.plain(text) for text in texts])[-2:], room)
        ids = [*self.opening, *first, *between, *second, *self.closing]
        given = self.tokenizer(*texts, return_token_type_ids=True)
        assert truncated or given["input_ids"] == ids
        seconds = len(second) + len(self.closing) if len(texts) == 2 else 0
        types = [0] * (len(ids) - seconds) + [1] * seconds if self.token_types else None
        assert types is None or truncated or given["token_type_ids"] == types
        return ids, types, truncated


class ConcatReader(Reader):
    """One text after the token that opens one; its start is cut."""

    def tokens(self, prompt, response):
        text = "\n".join(text for text in (prompt, response) if text is not None)
        ids = self.plain(text)
        room = self.window - 1
        kept = [self.tokenizer.bos_token_id, *ids[-room:]]
        assert len(ids) > room or self.tokenizer(text)["input_ids"] == kept
        return kept, None, len(ids) > room


class ChatReader(Reader):
    """The conversation that the template writes, with no other special tokens; the earliest of its contents is cut."""

    def __init__(self, *arguments, header, model=None, day=None):
        super().__init__(*arguments, model)
        self.header, self.given = header, {} if day is None else {"date_string": day}

    def tokens(self, prompt, response):
        messages = messages_of(prompt, response)
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False, **self.given)
        encoding = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        ids, truncated = fit_chat(encoding, self.contents(text, messages), self.window)
        asked = self.tokenizer.apply_chat_template(messages, add_generation_prompt=False, **self.given)
        assert truncated or asked["input_ids"] == ids
        return ids, None, truncated

    def contents(self, text, messages):
        """Where the contents stand, in characters."""
        ranges, at = [], 0
        for message in messages:
            content = message["content"].strip()
            at = text.index(content, text.index(self.header.format(message["role"]), at))
            ranges.append((at, at + len(content)))
            at += len(content)
        return ranges
