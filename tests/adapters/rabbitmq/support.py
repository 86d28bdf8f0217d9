"""What the tests of the RabbitMQ adapter share: a topic of their own, records, a way to wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from anymq.driver import (
    REAL,
    Driver,
    Listener,
    Nack,
    Reader,
    Received,
    Record,
    Rejected,
    Start,
    SubscribeSpec,
    TopicSpec,
)
from anymq.ids import new_id
from anymq.testing.harness import random_name
from anymq.url import URL
from anymq_rabbitmq import RabbitMQDriver, RabbitMQOptions


class Bench:
    """One topic on one server, and the drivers and sources that a test opened."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = random_name()
        self._drivers: list[RabbitMQDriver] = []
        self._sources: list[Reader] = []

    async def open(
        self, url: str | None = None, *, declare: bool = True, timeout: float = 10, **options: Any
    ) -> RabbitMQDriver:
        """A driver. New queues are relied on at once, unless `settle_time` says otherwise."""
        options.setdefault("settle_time", 0.0)
        chosen = RabbitMQOptions(**options)
        driver = await RabbitMQDriver.open(
            URL.parse(url or self.url), chosen, timeout=timeout, clock=REAL
        )
        self._drivers.append(driver)
        if declare:
            await driver.declare(self.topic())
        return driver

    async def join(
        self, driver: RabbitMQDriver, group: str | None = "billing", **values: Any
    ) -> Any:
        """Open the source of a member: a `Source`, an `OrderedSource` or a `Reader`."""
        source = await driver.subscribe(self.spec(group, **values), Listener())
        self._sources.append(source)
        return source

    async def aclose(self) -> None:
        for source in self._sources:
            await source.aclose()
        for driver in self._drivers:
            await driver.aclose()

    def topic(self, name: str | None = None, **values: Any) -> TopicSpec:
        values.setdefault("native", name or self.name)
        return TopicSpec(name=name or self.name, **values)

    def spec(
        self,
        group: str | None = "billing",
        *,
        start: Start = "earliest",
        topic: TopicSpec | None = None,
        native_group: str | None = None,
        prefetch: int = 100,
        create: bool = True,
        **values: Any,
    ) -> SubscribeSpec:
        chosen = topic or self.topic()
        return SubscribeSpec(
            topic=chosen,
            group=group,
            native_group=native_group or f"{chosen.name}.{group}",
            start=start,
            ack_deadline=30,
            prefetch=prefetch,
            member=new_id(),
            create=create,
            **values,
        )

    def record(self, body: bytes | int = b"", *, name: str | None = None, **values: Any) -> Record:
        identity = values.pop("id", None) or new_id()
        return Record(
            topic=name or self.name,
            id=identity,
            unique=identity,
            body=b"%d" % body if isinstance(body, int) else body,
            headers={
                "cloudEvents:id": identity,
                "cloudEvents:source": "test",
                **values.pop("headers", {}),
            },
            **values,
        )

    def records(self, numbers: int | range, **values: Any) -> list[Record]:
        counted = range(numbers) if isinstance(numbers, int) else numbers
        return [self.record(number, **values) for number in counted]

    def nack(self, received: Received, delay: float = 0.0, *, counted: bool = True) -> Nack:
        """What the core makes of a nack, or of a release if it is not `counted`."""
        current = attempt(received)
        shown = current + 1 if counted else current
        identity = received.headers.get("cloudEvents:id", received.position)
        headers = {"cloudEvents:id": identity, "anymq-attempt": str(shown)}
        copy = Record(
            topic=self.name, id=identity, unique=new_id(), body=received.body, headers=headers
        )
        return Nack(received, delay, shown, native_attempt=current + 1, copy=copy)

    def rejected(self, received: Received) -> Rejected:
        return Rejected(received, self.record(received.body, name=f"{self.name}.billing.dlq"))


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


def numbers(received: Sequence[Received]) -> list[int]:
    return [int(item.body) for item in received]


async def store(driver: Driver, records: Sequence[Record]) -> None:
    """Publish; every record must be confirmed."""
    for outcome in await driver.publish(records):
        if isinstance(outcome, BaseException):
            raise outcome


async def take(source: Reader, count: int, *, seconds: float = 60.0) -> list[Received]:
    """Receive exactly `count` records."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    assert len(got) == count, bodies(got)
    return got


async def nothing(source: Reader, seconds: float = 0.7) -> None:
    """Nothing is delivered for a while."""
    assert bodies(await source.receive(100, seconds)) == []


async def eventually(condition: Callable[[], Awaitable[object]], *, seconds: float = 60.0) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def cut(driver: RabbitMQDriver) -> None:
    """Break both connections of a driver, as a network would."""
    driver._consuming.abort()
    driver._publishing.abort()


class Proxy:
    """Stands between a driver and the server, and does to them what networks and alarms do."""

    def __init__(self, url: str) -> None:
        self._target = URL.parse(url).hosts[0]
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._speaking = asyncio.Event()
        self._speaking.set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._clients:
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"amqp://guest:guest@127.0.0.1:{port}/"

    def stall(self) -> None:
        """Pass nothing on from the clients any more, as a dead link."""
        self._flowing.clear()

    def silence(self) -> None:
        """Pass nothing on in either direction."""
        self._flowing.clear()
        self._speaking.clear()

    def flow(self) -> None:
        self._flowing.set()

    def block(self) -> None:
        """What a server does in an alarm: it says so, and stops reading."""
        self.stall()
        self._tell(b"\x00\x0a\x00\x3c\x03low")

    def unblock(self) -> None:
        self._tell(b"\x00\x0a\x00\x3d")
        self.flow()

    def _tell(self, method: bytes) -> None:
        for writer in self._clients:
            writer.write(b"\x01\x00\x00" + len(method).to_bytes(4, "big") + method + b"\xce")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target
        try:
            back, forth = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        self._clients.add(writer)
        ways = ((reader, forth, self._flowing), (back, writer, self._speaking))
        for source, sink, gate in ways:
            task = asyncio.create_task(_pump(source, sink, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event
) -> None:
    try:
        while data := await source.read(65536):
            await gate.wait()
            sink.write(data)
            await sink.drain()
    except OSError:
        return
    finally:
        sink.transport.abort()
