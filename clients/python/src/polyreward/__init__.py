"""Client of the polyreward server: rewards that depend on who is asking.

    from polyreward import Client

    with Client("http://127.0.0.1:8080") as client:
        client.add_examples("ada", [{"prompt": "A drink?", "chosen": "Some tea.", "rejected": "Some coffee."}])
        reply = client.score(user_id="ada", items=[{"prompt": "A drink?", "responses": ["Tea.", "Coffee."]}])

`AsyncClient` does the same for code that awaits; `polyreward.integrations` has the adapters of trainers.
"""

from polyreward._async_client import AsyncClient
from polyreward._client import Client
from polyreward._exchange import Timing
from polyreward._retry import Retry
from polyreward._version import __version__
from polyreward.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidReply,
    NoAnswer,
    NotFound,
    PolyrewardError,
    ProblemError,
    RateLimited,
    ReplyTimeout,
    ServerError,
    TooLarge,
    Unauthorized,
    Unavailable,
)

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Client",
    "Conflict",
    "Forbidden",
    "InvalidInput",
    "InvalidReply",
    "NoAnswer",
    "NotFound",
    "PolyrewardError",
    "ProblemError",
    "RateLimited",
    "ReplyTimeout",
    "Retry",
    "ServerError",
    "Timing",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "__version__",
]
