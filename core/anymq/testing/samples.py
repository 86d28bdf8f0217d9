"""Specs, records and settlements as the core passes them to a driver, for tests of drivers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..driver.base import Driver
from ..driver.listener import Listener
from ..driver.records import Nack, Received, Record, Rejected, attempt_of
from ..driver.source import OrderedSource, Reader, Source
from ..driver.specs import ATTEMPT, Start, SubscribeSpec, TopicSpec
from ..ids import new_id


class Samples:
    """Specs, records and settlements, all of them about one topic.

    `id_header` is the header that carries a message's id: `Driver.binding.id`.
    """

    id_header: str = "ce-id"

    def __init__(self, name: str) -> None:
        self.name = name

    def topic(self, name: str | None = None, **values: Any) -> TopicSpec:
        """The spec of the topic, or of the one called `name`."""
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
        ordered: bool = False,
        position: object = None,
    ) -> SubscribeSpec:
        """A subscription of a new member."""
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
            ordered=ordered,
            position=position,
        )

    def record(self, body: bytes | int = b"", *, name: str | None = None, **values: Any) -> Record:
        """A new message."""
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
        """New messages whose bodies are the numbers from 0 on."""
        return [self.record(number, **values) for number in range(count)]

    def nack(self, received: Received, delay: float = 0.0, *, counted: bool = True) -> Nack:
        """The argument that the core passes for a nack, or for a release if it is not `counted`."""
        current = attempt(received)
        shown = current + 1 if counted else current
        copy = self.copy(received, shown)
        return Nack(received, delay, shown, native_attempt=current + 1, copy=copy)

    def copy(self, received: Received, shown: int) -> Record:
        """The copy that a backend publishes if it cannot redeliver."""
        headers = {**received.headers, ATTEMPT: str(shown)}
        return Record(
            topic=self.name, id=new_id(), unique=new_id(), body=received.body, headers=headers
        )

    def rejected(self, received: Received, name: str | None = None) -> Rejected:
        """A rejection: the record, and a letter for its dead-letter topic."""
        letter = self.record(received.body, name=name or f"{self.name}.billing.dlq")
        return Rejected(received, letter)


class RecordingListener(Listener):
    """A listener that records the reports of its source."""

    def __init__(self) -> None:
        self.revoked: list[tuple[frozenset[int], bool]] = []
        self.gaps: list[tuple[str, str]] = []

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        self.revoked.append((partitions, gone))

    def skipped(self, after: str, before: str) -> None:
        self.gaps.append((after, before))


async def join(driver: Driver, spec: SubscribeSpec, listener: Listener | None = None) -> Source:
    """Open a source of an unordered group."""
    source = await driver.subscribe(spec, listener or Listener())
    assert isinstance(source, Source), source
    return source


async def join_ordered(
    driver: Driver, spec: SubscribeSpec, listener: Listener | None = None
) -> OrderedSource:
    """Open a source of an ordered group."""
    source = await driver.subscribe(spec, listener or Listener())
    assert isinstance(source, OrderedSource), source
    return source


async def read(driver: Driver, spec: SubscribeSpec, listener: Listener | None = None) -> Reader:
    """Open a broadcast reader."""
    return await driver.subscribe(spec, listener or Listener())


def attempt(received: Received) -> int:
    """Return the attempt that the core would show."""
    return attempt_of(received)


def contents(received: Sequence[Received]) -> list[bytes]:
    """Return the bodies, in order."""
    return [item.body for item in received]


async def drain(source: Reader, count: int, *, seconds: float = 10.0) -> list[Received]:
    """Receive until there are `count` records or `seconds` have passed."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    return got


async def receive(source: Reader, count: int, *, seconds: float = 30.0) -> list[Received]:
    """Receive exactly `count` records."""
    got = await drain(source, count, seconds=seconds)
    assert len(got) == count, contents(got)
    return got


async def nothing(source: Reader, wait: float = 0.0) -> bool:
    """Whether no record arrives within `wait` seconds."""
    return not await source.receive(100, wait)
