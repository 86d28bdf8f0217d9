"""Stale settlements: messages settled after their lease or source had ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from anymq import Broker
from anymq.consuming import late_settlements
from anymq.driver import Received, SourceLost
from anymq.testing.tools import bodies, silent, take, until

from .scripted import Lost, ScriptedDriver, ScriptedSource, scripted

Both = tuple[Broker, ScriptedDriver]


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    broker, driver = await scripted()
    yield broker, driver
    await broker.aclose()


def put(source: ScriptedSource, body: str, position: str, id: str, time: float = 1.0) -> None:
    headers = {"ce-id": id, "ce-source": "s"}
    source.inbox.put_nowait(
        Received(body.encode(), headers, position=position, token=body, time=time)
    )


async def lose(driver: ScriptedDriver) -> ScriptedSource:
    """Lose the newest source, and return its replacement."""
    count = len(driver.sources)
    driver.sources[-1].inbox.put_nowait(SourceLost("the channel closed"))
    await until(lambda: len(driver.sources) > count)
    return driver.sources[-1]


@pytest.mark.parametrize(
    ("position", "id", "time"), [("6", "i", 1.0), ("5", "j", 1.0), ("5", "i", 2.0)]
)
async def test_only_the_identical_message_is_acked(
    both: Both, position: str, id: str, time: float
) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch=10) as deliveries:
        put(driver.sources[0], "first", "5", "i")
        (done,) = await take(deliveries, 1)
        source = await lose(driver)
        await done.ack()
        put(source, "another", position, id, time)
        put(source, "first", "5", "i")
        assert bodies(await take(deliveries, 1)) == ["another"]


async def test_a_note_is_used_once(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch=10) as deliveries:
        driver.sources[0].put("a")
        (done,) = await take(deliveries, 1)
        source = await lose(driver)
        await done.ack()
        source.put("a")
        await until(lambda: source.settled("ack") == ["a"])
        source.put("a")
        assert bodies(await take(deliveries, 1)) == ["a"]


async def test_an_ack_in_transit_is_noted(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch=10) as deliveries:
        driver.sources[0].failures = {"ack": [Lost("x")] * 1000}
        driver.sources[0].put("a")
        (done,) = await take(deliveries, 1)
        await done.ack()
        source = await lose(driver)
        source.put("a", "b")
        assert bodies(await take(deliveries, 1)) == ["b"]
        await until(lambda: "a" in source.settled("ack"))


async def test_a_buffered_redelivery_of_a_settled_message_is_not_handled(both: Both) -> None:
    broker, driver = both
    running, go_on = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    async def handle(body: str) -> None:
        runs.append(body)
        running.set()
        await go_on.wait()

    async with broker.subscribe("t", group="g", handler=handle, prefetch=10) as subscription:
        driver.sources[0].put("a")
        await running.wait()
        source = await lose(driver)
        source.put("a", "b")
        await until(lambda: subscription.buffered == 2)
        go_on.set()
        await until(lambda: source.settled("ack") == ["a", "b"])
    assert runs == ["a", "b"]


async def test_a_stale_failure_keeps_its_attempt(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch=10) as deliveries:
        driver.sources[0].put("a")
        (failed,) = await take(deliveries, 1)
        source = await lose(driver)
        await failed.nack()
        source.put("a")
        (again,) = await take(deliveries, 1)
        assert again.attempt == 2
        await again.ack()


async def test_a_settlement_reported_as_dropped_is_repeated(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch=10) as deliveries:
        first = driver.sources[0]
        first.put("a")
        (done,) = await take(deliveries, 1)
        await done.ack()
        await until(lambda: first.settled("ack") == ["a"])
        first.listener.dropped([done.received])
        source = await lose(driver)
        source.put("a", "b")
        assert bodies(await take(deliveries, 1)) == ["b"]
        await until(lambda: source.settled("ack") == ["a"])


async def test_an_expired_lease_without_auto_extend_is_no_loss(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch=10, auto_extend=False) as deliveries:
        driver.sources[0].put("a")
        (late,) = await take(deliveries, 1)
        source = await lose(driver)
        await late.ack()
        source.put("a")
        assert bodies(await take(deliveries, 1)) == ["a"]


async def test_notes_are_bounded(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, driver = both
    monkeypatch.setattr(late_settlements, "MAX_NOTES", 2)
    async with broker.subscribe("t", group="g", prefetch=10) as deliveries:
        driver.sources[0].put("a", "b", "c")
        taken = await take(deliveries, 3)
        source = await lose(driver)
        for delivery in taken:
            await delivery.ack()
        source.put("a", "b", "c")
        assert bodies(await take(deliveries, 1)) == ["a"], "the oldest note has made way"
        await silent(deliveries, 0.2)
