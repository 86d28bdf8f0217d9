"""What the tests of every adapter share: a bench of their own, records, ways to wait, a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, Self, TypeVar

import pytest
from _pytest.mark import ParameterSet

import anymq
from anymq import Acknowledge, DeadLetter, DeadLetters, Delivery, Middleware, Reject
from anymq.driver import Driver, Listener, Reader, Received
from anymq.testing.harness import random_name
from anymq.testing.samples import Samples, attempt, drain, nothing
from anymq.testing.samples import contents as bodies
from anymq.testing.samples import receive as take
from anymq.testing.tools import until
from anymq.url import URL

__all__ = [
    "Bench",
    "Proxy",
    "Samples",
    "attempt",
    "bodies",
    "drain",
    "eventually",
    "faulty_servers",
    "nothing",
    "over_every_hop",
    "take",
    "take_through",
]

D = TypeVar("D", bound=Driver)


def faulty_servers() -> list[ParameterSet]:
    """Return the names of the real servers as parameters of tests that kill them."""
    return [
        pytest.param(
            name,
            marks=[getattr(pytest.mark, name), pytest.mark.xdist_group(f"{name}-faults")],
        )
        for name in ("kafka", "rabbitmq", "nats", "redis")
    ]


async def over_every_hop(
    url: str,
    topic: str,
    *,
    send: Callable[[], Awaitable[None]],
    look: Callable[[Delivery], None],
    buried: Callable[[DeadLetters], Awaitable[None]] | None = None,
) -> DeadLetters:
    """Have what `send` publishes handled four times: it is retried at once and later, rejected,
    and redriven.

    `look` is called with each delivery, `buried` while the message is a dead letter.
    """
    mended = asyncio.Event()
    handled = 0

    async def handle(delivery: Delivery) -> None:
        nonlocal handled
        look(delivery)
        handled += 1
        if mended.is_set():
            return
        if delivery.attempt < 3:
            await delivery.nack(0.1 * (delivery.attempt - 1))
            return
        raise Reject("no")

    async def is_letter() -> bool:
        return await letters.count() == 1

    chain: list[Middleware] = [Acknowledge(), DeadLetter()]
    async with anymq.connect(url) as broker:
        letters = broker.admin.dead_letters(topic, "billing")
        async with broker.subscribe(topic, group="billing", handler=handle, middleware=chain):
            await send()
            await eventually(is_letter)
            if buried is not None:
                await buried(letters)
            mended.set()
            await letters.redrive_all()
            await until(lambda: handled == 4)
    return letters


class Bench(Samples, ABC, Generic[D]):
    """One topic on one server, and the drivers and sources that a test opened."""

    def __init__(self, url: str, name: str | None = None) -> None:
        super().__init__(name or random_name())
        self.url = url
        self.drivers: list[D] = []
        self._sources: list[Reader] = []

    @abstractmethod
    async def connect(self, url: URL, **options: Any) -> D:
        """Open a driver that this bench need not close."""

    async def open(self, url: str | None = None, *, declare: bool = True, **options: Any) -> D:
        driver = await self.connect(URL.parse(url or self.url), **options)
        self.drivers.append(driver)
        if declare:
            await driver.declare(self.topic())
        return driver

    async def join(self, driver: D, group: str | None = "billing", **values: Any) -> Any:
        """Open the source of a member: a `Source`, an `OrderedSource` or a `Reader`."""
        source = await driver.subscribe(self.spec(group, **values), Listener())
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


async def take_through(source: Reader, count: int, *, seconds: float = 30.0) -> list[Received]:
    """As `take`, through failures of the source."""
    got: list[Received] = []

    async def more() -> bool:
        with contextlib.suppress(Exception):
            got.extend(await source.receive(count - len(got), 0.2))
        return len(got) >= count

    await eventually(more, seconds=seconds)
    return got


async def eventually(
    condition: Callable[[], Awaitable[object]], *, seconds: float = 60.0, every: float = 0.02
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
