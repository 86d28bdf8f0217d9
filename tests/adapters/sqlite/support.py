"""What the tests of the SQLite adapter share: a file of their own, records, and other processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from anymq.driver import Nack, Received, Record, Rejected, Source, Start, SubscribeSpec, TopicSpec
from anymq.message import new_id
from anymq.url import URL
from anymq_sqlite import SqliteDriver, SqliteOptions

TOPIC = "orders"


class Bench:
    """One file, and the drivers that a test opened on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = URL.parse(f"sqlite:///{path}")
        self.drivers: list[SqliteDriver] = []

    async def open(self, **options: Any) -> SqliteDriver:
        driver = await SqliteDriver.open(self.url, SqliteOptions(**options), timeout=10)
        self.drivers.append(driver)
        await driver.declare(topic())
        return driver

    async def aclose(self) -> None:
        for driver in self.drivers:
            await driver.aclose()


@contextlib.asynccontextmanager
async def bench(path: Path) -> AsyncIterator[Bench]:
    """A `Bench` whose drivers are closed at the end."""
    made = Bench(path)
    try:
        yield made
    finally:
        await made.aclose()


def topic(name: str = TOPIC, **values: Any) -> TopicSpec:
    return TopicSpec(name=name, native=name, **values)


def spec(
    group: str | None = "billing",
    *,
    name: str = TOPIC,
    start: Start = "earliest",
    lease: float = 30.0,
    **values: Any,
) -> SubscribeSpec:
    return SubscribeSpec(
        topic=topic(name),
        group=group,
        native_group=f"{name}.{group}",
        start=start,
        ack_deadline=lease,
        prefetch=100,
        member=new_id(),
        **values,
    )


def record(body: bytes | int = b"", *, name: str = TOPIC, **values: Any) -> Record:
    identity = new_id()
    return Record(
        topic=name,
        id=identity,
        unique=values.pop("unique", identity),
        body=b"%d" % body if isinstance(body, int) else body,
        headers={"ce-id": identity, **values.pop("headers", {})},
        **values,
    )


def records(count: int, **values: Any) -> list[Record]:
    return [record(number, **values) for number in range(count)]


def attempt(received: Received) -> int:
    return int(received.headers.get("anymq-attempt", "1")) + received.redeliveries


def nack(received: Received, delay: float = 0.0, *, counted: bool = True) -> Nack:
    """What the core makes of a nack, or of a release if it is not `counted`."""
    current = attempt(received)
    return Nack(
        received,
        delay,
        current + 1 if counted else current,
        native_attempt=current + 1,
        copy=record(received.body),
    )


def rejected(received: Received, name: str = "orders.billing.dlq", **values: Any) -> Rejected:
    return Rejected(received, record(received.body, name=name, **values))


async def drain(source: Source, count: int, *, seconds: float = 10.0) -> list[Received]:
    """Receive until there are `count` records or `seconds` are over."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    return got


def bodies(received: Sequence[Received]) -> list[bytes]:
    return [item.body for item in received]
