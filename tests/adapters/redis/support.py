"""What the tests of the Redis adapter share: topics of their own, records, a proxy that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from anymq.driver import Nack, Received, Record, Rejected, Source, Start, SubscribeSpec, TopicSpec
from anymq.message import new_id
from anymq.testing.harness import random_name
from anymq.url import URL
from anymq_redis import RedisDriver, RedisOptions


class Bench:
    """One topic on one server, and the drivers and sources that a test opened."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = random_name()
        self._drivers: list[RedisDriver] = []
        self._sources: list[Source] = []

    async def open(self, url: str | None = None, **options: Any) -> RedisDriver:
        parsed = URL.parse(url or self.url)
        driver = await RedisDriver.open(parsed, RedisOptions(**options), timeout=10)
        self._drivers.append(driver)
        await driver.declare(self.topic())
        return driver

    async def join(
        self, driver: RedisDriver, group: str | None = "billing", **values: Any
    ) -> Source:
        source = await driver.subscribe(self.spec(group, **values))
        self._sources.append(source)
        return source

    async def aclose(self) -> None:
        for source in self._sources:
            await source.aclose()
        for driver in self._drivers:
            await driver.aclose()

    def topic(self, name: str | None = None, **values: Any) -> TopicSpec:
        return TopicSpec(name=name or self.name, native=name or self.name, **values)

    def spec(
        self,
        group: str | None = "billing",
        *,
        start: Start = "earliest",
        lease: float = 30.0,
        topic: TopicSpec | None = None,
        native_group: str | None = None,
        create: bool = True,
    ) -> SubscribeSpec:
        return SubscribeSpec(
            topic=topic or self.topic(),
            group=group,
            native_group=native_group or f"{self.name}.{group}",
            start=start,
            ack_deadline=lease,
            prefetch=100,
            member=new_id(),
            create=create,
        )

    def record(self, body: bytes | int = b"", *, name: str | None = None, **values: Any) -> Record:
        identity = new_id()
        return Record(
            topic=name or self.name,
            id=identity,
            unique=values.pop("unique", identity),
            body=b"%d" % body if isinstance(body, int) else body,
            headers={"ce-id": identity, **values.pop("headers", {})},
            **values,
        )

    def records(self, count: int, **values: Any) -> list[Record]:
        return [self.record(number, **values) for number in range(count)]

    def nack(self, received: Received, delay: float = 0.0, *, counted: bool = True) -> Nack:
        """What the core makes of a nack, or of a release if it is not `counted`."""
        current = attempt(received)
        shown = current + 1 if counted else current
        headers = {**received.headers, "anymq-attempt": str(shown)}
        copy = Record(
            topic=self.name, id=new_id(), unique=new_id(), body=received.body, headers=headers
        )
        return Nack(received, delay, shown, native_attempt=current + 1, copy=copy)

    def rejected(self, received: Received, name: str | None = None) -> Rejected:
        return Rejected(
            received, self.record(received.body, name=name or f"{self.name}.billing.dlq")
        )


@contextlib.asynccontextmanager
async def bench_on(url: str) -> AsyncIterator[Bench]:
    """A `Bench` whose sources and drivers are closed at the end."""
    made = Bench(url)
    try:
        yield made
    finally:
        await made.aclose()


def attempt(received: Received) -> int:
    return int(received.headers.get("anymq-attempt", "1")) + received.redeliveries


def bodies(received: Sequence[Received]) -> list[bytes]:
    return [item.body for item in received]


async def take(source: Source, count: int, *, seconds: float = 20.0) -> list[Received]:
    """Receive exactly `count` records; the source may fail meanwhile."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    assert len(got) == count, bodies(got)
    return got


async def take_through(source: Source, count: int, *, seconds: float = 30.0) -> list[Received]:
    """As `take`, through failures of the source."""
    got: list[Received] = []

    async def more() -> bool:
        with contextlib.suppress(Exception):
            got.extend(await source.receive(count - len(got), 0.2))
        return len(got) >= count

    await eventually(more, seconds=seconds)
    return got


async def nothing(source: Source, wait: float = 0.0) -> bool:
    """Whether there is nothing to receive."""
    return not await source.receive(100, wait)


async def eventually(
    condition: Callable[[], Awaitable[object]], *, seconds: float = 20.0, every: float = 0.05
) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(every)


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


class Proxy:
    """A TCP proxy. While `requests` or `answers` is not set, that direction is held back.

    A connection keeps the two events it was made with. While `endings` is not set, the server is
    not told that a client has gone. `heard` is all that it has answered, `said` what clients
    have sent.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
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
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection, on both sides, with what is on its way."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, there_writer]
        up, down = self.requests, self.answers
        for pump in (self._up(reader, there_writer, up), self._down(there_reader, writer, down)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _up(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await client.read(65536):
                self.said += data
                await gate.wait()
                server.write(data)
            # What a client sent before it went away arrives all the same.
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
