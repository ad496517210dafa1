"""Requests as data, and answers as objects: what the two clients share, without any input or output."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from polyreward._version import __version__
from polyreward.errors import InvalidReply, ProblemError, problem_error
from polyreward.models import Problem

T = TypeVar("T")
ReplyT = TypeVar("ReplyT", covariant=True)

DEFAULT_BASE_URL = "http://127.0.0.1:8080"
URL_VARIABLE = "POLYREWARD_URL"
KEY_VARIABLES = ("POLYREWARD_API_KEY", "POLYREWARD_KEY")
USER_AGENT = f"polyreward-python/{__version__}"

DEFAULT_TIMEOUT = httpx.Timeout(connect=5.0, write=30.0, pool=30.0, read=110.0)
"""In seconds. The answer's is a little more than the 100 s after which the server gives up."""

_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Call(Generic[ReplyT]):
    """One request and what its answer is read as. It may be sent again: each is idempotent, or carries a key."""

    method: str
    path: str
    reply: type[ReplyT]
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Statuses beside 2xx that carry the reply.
    also: frozenset[int] = frozenset()
    #: Statuses that mean, after an attempt whose answer was lost, that this attempt did it.
    done_before: frozenset[int] = frozenset()


def post(path: str, body: Mapping[str, Any], reply: type[T], headers: Mapping[str, str] | None = None) -> Call[T]:
    """A request with a JSON body, without the fields that are None."""
    return Call("POST", path, reply, content=encode(without_none(body)), headers=headers or {})


def put(path: str, body: Mapping[str, Any], reply: type[T]) -> Call[T]:
    """The same, to set something."""
    return Call("PUT", path, reply, content=encode(body))


def get(path: str, reply: type[T], **params: object) -> Call[T]:
    """A question; parameters that are None are left out."""
    return Call("GET", path, reply, params={name: str(value) for name, value in without_none(params).items()})


def encode(value: object) -> bytes:
    """JSON.

    Raises:
        ValueError: there is a number that JSON has not, or half a surrogate pair in a text.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text is not valid Unicode: it has half of a surrogate pair") from None


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def id_in_path(identifier: str, what: str = "a user id") -> str:
    """An id as a segment of a path; it is checked here, as a wrong one could be another route.

    Raises:
        ValueError: the id has characters, or a length, that no id has.
    """
    if not _ID.fullmatch(identifier):
        raise ValueError(f"{what} is 1 to 128 characters of A-Z a-z 0-9 . _ ~ -")
    # A segment of dots alone would be taken for a step in the path.
    return identifier.replace(".", "%2E") if identifier in (".", "..") else identifier


@dataclass(frozen=True)
class Target:
    """Where the server is, and the key, which no representation shows."""

    base_url: str
    api_key: str | None = field(repr=False)

    @classmethod
    def of(cls, base_url: str | None, api_key: str | None) -> Target:
        """The target of arguments, else of the environment; a key in the URL's userinfo is taken out of it.

        Raises:
            ValueError: the URL or the key cannot be used, or there are two keys. The message shows no key.
        """
        given = base_url or os.environ.get(URL_VARIABLE) or DEFAULT_BASE_URL
        try:
            url = httpx.URL(given)
        except (httpx.InvalidURL, ValueError):
            raise ValueError("the base URL cannot be read") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("the base URL is not http://HOST or https://HOST")
        if url.query or url.fragment:
            raise ValueError("the base URL has a query or a fragment")
        in_url = url.password or None
        if in_url and api_key:
            raise ValueError("there is a key in the base URL and another as api_key")
        key = api_key or in_url or _key_of_environment()
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("the API key has characters that a header cannot carry")
        clean = url.copy_with(username=None, password=None)
        return cls(str(clean).rstrip("/"), key)

    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        headers = {"user-agent": USER_AGENT, "accept": "application/json, application/problem+json"}
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        return headers


def _key_of_environment() -> str | None:
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)


def read(call: Call[T], response: httpx.Response) -> T:
    """The answer.

    Raises:
        InvalidReply: it is not what the server's document promises.
    """
    if call.reply is type(None) or response.status_code == 204:
        return None  # type: ignore[return-value]  # T is None
    return parse(call.reply, response)


def parse(model: type[T], response: httpx.Response) -> T:
    """The body as `model`, which is a pydantic model."""
    assert issubclass(model, BaseModel)
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        # Neither the message nor a cause may quote the body, which holds prompts.
        faults = ", ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['type']}" for fault in error.errors()[:3])
        raise InvalidReply(
            f"the answer to {response.request.method} {response.request.url.path} is not {model.__name__} ({faults})"
        ) from None


def refusal(response: httpx.Response, retry_after_s: float | None) -> ProblemError:
    """The error of an answer that is none. What a proxy says in its own words is not repeated."""
    request_id = response.headers.get("x-request-id")
    problem = Problem(type="about:blank", title=response.reason_phrase or "Unknown", status=response.status_code)
    if response.headers.get("content-type", "").split(";")[0].strip() == "application/problem+json":
        with contextlib.suppress(ValidationError):  # then it is as unreadable as one of another type
            problem = Problem.model_validate_json(response.content)
    return problem_error(problem, request_id, retry_after_s)
