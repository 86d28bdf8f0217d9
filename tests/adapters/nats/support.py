"""What the tests of the NATS adapter share: topics of their own, records, and false servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import nats.js.errors

from anymq.driver import (
    Nack,
    Outcome,
    Received,
    Record,
    Rejected,
    Source,
    Start,
    SubscribeSpec,
    TopicSpec,
)
from anymq.message import new_id
from anymq.testing.harness import random_name
from anymq.url import URL
from anymq_nats import NatsDriver, NatsOptions
from anymq_nats.names import encode
from anymq_nats.source import GroupSource


class Bench:
    """One topic on one server, and the drivers and sources that a test opened."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = random_name()
        self._drivers: list[NatsDriver] = []
        self._sources: list[Source] = []

    async def open(
        self, url: str | None = None, *, declare: bool = True, **options: Any
    ) -> NatsDriver:
        parsed = URL.parse(url or self.url)
        driver = await NatsDriver.open(parsed, NatsOptions(**options), timeout=10)
        self._drivers.append(driver)
        if declare:
            await driver.declare(self.topic())
        return driver

    async def join(
        self, driver: NatsDriver, group: str | None = "billing", **values: Any
    ) -> Source:
        source = await driver.subscribe(self.spec(group, **values))
        self._sources.append(source)
        return source

    async def member(self, driver: NatsDriver, **values: Any) -> GroupSource:
        """As `join`, for what only a member of a group has."""
        source = await self.join(driver, **values)
        assert isinstance(source, GroupSource)
        return source

    async def aclose(self) -> None:
        for source in self._sources:
            await source.aclose()
        for driver in self._drivers:
            if driver.native.is_connected:
                with contextlib.suppress(nats.js.errors.NotFoundError):
                    await driver.native.jsm().delete_stream(self.stream)
                break
        for driver in self._drivers:
            await driver.aclose()

    @property
    def stream(self) -> str:
        return encode(self.name)

    def topic(self, name: str | None = None, **values: Any) -> TopicSpec:
        values.setdefault("native", name or self.name)
        return TopicSpec(name=name or self.name, **values)

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
        kept = {k: v for k, v in received.headers.items() if not k.lower().startswith("nats-")}
        headers = {**kept, "anymq-attempt": str(shown)}
        copy = Record(
            topic=self.name, id=new_id(), unique=new_id(), body=received.body, headers=headers
        )
        return Nack(received, delay, shown, native_attempt=current + 1, copy=copy)

    def rejected(self, received: Received) -> Rejected:
        return Rejected(received, self.record(received.body))


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


def stored(outcomes: Sequence[Outcome]) -> list[str]:
    """The positions of records that must all have been stored."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [str(outcome) for outcome in outcomes]


async def take(source: Source, count: int, *, seconds: float = 20.0) -> list[Received]:
    """Receive exactly `count` records."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    assert len(got) == count, bodies(got)
    return got


async def take_through(source: Source, count: int, *, seconds: float = 30.0) -> list[Received]:
    """As `take`, through failures of the source, and each body once."""
    got: dict[bytes, Received] = {}
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        try:
            more = await source.receive(100, 0.5)
        except Exception:
            await asyncio.sleep(0.1)  # as the core does
            continue
        for received in more:
            got.setdefault(received.body, received)
    assert len(got) == count, sorted(got)
    return list(got.values())


async def nothing(source: Source, wait: float = 0.3) -> bool:
    """Whether there is nothing to receive."""
    return not await source.receive(100, wait)


async def eventually(
    condition: Callable[[], Awaitable[object]], *, seconds: float = 20.0, every: float = 0.05
) -> None:
    """Return once `condition` holds."""
    until = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < until
        await asyncio.sleep(every)


class FakeServer:
    """Talks like a NATS server as far as a client needs it, and remembers all that it hears.

    With `context` it offers TLS, and what it hears is what came before the handshake. It refuses
    publishes to `denied`, every CONNECT if `refusing`, says nothing at all if `mute`, and does not
    answer if not `answering`.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        context: ssl.SSLContext | None = None,
        denied: str = "",
        refusing: bool = False,
        mute: bool = False,
    ) -> None:
        self.heard = bytearray()
        self.commands: list[bytes] = []
        self.answering = True
        self.connections = 0
        self._host = host
        self._port = port
        self._context = context
        self._denied = denied.encode()
        self._refusing = refusing
        self._mute = mute
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._connected, self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def say(self, line: str) -> None:
        """Send a line to every client."""
        for writer in self._writers:
            writer.write(line.encode() + b"\r\n")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        info = {"server_id": "fake", "version": "2.12.0", "headers": True, "jetstream": True}
        info |= {"max_payload": 1024, "auth_required": True, "tls_required": bool(self._context)}
        if self._mute:
            return
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._context is not None:
                await writer.start_tls(self._context)
            while line := await reader.readline():
                await self._command(line, reader, writer)
        writer.close()

    async def _command(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._context is None:
            self.heard += line
        self.commands.append(line)
        words = line.split()
        if words[0] in (b"PUB", b"HPUB"):
            await reader.readexactly(int(words[-1]) + 2)
            if words[1] == self._denied:
                said = b"-ERR 'Permissions Violation for Publish to \"%b\"'\r\n" % words[1]
                writer.write(said)
        elif words[0] == b"CONNECT" and self._refusing:
            writer.write(b"-ERR 'Authorization Violation'\r\n")
        elif words[0] == b"PING" and self.answering:
            writer.write(b"PONG\r\n")


class Proxy:
    """A TCP proxy that can cut its connections, or hold everything back without cutting."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.accepting = True

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection, on both sides."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepting:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, there_writer]
        for pump in (self._pump(reader, there_writer), self._pump(there_reader, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                writer.write(data)
        writer.close()
