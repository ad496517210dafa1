"""Prompts and responses as trainers hand them over, as the server takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyreward.types import Item, Message, Prompt


def item_of(prompt: Any, completion: Any) -> Item:
    """One response to one prompt; each a text, or a list of messages of which a response is the last.

    Raises:
        ValueError: a message has no role, or a part that is no text; or there is no completion.
    """
    if isinstance(completion, str):
        return {"prompt": prompt_of(prompt), "responses": [completion]}
    messages = messages_of(completion)
    if not messages:
        raise ValueError("a completion has no message")
    *before, last = messages
    if not before:
        return {"prompt": prompt_of(prompt), "responses": [last["content"]]}
    turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else messages_of(prompt)
    return {"prompt": [*turns, *before], "responses": [last["content"]]}


def prompt_of(prompt: Any) -> Prompt:
    """A text, or the turns of a chat."""
    return prompt if isinstance(prompt, str) else messages_of(prompt)


def messages_of(messages: Any) -> list[Message]:
    """Role and text of each message; what else a message has stays here."""
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise ValueError(f"expected a text or a list of messages, not {type(messages).__name__}")
    return [Message(role=_role(message), content=_text(_field(message, "content"))) for message in messages]


def _role(message: Any) -> str:
    role = _field(message, "role")
    if not isinstance(role, str):
        raise ValueError("a message has no role")
    return role


def _field(message: Any, name: str) -> Any:
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)


def _text(content: Any) -> str:
    """Text, the texts of parts, or nothing (of a message that only calls tools)."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ValueError(f"the content of a message is {type(content).__name__}, not text")
    return "".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = _field(part, "text")
    if _field(part, "type") not in (None, "text") or not isinstance(text, str):
        raise ValueError("a part of a message is no text; the server reads text only")
    return text
