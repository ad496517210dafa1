"""Fixtures of all tests."""

from __future__ import annotations

from servers import client, models, own_environment, server, url

__all__ = ["client", "models", "own_environment", "server", "url"]
