"""What the tests of every adapter share: a bench of their own, records, ways to wait, a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from anymq.driver import (
    Driver,
    Nack,
    Received,
    Record,
    Rejected,
    Source,
    Start,
    SubscribeSpec,
    TopicSpec,
)
from anymq.stamp import new_id
from anymq.testing.harness import random_name
from anymq.url import URL

D = TypeVar("D", bound=Driver)


class Samples:
    """What the core would hand to a driver, all of it about one topic."""

    id_header: ClassVar[str] = "ce-id"

    def __init__(self, name: str) -> None:
        self.name = name

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
        chosen = topic or self.topic()
        return SubscribeSpec(
            topic=chosen,
            group=group,
            native_group=native_group or f"{chosen.name}.{group}",
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
            headers={self.id_header: identity, **values.pop("headers", {})},
            **values,
        )

    def records(self, count: int, **values: Any) -> list[Record]:
        return [self.record(number, **values) for number in range(count)]

    def nack(self, received: Received, delay: float = 0.0, *, counted: bool = True) -> Nack:
        """What the core makes of a nack, or of a release if it is not `counted`."""
        current = attempt(received)
        shown = current + 1 if counted else current
        copy = self.copy(received, shown)
        return Nack(received, delay, shown, native_attempt=current + 1, copy=copy)

    def copy(self, received: Received, shown: int) -> Record:
        """What a backend that cannot redeliver publishes instead."""
        headers = {**received.headers, "anymq-attempt": str(shown)}
        return Record(
            topic=self.name, id=new_id(), unique=new_id(), body=received.body, headers=headers
        )

    def rejected(self, received: Received, name: str | None = None) -> Rejected:
        letter = self.record(received.body, name=name or f"{self.name}.billing.dlq")
        return Rejected(received, letter)


class Bench(Samples, ABC, Generic[D]):
    """One topic on one server, and the drivers and sources that a test opened."""

    def __init__(self, url: str, name: str | None = None) -> None:
        super().__init__(name or random_name())
        self.url = url
        self.drivers: list[D] = []
        self._sources: list[Source] = []

    @abstractmethod
    async def connect(self, url: URL, **options: Any) -> D:
        """Open a driver that this bench need not close."""

    async def open(self, url: str | None = None, *, declare: bool = True, **options: Any) -> D:
        driver = await self.connect(URL.parse(url or self.url), **options)
        self.drivers.append(driver)
        if declare:
            await driver.declare(self.topic())
        return driver

    async def join(self, driver: D, group: str | None = "billing", **values: Any) -> Source:
        source = await driver.subscribe(self.spec(group, **values))
        self._sources.append(source)
        return source

    async def clean(self) -> None:
        """Remove what would stay behind on the server; the drivers are still open."""

    async def aclose(self) -> None:
        for source in self._sources:
            await source.aclose()
        await self.clean()
        for driver in self.drivers:
            await driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def attempt(received: Received) -> int:
    return int(received.headers.get("anymq-attempt", "1")) + received.redeliveries


def bodies(received: Sequence[Received]) -> list[bytes]:
    return [item.body for item in received]


async def drain(source: Source, count: int, *, seconds: float = 10.0) -> list[Received]:
    """Receive until there are `count` records or `seconds` are over."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    return got


async def take(source: Source, count: int, *, seconds: float = 20.0) -> list[Received]:
    """Receive exactly `count` records."""
    got = await drain(source, count, seconds=seconds)
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
    condition: Callable[[], Awaitable[object]], *, seconds: float = 20.0, every: float = 0.02
) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(every)


class Proxy(ABC):
    """A TCP proxy that can cut its connections. What it does with what passes, `pumps` says."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
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

    @abstractmethod
    def pumps(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> Iterable[Coroutine[Any, Any, None]]:
        """What carries one connection: from the client, then from the server that is `there`."""

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, there_writer]
        for pump in self.pumps(reader, writer, there_reader, there_writer):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
