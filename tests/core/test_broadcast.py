"""Broadcast over lost sources: position, buffer, retries and handlers are kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from anymq import Broker, Reject
from anymq.driver import Outcome, Record, SourceLost
from anymq.testing.tools import bodies, take, take_acked, until

from .scripted import Lost, Missing, ScriptedDriver, scripted

Both = tuple[Broker, ScriptedDriver]


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    broker, driver = await scripted()
    yield broker, driver
    await broker.aclose()
    assert all(source.closed for source in driver.sources)


LOSSES: list[list[Exception]] = [[SourceLost("gone")], [Lost("no link")] * 5]


@pytest.mark.parametrize("errors", LOSSES, ids=["lost", "failing"])
async def test_buffered_messages_stay_and_the_next_source_starts_after_them(
    both: Both, errors: list[Exception]
) -> None:
    broker, driver = both
    async with broker.subscribe("t", group=None, start="earliest") as deliveries:
        first = driver.sources[0]
        first.put("a", "b", "c")
        (held,) = await take(deliveries, 1)
        await until(lambda: deliveries.buffered == 2)
        for error in errors:
            first.inbox.put_nowait(error)
        await until(lambda: len(driver.sources) == 2)
        assert first.closed
        assert driver.sources[1].spec.position == "c"
        driver.sources[1].put("d")
        await held.ack()
        assert bodies(await take_acked(deliveries, 3)) == ["b", "c", "d"]
        await until(lambda: deliveries.in_flight == 0)


async def test_an_unread_source_is_followed_by_one_at_the_same_start_position(
    both: Both,
) -> None:
    broker, driver = both
    async with broker.subscribe("t", group=None):
        driver.sources[0].read = "the end as of then"
        driver.sources[0].inbox.put_nowait(SourceLost("gone"))
        await until(lambda: len(driver.sources) == 2)
        assert driver.sources[1].spec.position == "the end as of then"
        driver.sources[1].inbox.put_nowait(SourceLost("gone again"))
        await until(lambda: len(driver.sources) == 3)
        assert driver.sources[2].spec.position == "the end as of then"


async def test_a_message_in_backoff_is_redelivered_after_its_source_was_lost(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group=None) as deliveries:
        driver.sources[0].put("a")
        (delivery,) = await take(deliveries, 1)
        await delivery.nack(0.5)
        driver.sources[0].inbox.put_nowait(SourceLost("gone"))
        await until(lambda: len(driver.sources) == 2)
        (again,) = await take_acked(deliveries, 1)
        assert (bodies([again]), again.attempt) == (["a"], 2)
        await until(lambda: deliveries.in_flight == 0)


async def test_handlers_continue_over_a_lost_source_and_run_once(both: Both) -> None:
    broker, driver = both
    go, runs = asyncio.Event(), list[str]()

    async def handle(body: str) -> None:
        runs.append(body)
        await go.wait()

    async with broker.subscribe("t", group=None, handler=handle) as deliveries:
        driver.sources[0].put("a", "b")
        await until(lambda: runs == ["a"])
        driver.sources[0].inbox.put_nowait(SourceLost("gone"))
        await until(lambda: len(driver.sources) == 2)
        go.set()
        await until(lambda: runs == ["a", "b"])
        await until(lambda: deliveries.in_flight == 0)
        driver.sources[1].put("c")
        await until(lambda: runs == ["a", "b", "c"])


async def test_a_letter_that_cannot_be_stored_waits_until_it_can(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anymq.consuming.dead_letter_writer.FIRST_PAUSE", 0.05)
    broker, driver = both
    refusals = 3
    runs: list[str] = []

    async def refuse(records: Sequence[Record]) -> Sequence[Outcome]:
        nonlocal refusals
        outcomes: list[Outcome] = []
        for record in records:
            refused = record.body == b"a" and refusals > 0
            refusals -= refused
            outcomes.append(Missing("no topic") if refused else "1")
        return outcomes

    async def handle(body: str) -> None:
        runs.append(body)
        raise Reject("cannot")

    driver.script = refuse
    async with broker.subscribe("t", group=None, handler=handle, ack_deadline=0.2) as deliveries:
        driver.sources[0].put("a", "b")
        await until(lambda: runs == ["a", "b"])
        driver.sources[0].inbox.put_nowait(SourceLost("gone"))
        await until(lambda: refusals == 0 and deliveries.in_flight == 0)
        await until(lambda: sum(map(len, driver.batches)) == 5)
    letters = [body for batch in driver.batches for body in batch]
    assert sorted(letters) == ["a"] * 4 + ["b"]
    assert runs == ["a", "b"], "nothing is handled again"


async def test_a_gap_is_logged_with_its_range(both: Both, caplog: pytest.LogCaptureFixture) -> None:
    broker, driver = both
    with caplog.at_level(logging.WARNING, "anymq.consumer"):
        async with broker.subscribe("orders", group=None):
            driver.sources[0].listener.skipped("17", "40")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "orders" in line
    assert "after 17 and before 40" in line
