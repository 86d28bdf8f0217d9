"""What the tests of the NATS adapter share: streams of their own, and false servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

import nats.js.errors

from anymq.driver import REAL, Outcome, Reader, Received, Record, Rejected
from anymq.driver.ordered import LeasedSource
from anymq.ids import new_id
from anymq.testing.samples import join_ordered
from anymq.url import URL
from anymq_nats import NatsDriver, NatsOptions
from anymq_nats.jetstream.schema import cells_stream, encode, later_stream
from anymq_nats.source import GroupSource
from tests.adapters import support


class Bench(support.Bench[NatsDriver]):
    """One stream on one server, and the drivers and sources that a test opened."""

    @property
    def stream(self) -> str:
        return encode(self.name)

    async def connect(self, url: URL, **options: Any) -> NatsDriver:
        return await NatsDriver.open(url, NatsOptions(**options), timeout=10, clock=REAL)

    async def member(self, driver: NatsDriver, **values: Any) -> GroupSource:
        """As `join`, for what only a member of a group has."""
        source = await self.join(driver, **values)
        assert isinstance(source, GroupSource)
        return source

    async def ordered(
        self, driver: NatsDriver, group: str = "billing", **values: Any
    ) -> LeasedSource:
        """As `join`, with `ordered=True`."""
        source = await join_ordered(driver, replace(self.spec(group, **values), ordered=True))
        self._sources.append(source)
        assert isinstance(source, LeasedSource)
        return source

    async def clean(self) -> None:
        for driver in self.drivers:
            if driver.native.is_connected:
                for stream in [name(self.stream) for name in (str, later_stream, cells_stream)]:
                    with contextlib.suppress(nats.js.errors.NotFoundError):
                        await driver.native.jsm().delete_stream(stream)
                break

    def copy(self, received: Received, shown: int) -> Record:
        kept = {k: v for k, v in received.headers.items() if not k.lower().startswith("nats-")}
        headers = {**kept, "anymq-attempt": str(shown)}
        return Record(
            topic=self.name, id=new_id(), unique=new_id(), body=received.body, headers=headers
        )

    def rejected(self, received: Received, name: str | None = None) -> Rejected:
        return super().rejected(received, name or self.name)


def stored(outcomes: Sequence[Outcome]) -> list[str]:
    """The positions of records that must all have been stored."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [str(outcome) for outcome in outcomes]


async def take_through(source: Reader, count: int, *, seconds: float = 30.0) -> list[Received]:
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
        self._denied = denied.encode().split()
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
            if words[1] in self._denied:
                said = b"-ERR 'Permissions Violation for Publish to \"%b\"'\r\n" % words[1]
                writer.write(said)
        elif words[0] == b"CONNECT" and self._refusing:
            writer.write(b"-ERR 'Authorization Violation'\r\n")
        elif words[0] == b"PING" and self.answering:
            writer.write(b"PONG\r\n")


class Proxy(support.Proxy):
    """It can also hold everything back without cutting."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.flowing = asyncio.Event()
        self.flowing.set()

    @property
    def url(self) -> str:
        return f"nats://{self.address}"

    def pumps(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> Iterable[Coroutine[Any, Any, None]]:
        return self._pump(reader, there_writer), self._pump(there_reader, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                writer.write(data)
        writer.close()
