"""Helpers for the tests of the Redis adapter: entries of a stream, and a breakable proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine, Iterable
from typing import Any

from anymq.driver import REAL
from anymq.url import URL
from anymq_redis import RedisDriver, RedisOptions
from tests.adapters import support
from tests.adapters.support import eventually


class Bench(support.Bench[RedisDriver]):
    """One topic on one server, and the drivers and sources that a test opened."""

    async def connect(self, url: URL, **options: Any) -> RedisDriver:
        return await RedisDriver.open(url, RedisOptions(**options), timeout=10, clock=REAL)


async def stored(driver: RedisDriver, key: str) -> dict[str, dict[bytes, bytes]]:
    """Return all entries of a stream by id."""
    entries: Any = await driver.native.xrange(key)
    return {id.decode(): fields for id, fields in entries}


async def bodies_stored(driver: RedisDriver, key: str) -> list[bytes]:
    return [fields[b"data"] for fields in (await stored(driver, key)).values()]


async def blocked(driver: RedisDriver, name: str) -> None:
    """Return once a client that calls itself `name` waits in a blocking command."""

    async def some() -> bool:
        clients: Any = await driver.native.client_list()
        return any(client["name"] == name and "b" in client["flags"] for client in clients)

    await eventually(some, every=0.01)


class Proxy(support.Proxy):
    """A proxy that holds back a direction while `requests` or `answers` is not set.

    A connection keeps the two events it was made with. While `endings` is not set, the server is
    not told that a client has gone. `heard` has all bytes from the server, `said` those from
    clients.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(port, tls)
        self.answers = asyncio.Event()
        self.answers.set()
        self.requests = asyncio.Event()
        self.requests.set()
        self.endings = asyncio.Event()
        self.endings.set()
        self.heard = bytearray()
        self.said = bytearray()

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def pumps(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> Iterable[Coroutine[Any, Any, None]]:
        return (
            self._up(reader, there_writer, self.requests),
            self._down(there_reader, writer, self.answers),
        )

    async def _up(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await client.read(65536):
                self.said += data
                await gate.wait()
                server.write(data)
            # Bytes sent before the client closed still arrive.
            await gate.wait()
            await self.endings.wait()
            server.write_eof()

    async def _down(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await server.read(65536):
                self.heard += data
                await gate.wait()
                client.write(data)
            client.close()


async def groups(bench: Bench, driver: RedisDriver) -> list[str]:
    """Return the groups by their names on the server; `driver.groups` has each twice."""
    topic = bench.topic()
    both = await driver.groups(topic)
    stored = [name for name in both if not name.startswith(f"{topic.name}.")]
    assert set(both) == {*stored, *(f"{topic.name}.{name}" for name in stored)}
    return stored
