"""Fixtures of the tests with the real TRL: the same server as the others'."""

from __future__ import annotations

from servers import client, models, own_environment, server, url

__all__ = ["client", "models", "own_environment", "server", "url"]
