"""Targets of a run: a server started for it, a SQLite file, or the URL of an existing broker."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from brokers import NAMES, Server, server

from .proxy import Proxy

BACKENDS = (*NAMES, "sqlite")


@dataclass(frozen=True)
class Target:
    """A broker to test. `server` is None if only producers and consumers may be killed."""

    name: str
    url: str
    server: Server | None = None

    @property
    def version(self) -> str:
        """Version of the server; empty for an existing broker."""
        if self.name == "sqlite":
            return sqlite3.sqlite_version
        return "" if self.server is None else self.server.status().version

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[tuple[str, Proxy]]:
        """Yield a URL that leads through a proxy, and the proxy."""
        assert self.server is not None, f"{self.name} has no link to break"
        front, back = self.server.route()
        async with Proxy(back, front) as proxy:
            yield self.server.url_at(proxy.port), proxy


def of_backend(name: str, folder: Path, *, instance: str | None = "chaos") -> Target:
    """Return the target of a backend: a server of `instance`, or for SQLite a file in `folder`."""
    if name == "sqlite":
        return Target(name, f"sqlite:///{folder}/chaos.db")
    broken = server(name, instance)
    return Target(name, broken.url, broken)


def of_url(url: str) -> Target:
    """Return the target of an existing broker, which is not killed."""
    return Target(url.partition("://")[0], url)
