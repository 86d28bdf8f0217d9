"""Redriving dead letters while the broker refuses some of the copies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from anymq import Broker, ConnectionLost, DeadLetters, PermanentError, PublishTimeout, connect
from anymq.driver import Outcome, Record
from anymq.testing import random_name
from anymq.testing.tools import bodies, eventually, take, take_acked


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[Broker]:
    async with connect(f"memory://{random_name()}") as broker:
        yield broker


async def dead_letters(broker: Broker, *payloads: str) -> DeadLetters:
    """Have `payloads` rejected by the group `g` of the topic `t`."""
    await broker.publish_many("t", payloads)
    async with broker.subscribe("t", group="g") as deliveries:
        for delivery in await take(deliveries, len(payloads)):
            await delivery.reject("no")
    letters = broker.admin.dead_letters("t", "g")
    await eventually(letters.count, lambda count: count == len(payloads))
    return letters


def refuse(monkeypatch: pytest.MonkeyPatch, broker: Broker, body: bytes, error: Exception) -> None:
    """Let the broker answer `error` to each record with `body`."""
    publish = broker.driver.publish

    async def refusing(records: Sequence[Record]) -> Sequence[Outcome]:
        outcomes = await publish([record for record in records if record.body != body])
        stored = iter(outcomes)
        return [error if record.body == body else next(stored) for record in records]

    monkeypatch.setattr(broker.driver, "publish", refusing)


async def test_a_letter_whose_copy_is_refused_stays_listed_and_the_others_are_put_back(
    monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    letters = await dead_letters(broker, "a", "b", "c")
    refuse(monkeypatch, broker, b"b", PermanentError("no room for b"))
    with pytest.raises(PermanentError, match="no room for b"):
        await letters.redrive_all()
    assert [letter.message.body for letter in await letters.list()] == [b"b"]
    async with broker.subscribe("t", group="g") as deliveries:
        assert sorted(bodies(await take_acked(deliveries, 2))) == ["a", "c"]


async def test_a_redrive_of_many_ends_at_a_lost_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payloads = [str(number) for number in range(450)]
    tried: set[str] = set()

    async def lost(records: Sequence[Record]) -> Sequence[Outcome]:
        tried.update(record.id for record in records)
        return [ConnectionLost("gone") for _ in records]

    async with connect("memory://?publish_timeout=2") as broker:
        letters = await dead_letters(broker, *payloads)
        publish = broker.driver.publish
        monkeypatch.setattr(broker.driver, "publish", lost)
        with pytest.raises(PublishTimeout, match="gone"):
            await letters.redrive_all()
        assert 0 < len(tried) < len(payloads)
        monkeypatch.setattr(broker.driver, "publish", publish)
        assert await letters.redrive_all() == len(payloads)


async def test_a_letter_is_redriven_with_another_key(broker: Broker) -> None:
    letters = await dead_letters(broker, "a")
    (letter,) = await letters.list()
    await letters.redrive_edited(letter, "mended", key="k")
    async with broker.subscribe("t", group="g") as deliveries:
        (delivery,) = await take_acked(deliveries, 1)
    assert (delivery.message.body, delivery.message.key) == (b"mended", "k")
    assert delivery.message.id == letter.message.id


def hold(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> tuple[asyncio.Event, asyncio.Event]:
    """Let the broker store nothing before the second event is set; it sets the first by itself."""
    publish, sent, go_on = broker.driver.publish, asyncio.Event(), asyncio.Event()

    async def slow(records: Sequence[Record]) -> Sequence[Outcome]:
        sent.set()
        await go_on.wait()
        return await publish(records)

    monkeypatch.setattr(broker.driver, "publish", slow)
    return sent, go_on


async def test_a_cancelled_redrive_awaits_the_copies_that_are_on_their_way(
    monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    letters = await dead_letters(broker, "a", "b")
    sent, go_on = hold(monkeypatch, broker)
    redriving = asyncio.ensure_future(letters.redrive_all())
    await sent.wait()
    redriving.cancel()
    await asyncio.sleep(0)
    assert not redriving.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await redriving
    assert await letters.count() == 0


async def test_a_redrive_cancelled_twice_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    letters = await dead_letters(broker, "a")
    sent, go_on = hold(monkeypatch, broker)
    redriving = asyncio.ensure_future(letters.redrive_all())
    await sent.wait()
    for _ in range(2):
        redriving.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await redriving
    go_on.set()
    assert await eventually(letters.count, lambda count: count == 0) == 0


async def test_progress_counts_what_was_redriven_only(
    monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    letters = await dead_letters(broker, "a", "b", "c")
    refuse(monkeypatch, broker, b"b", PermanentError("no room for b"))
    seen: list[int] = []
    with pytest.raises(PermanentError):
        await letters.redrive_all(progress=seen.append)
    assert sum(seen) == 2
