"""A scripted driver, for faults that no server shows on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from anymq import Broker
from anymq.connect import connect
from anymq.driver import (
    Binding,
    Capabilities,
    Clock,
    Driver,
    Listener,
    Nack,
    OrderedSource,
    Outcome,
    Reader,
    Received,
    Record,
    Rejected,
    Source,
    StoreRecords,
    SubscribeSpec,
    TopicSpec,
    emulated,
)
from anymq.driver.registry import register
from anymq.errors import ConnectionLost, ErrorTable, NotFound, PermanentError
from anymq.url import URL

SOME = emulated("by a script")


class Lost(Exception):
    """The client's error for a lost connection."""


class Missing(Exception):
    """The client's error for a missing topic."""


class Refused(Exception):
    """The client's error for a refusal."""


@dataclass(frozen=True)
class Options:
    size: int = 1


Script = Callable[[Sequence[Record]], Awaitable[Sequence[Outcome]]]


class ScriptedSource(Source, OrderedSource):
    """A source that delivers the records or errors in `inbox`, and records settlement calls."""

    def __init__(self, spec: SubscribeSpec, listener: Listener) -> None:
        self.spec = spec
        self.listener = listener
        self.inbox: asyncio.Queue[Received | Exception] = asyncio.Queue()
        self.calls: list[tuple[str, list[Any]]] = []
        self.failures: dict[str, list[Exception]] = {}
        self.limits: list[int] = []
        self.letters: list[Record] = []
        self.kept: list[Nack] = []
        self.refuses: Callable[[Record], Exception | None] = lambda record: None
        """The broker's error for a copy or a letter; None if it stores it."""
        self.asked: list[Record] = []
        self.closed = False
        self.read: object = spec.position or spec.start

    @property
    def position(self) -> object:
        return self.read

    def put(self, *bodies: str) -> None:
        for body in bodies:
            self.inbox.put_nowait(Received(body.encode(), {}, position=body, token=body))

    def put_keyed(self, *pairs: tuple[str, str], partition: int = 0) -> None:
        """Add (key, body) pairs, as an ordered source reads them from one partition."""
        for key, body in pairs:
            self.inbox.put_nowait(
                Received(
                    body.encode(),
                    {"ce-partitionkey": key},
                    position=body,
                    token=body,
                    partition=partition,
                )
            )

    def settled(self, verb: str) -> list[str]:
        """Return the bodies that were settled with `verb`, in order."""
        return [body for name, bodies in self.calls if name == verb for body in bodies]

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        self.limits.append(limit)
        taken: list[Received] = []
        try:
            async with asyncio.timeout(wait):
                while len(taken) < limit:
                    item = await self.inbox.get() if not taken else self.inbox.get_nowait()
                    if isinstance(item, Exception):
                        raise item
                    taken.append(item)
                    self.read = item.position
        except (TimeoutError, asyncio.QueueEmpty):
            pass
        return taken

    async def ack(self, records: Sequence[Received]) -> None:
        self._note("ack", records)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        for nack in nacks:
            self._ask(nack.copy)
        self._note("nack", [nack.received for nack in nacks])

    async def release(self, nacks: Sequence[Nack]) -> None:
        self._note("release", [nack.received for nack in nacks])

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        for item in rejected:
            self._ask(item.letter)
        self._note("reject", [item.received for item in rejected])
        self.letters += [item.letter for item in rejected]

    async def keep(self, nacks: Sequence[Nack]) -> None:
        self.kept += nacks
        self._note("keep", [nack.received for nack in nacks])

    async def extend(self, records: Sequence[Received]) -> None:
        self._note("extend", records)

    async def aclose(self) -> None:
        self.closed = True

    def _ask(self, record: Record) -> None:
        self.asked.append(record)
        if error := self.refuses(record):
            raise error

    def _note(self, verb: str, records: Sequence[Received]) -> None:
        if self.failures.get(verb):
            raise self.failures[verb].pop(0)
        self.calls.append((verb, [record.body.decode() for record in records]))


class ScriptedDriver(Driver):
    """A driver whose publish runs `script`, and whose sources are in `sources`."""

    capabilities = Capabilities(
        durability="none",
        persistent=SOME,
        processes=SOME,
        groups=SOME,
        broadcast=SOME,
        earliest=SOME,
        delayed_nack=SOME,
        attempt_count=SOME,
        release=SOME,
        extend=SOME,
        dead_letters=SOME,
        publish_dedup=SOME,
        ordered=SOME,
    )
    errors: ClassVar[ErrorTable] = {
        Lost: ConnectionLost,
        Missing: NotFound,
        Refused: PermanentError,
        OSError: ConnectionLost,
    }
    binding = Binding()
    options = Options
    max_batch = 10
    opening: ClassVar[list[Exception]] = []

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.sources: list[ScriptedSource] = []
        self.declared: list[str] = []
        self.script: Script = self.confirm
        self.subscribing: list[Exception] = []
        self.closed = False
        self.running = 0
        self.called = asyncio.Event()

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        if cls.opening:
            raise cls.opening.pop()
        driver = cls()
        driver.clock = clock
        return driver

    @property
    def native(self) -> ScriptedDriver:
        return self

    async def ping(self) -> None:
        """Succeed."""

    async def declare(self, topic: TopicSpec) -> None:
        self.declared.append(topic.name)

    async def confirm(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Confirm every record."""
        return [str(index) for index, _ in enumerate(records)]

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        self.running += 1
        assert self.running <= self.overlap
        self.called.set()
        self.batches.append([record.body.decode() for record in records])
        try:
            return await self.script(records)
        finally:
            self.running -= 1

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        if self.subscribing:
            raise self.subscribing.pop(0)
        source = ScriptedSource(spec, listener)
        self.sources.append(source)
        return source

    async def aclose(self) -> None:
        self.closed = True


register("scripted", f"{__name__}:ScriptedDriver")


async def scripted(query: str = "") -> tuple[Broker, ScriptedDriver]:
    """Return a broker on a scripted driver, and the driver."""
    broker = await connect(f"scripted://{query}")
    assert isinstance(broker.driver, ScriptedDriver)
    return broker, broker.driver
