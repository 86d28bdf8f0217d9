"""What a run is against: a server of its own that may be broken, a SQLite file, or any URL."""

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
    """`server` is None where nothing but producers and consumers may be broken."""

    name: str
    url: str
    server: Server | None = None

    @property
    def version(self) -> str:
        """The version of what is broken; nothing where that is not ours to ask."""
        if self.name == "sqlite":
            return sqlite3.sqlite_version
        return "" if self.server is None else self.server.status().version

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[tuple[str, Proxy]]:
        """Give a URL that leads through a proxy, and the proxy."""
        assert self.server is not None, f"{self.name} has no link to break"
        front, back = self.server.route()
        async with Proxy(back, front) as proxy:
            yield self.server.url_at(proxy.port), proxy


def of_backend(name: str, folder: Path, *, instance: str | None = "chaos") -> Target:
    """A backend by its name: servers of an instance, SQLite is a file in `folder`."""
    if name == "sqlite":
        return Target(name, f"sqlite:///{folder}/chaos.db")
    broken = server(name, instance)
    return Target(name, broken.url, broken)


def of_url(url: str) -> Target:
    """Somebody's own broker, which is not broken."""
    return Target(url.partition("://")[0], url)
