"""Handler starts: they are counted instead of deliveries, and the core notes them in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from anymq import Broker
from anymq.consuming.delivery import Delivery
from anymq.driver import Begun, Listener, Received, Source, SubscribeSpec
from anymq.testing.tools import until

from .scripted import Lost, ScriptedDriver, ScriptedSource, scripted


class CountingSource(ScriptedSource):
    """A source that counts starts, as most backends do."""

    counts_starts = True

    def __init__(self, spec: SubscribeSpec, listener: Listener) -> None:
        super().__init__(spec, listener)
        self.known: dict[str, int] = {}
        self.begun: list[tuple[str, int]] = []

    def known_attempt(self, record: Received) -> int | None:
        return self.known.get(record.position)

    async def begin(self, begun: Sequence[Begun]) -> None:
        self._note("begin", [item.received for item in begun])
        self.begun += [(item.received.position, item.attempt) for item in begun]

    def put_orphan(self, body: str, *, known: int, deliveries: int) -> None:
        """Add messages that another consumer had and did not settle."""
        self.known[body] = known
        received = Received(
            body.encode(), {}, position=body, token=body, redeliveries=deliveries - 1
        )
        self.inbox.put_nowait(received)


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def subscribe(driver: ScriptedDriver, spec: SubscribeSpec, listener: Listener) -> Source:
        source = CountingSource(spec, listener)
        driver.sources.append(source)
        return source

    monkeypatch.setattr(ScriptedDriver, "subscribe", subscribe)


@asynccontextmanager
async def closing(broker: Broker) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await broker.aclose()


def source_of(driver: ScriptedDriver) -> CountingSource:
    source = driver.sources[-1]
    assert isinstance(source, CountingSource)
    return source


async def test_a_redelivery_shows_its_known_starts_and_is_noted_before_its_handler() -> None:
    broker, driver = await scripted()
    seen: list[tuple[str, int, list[tuple[str, int]]]] = []

    async def handle(body: bytes, delivery: Delivery) -> None:
        seen.append((body.decode(), delivery.attempt, list(source_of(driver).begun)))

    async with closing(broker), broker.subscribe("t", group="g", handler=handle):
        source = source_of(driver)
        source.put("new")
        source.put_orphan("unknown", known=1, deliveries=4)
        source.put_orphan("noted", known=3, deliveries=4)
        await until(lambda: len(seen) == 3)
        # An unknown earlier delivery counts once, if this start has no end either.
        assert seen == [
            ("new", 1, []),
            ("unknown", 1, [("unknown", 3)]),
            ("noted", 3, [("unknown", 3), ("noted", 4)]),
        ]


async def test_a_redelivery_whose_attempt_is_read_early_is_still_noted() -> None:
    broker, driver = await scripted()
    async with closing(broker), broker.subscribe("t", group="g", prefetch=2) as deliveries:
        source = source_of(driver)
        source.put_orphan("a", known=1, deliveries=2)
        source.put_orphan("b", known=1, deliveries=2)
        first = await anext(deliveries)
        assert [item.attempt for item in deliveries._buffer.queue] == [1]
        await first.ack()
        await (await anext(deliveries)).ack()
        assert source.begun == [("a", 3), ("b", 3)]


async def test_a_redelivery_whose_start_cannot_be_noted_is_released() -> None:
    broker, driver = await scripted()
    async with closing(broker), broker.subscribe("t", group="g") as deliveries:
        source = source_of(driver)
        source.failures["begin"] = [Lost("once"), ValueError("for good")]
        source.put_orphan("a", known=1, deliveries=2)
        source.put("b")
        delivery = await anext(deliveries)
        assert delivery.received.position == "b"
        await until(lambda: source.settled("release") == ["a"])


async def test_a_running_delivery_is_noted_and_a_buffered_one_is_not() -> None:
    broker, driver = await scripted()
    go = asyncio.Event()

    async def handle(body: bytes) -> None:
        await go.wait()

    async with closing(broker), broker.subscribe("t", group="g", handler=handle, concurrency=2):
        source = source_of(driver)
        source.put("a", "b", "c", "d")
        await until(lambda: len(source.begun) == 2)
        assert sorted(source.begun) == [("a", 2), ("b", 2)]
        go.set()
        await until(lambda: len(source.settled("ack")) == 4)
        assert {name for name, _ in source.begun} == {"a", "b"}


async def test_a_delivery_of_an_iterating_task_is_noted_once() -> None:
    broker, driver = await scripted()
    async with closing(broker), broker.subscribe("t", group="g", prefetch=3) as deliveries:
        source = source_of(driver)
        source.put("a", "b", "c")
        first = await anext(deliveries)
        await until(lambda: source.begun)
        second = await anext(deliveries)
        await until(lambda: len(source.begun) == 2)
        await first.ack()
        await second.nack()
        third = await anext(deliveries)
        await until(lambda: len(source.begun) == 3)
        await third.ack()
        assert source.begun == [("a", 2), ("b", 2), ("c", 2)]


async def test_handled_deliveries_are_settled_before_a_redelivery_starts() -> None:
    broker, driver = await scripted()
    settled: list[list[str]] = []

    async def handle(body: bytes) -> None:
        settled.append(source_of(driver).settled("ack"))

    async with closing(broker), broker.subscribe("t", group="g", handler=handle):
        source = source_of(driver)
        for number in range(3):
            source.put_orphan(str(number), known=1, deliveries=2)
        await until(lambda: len(settled) == 3)
        assert settled == [[], ["0"], ["0", "1"]]
