"""The coalescing publisher, on a scripted driver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from anymq import (
    Broker,
    Closed,
    ConfigurationError,
    NotFound,
    PermanentError,
    PublishTimeout,
    Receipt,
    Throttled,
)
from anymq.driver import Outcome, Record
from anymq.identity import scope_of, unique_id

from .scripted import Lost, Missing, Refused, ScriptedDriver, scripted


@pytest_asyncio.fixture
async def both() -> AsyncIterator[tuple[Broker, ScriptedDriver]]:
    broker, driver = await scripted()
    yield broker, driver
    driver.script = driver.confirm
    await broker.aclose()
    assert driver.closed


Both = tuple[Broker, ScriptedDriver]


async def test_publishes_during_a_call_share_the_next_one(both: Both) -> None:
    broker, driver = both
    go = asyncio.Event()

    async def slow(records: Sequence[Record]) -> Sequence[Outcome]:
        await go.wait()
        return await driver.confirm(records)

    driver.script = slow
    await broker._declarations.declare("t")
    publishing = [asyncio.create_task(broker.publish("t", str(n))) for n in range(25)]
    await driver.called.wait()
    go.set()
    receipts = await asyncio.gather(*publishing)
    assert len({receipt.id for receipt in receipts}) == 25
    sent = [body for batch in driver.batches for body in batch]
    assert sent == [str(n) for n in range(25)], "in the order they were made"
    assert len(driver.batches) <= 4, "at most ten a call"


async def test_a_transient_failure_is_retried_with_the_same_ids(both: Both) -> None:
    broker, driver = both
    seen: list[tuple[str, str]] = []

    async def twice(records: Sequence[Record]) -> Sequence[Outcome]:
        seen.extend((record.id, record.unique) for record in records)
        return [Lost("gone") if len(seen) < 3 else "7" for _ in records]

    driver.script = twice
    receipt = await broker.publish("t", "x")
    assert receipt == Receipt(receipt.id, "t", "7")
    assert seen == [seen[0]] * 3
    assert seen[0] == (receipt.id, unique_id(scope_of(None), receipt.id))


async def test_each_record_has_its_own_outcome(both: Both) -> None:
    broker, driver = both

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        return [Refused("no") if record.body == b"1" else "1" for record in records]

    driver.script = script
    results = await broker.publish_many("t", ["0", "1", "2"])
    assert isinstance(results[0], Receipt)
    assert isinstance(results[1], PermanentError)
    assert isinstance(results[1].__cause__, Refused)
    assert "scripted://" in str(results[1])
    assert isinstance(results[2], Receipt)


async def test_a_driver_that_hangs_does_not_hang_its_callers(both: Both) -> None:
    broker, driver = both
    hang = asyncio.Event()

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        await hang.wait()
        return await driver.confirm(records)

    driver.script = script
    started = time.monotonic()
    results = await asyncio.gather(
        broker.publish("t", "in the call", timeout=0.5),
        broker.publish("t", "in the queue", timeout=0.3),
        return_exceptions=True,
    )
    assert time.monotonic() - started < 10
    assert all(isinstance(result, PublishTimeout) for result in results)
    assert "may or may not have been stored" in str(results[0])
    driver.script = driver.confirm
    hang.set()
    await broker.publish("t", "again")
    assert ["in the queue"] not in driver.batches, "what had timed out unsent is not sent later"


async def test_the_timeout_names_the_last_error(both: Both) -> None:
    broker, driver = both

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        raise Lost("connection reset")

    driver.script = script
    with pytest.raises(PublishTimeout, match="connection reset") as caught:
        await broker.publish("t", "x", timeout=0.4)
    assert len(driver.batches) > 1
    assert caught.value.__cause__ is not None


async def test_the_timeout_names_the_cause_that_the_broker_reports(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, driver = both
    full = Throttled("the disk is full")
    monkeypatch.setattr(ScriptedDriver, "obstacle", full)
    hang = asyncio.Event()

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        await hang.wait()
        return await driver.confirm(records)

    driver.script = script
    for payload in ("in the call", "in the queue"):
        with pytest.raises(PublishTimeout, match="the disk is full") as caught:
            await broker.publish("t", payload, timeout=0.2)
        assert caught.value.__cause__ is full
    hang.set()


async def test_a_vanished_topic_is_declared_again_once(both: Both) -> None:
    broker, driver = both
    missing = 1

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        nonlocal missing
        missing -= 1
        return [Missing("no such topic") if missing >= 0 else "1" for _ in records]

    driver.script = script
    await broker.publish("t", "x")
    assert driver.declared == ["t", "t"]
    missing = 2
    with pytest.raises(NotFound):
        await broker.publish("t", "y")


async def test_calls_that_overlap_have_no_key_in_common(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, driver = both
    monkeypatch.setattr(ScriptedDriver, "overlap", 2)
    await broker._declarations.declare("t")
    under_way: list[set[str | None]] = []
    most, failures = 0, iter(range(6))
    stored: list[tuple[str | None, bytes]] = []

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        nonlocal most
        keys = {record.key for record in records} - {None}
        assert all(keys.isdisjoint(others) for others in under_way)
        under_way.append(keys)
        most = max(most, len(under_way))
        await asyncio.sleep(0.001)
        under_way.remove(keys)
        if next(failures, None) is not None:
            return [Lost("gone")] * len(records)
        stored.extend((record.key, record.body) for record in records)
        return ["1"] * len(records)

    driver.script = script
    sent = [(f"k{n % 61}" if n % 3 else None, f"{n:03}".encode()) for n in range(200)]
    publishing = [broker.publish("t", body, key=key, timeout=60) for key, body in sent[:150]]
    many = broker.publish_many("t", [body for _, body in sent[150:]], key=lambda _: "k1")
    results = await asyncio.gather(*publishing, many)
    assert len(results) == 151
    assert most == 2
    for key in {f"k{n}" for n in range(61)}:
        bodies = [body for one, body in stored if one == key]
        assert bodies == sorted(bodies)
    assert len(stored) == 200


async def test_an_unmapped_error_is_raised_unchanged(both: Both) -> None:
    broker, driver = both

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        raise ZeroDivisionError("a defect")

    driver.script = script
    with pytest.raises(ZeroDivisionError):
        await broker.publish("t", "x")


async def test_a_driver_that_answers_for_too_few_records_has_confirmed_none(both: Both) -> None:
    broker, driver = both

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        return ["0"] * (len(records) - 1)

    driver.script = script
    outcomes = await broker.publish_many("t", ["a", "b", "c"])
    assert [str(outcome) for outcome in outcomes] == ["2 outcomes for 3 records"] * 3


async def test_nothing_to_publish_is_published(both: Both) -> None:
    broker, driver = both
    assert await broker.publish_many("t", []) == []
    assert driver.batches == []


async def test_a_cancelled_publish_that_was_not_sent_is_not_sent(both: Both) -> None:
    broker, driver = both
    go = asyncio.Event()

    async def slow(records: Sequence[Record]) -> Sequence[Outcome]:
        await go.wait()
        return await driver.confirm(records)

    driver.script = slow
    await broker._declarations.declare("t")
    first = asyncio.create_task(broker.publish("t", "first"))
    await driver.called.wait()
    second = asyncio.create_task(broker.publish("t", "second"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go.set()
    await first
    await broker.publish("t", "third")
    assert driver.batches == [["first"], ["third"]]


async def test_closing_resolves_every_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anymq.broker.PUBLISH_CLOSE_SECONDS", 0.5)
    broker, driver = await scripted()
    hang = asyncio.Event()

    async def script(records: Sequence[Record]) -> Sequence[Outcome]:
        await hang.wait()
        return []

    driver.script = script
    publishing = [asyncio.create_task(broker.publish("t", str(n), timeout=60)) for n in range(15)]
    await driver.called.wait()
    started = time.monotonic()
    await broker.aclose()
    assert time.monotonic() - started < 10
    results = await asyncio.gather(*publishing, return_exceptions=True)
    assert all(isinstance(result, Closed) for result in results)


class Panic(BaseException):
    """An exception such as an extension module may raise."""


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("t has 3 partitions, not 2"),
        Lost("x"),
        Panic("y"),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_publish_ends_whatever_redeclaring_raises(
    both: Both, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, driver = both
    await broker.publish("t", "x")

    async def missing(records: Sequence[Record]) -> Sequence[Outcome]:
        return [Missing("gone")] * len(records)

    async def declare(topic: object) -> None:
        raise error

    driver.script = missing
    monkeypatch.setattr(driver, "declare", declare)
    async with asyncio.timeout(30):
        with pytest.raises((NotFound, PublishTimeout)):
            await broker.publish("t", "x", timeout=0.5)
        outcomes = await broker.publish_many("t", ["a", "b"], timeout=0.5)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    monkeypatch.undo()
    driver.script = driver.confirm
    await broker.publish("t", "the publisher goes on")


async def test_some_of_many_publishes_end_while_redeclaring_hangs(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, driver = both
    await broker.publish("t", "x")
    go = asyncio.Event()

    async def first_is_missing(records: Sequence[Record]) -> Sequence[Outcome]:
        return [Missing("gone"), *("7" for _ in records[1:])]

    async def declare(topic: object) -> None:
        await go.wait()

    driver.script = first_is_missing
    monkeypatch.setattr(driver, "declare", declare)
    async with asyncio.timeout(30):
        first, *others = await broker.publish_many("t", ["a", "b", "c"], timeout=0.5)
    assert isinstance(first, PublishTimeout)
    assert all(isinstance(outcome, Receipt) for outcome in others)
    go.set()


class Mute(Exception):
    def __str__(self) -> str:
        raise TypeError("no text")


@pytest.mark.parametrize(
    "error",
    [Panic("x"), asyncio.CancelledError(), TimeoutError("x"), Mute(), StopIteration("x")],
    ids=lambda error: type(error).__name__,
)
async def test_a_publish_ends_whatever_the_client_raises(both: Both, error: BaseException) -> None:
    broker, driver = both

    async def failing(records: Sequence[Record]) -> Sequence[Outcome]:
        raise error

    driver.script = failing
    async with asyncio.timeout(30):
        with pytest.raises(Exception):  # noqa: B017, PT011
            await broker.publish("t", "x", timeout=0.5)
    driver.script = driver.confirm
    await broker.publish("t", "the publisher goes on")
