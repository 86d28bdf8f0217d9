"""Subscriptions on scripted sources."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from anymq import Broker, ConfigurationError, ConnectionLost, PermanentError, StateError
from anymq.driver import SourceLost, TopicSpec
from anymq.testing.tools import take, until

from .scripted import Lost, Refused, ScriptedDriver, scripted

Both = tuple[Broker, ScriptedDriver]


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    broker, driver = await scripted()
    yield broker, driver
    await broker.aclose()
    assert all(source.closed for source in driver.sources)


async def test_acks_are_sent_in_batches(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.put(*map(str, range(20)))
        for delivery in await take(deliveries, 20):
            await delivery.ack()
        await until(lambda: deliveries.in_flight == 0)
    assert source.settled("ack") == [str(n) for n in range(20)]
    assert sum(verb == "ack" for verb, _ in source.calls) < 10


async def test_a_failed_settlement_is_retried(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.failures = {
            "ack": [Lost("x"), Lost("y")],
            "nack": [Lost("z")],
            "reject": [Lost("q")],
        }
        source.put("a", "b", "c")
        first, second, third = await take(deliveries, 3)
        await first.ack()
        await second.nack(3)
        await third.reject("no")
        await until(lambda: deliveries.in_flight == 0)
        assert source.settled("ack") == ["a"]
        assert source.settled("nack") == ["b"]
        assert source.settled("reject") == ["c"]


async def test_an_unsettleable_message_without_a_lease_reopens_the_source(
    both: Both,
) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.failures = {"ack": [Refused("no right to do that")]}
        source.put("a")
        (delivery,) = await take(deliveries, 1)
        await delivery.ack()
        await until(lambda: len(driver.sources) == 2)
        assert source.closed
        driver.sources[1].put("a")
        await until(lambda: driver.sources[1].settled("ack") == ["a"])


async def test_cancelling_a_close_cuts_the_drain_short(both: Both) -> None:
    broker, driver = both

    async def handle(body: str) -> None:
        await asyncio.Event().wait()

    subscription = broker.subscribe("t", group="g", handler=handle, drain_timeout=60)
    async with subscription:
        driver.sources[0].put("a")
        await until(lambda: subscription.in_flight == 1)
        closing = asyncio.create_task(subscription.aclose())
        await until(lambda: "closing" in repr(subscription))
        closing.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await closing
    assert time.monotonic() - started < 5
    assert driver.sources[0].settled("release") == ["a"]


async def test_a_lost_source_is_replaced_and_its_deliveries_become_stale(both: Both) -> None:
    broker, driver = both
    driver.subscribing = []
    async with broker.subscribe("t", group="g", prefetch=10) as deliveries:
        first = driver.sources[0]
        first.put("held", "buffered")
        (held,) = await take(deliveries, 1)
        driver.subscribing = [Lost("still down"), Lost("still down")]
        first.inbox.put_nowait(SourceLost("the channel closed"))
        await until(lambda: len(driver.sources) == 2)
        assert first.closed
        await held.ack()
        driver.sources[1].put("held", "buffered")
        (again,) = await take(deliveries, 1)
        assert again.message.body == b"buffered", "a message settled meanwhile is not handled again"
        await again.ack()
        await until(lambda: deliveries.in_flight == 0)
    assert first.settled("ack") == []
    assert driver.sources[1].settled("ack") == ["held", "buffered"]
    assert driver.sources[0].spec.member != driver.sources[1].spec.member


async def test_a_recreated_topic_is_still_consumed(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, driver = both

    async def declare(topic: TopicSpec) -> None:
        raise ConfigurationError(f"the topic {topic.name!r} has 1 partitions, not 3")

    async with broker.subscribe("t", group="g") as deliveries:
        monkeypatch.setattr(driver, "declare", declare)
        driver.sources[0].inbox.put_nowait(SourceLost("the topic was deleted"))
        await until(lambda: len(driver.sources) == 2)
        driver.sources[1].put("a")
        (delivery,) = await take(deliveries, 1)
        await delivery.ack()


async def test_a_failed_read_is_retried_on_the_same_source(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.inbox.put_nowait(Lost("a hiccup"))
        source.put("a")
        (delivery,) = await take(deliveries, 1)
        await delivery.ack()
    assert len(driver.sources) == 1


async def test_a_source_that_keeps_failing_is_replaced(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        for _ in range(5):
            driver.sources[0].inbox.put_nowait(ZeroDivisionError("a defect"))
        await until(lambda: len(driver.sources) == 2)
        driver.sources[1].put("a")
        await take(deliveries, 1)


async def test_subscribing_raises_the_error_of_the_broker() -> None:
    broker, driver = await scripted("h?connect_timeout=0.5")
    driver.subscribing = [Lost("no server")] * 100
    with pytest.raises(ConnectionLost, match=r"subscribe to t failed on scripted.*: no server"):
        await broker.subscribe("t", group="g").__aenter__()
    assert len(driver.subscribing) < 99, "what may pass is tried again"
    driver.subscribing = [Refused("no right to read")] * 2
    with pytest.raises(PermanentError):
        await broker.subscribe("t", group="g").__aenter__()
    assert len(driver.subscribing) == 1, "what will not pass is not"
    await broker.aclose()


async def test_subscribing_retries_transient_errors(both: Both) -> None:
    broker, driver = both
    driver.subscribing = [Lost("just starting")]
    async with broker.subscribe("t", group="g"):
        pass


async def test_leases_of_unsettled_deliveries_are_renewed(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ack_deadline=0.3) as deliveries:
        source = driver.sources[0]
        source.put("slow", "quick")
        slow, quick = await take(deliveries, 2)
        await quick.ack()
        await until(lambda: source.settled("extend").count("slow") >= 3)
        assert "quick" not in source.settled("extend")
        await slow.ack()


async def test_without_broker_leases_the_core_redelivers_expired_ones(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ack_deadline=0.3, auto_extend=False) as deliveries:
        source = driver.sources[0]
        source.put("forgotten")
        (delivery,) = await take(deliveries, 1)
        await until(lambda: source.settled("nack") == ["forgotten"])
        await delivery.ack()
        await delivery.nack()
    assert source.settled("ack") == []
    assert source.settled("nack") == ["forgotten"]


async def test_fetching_stays_within_the_credit(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch=4) as deliveries:
        source = driver.sources[0]
        source.put(*map(str, range(10)))
        held = await take(deliveries, 4)
        await until(lambda: source.limits[-1] == 0)
        assert source.inbox.qsize() == 6
        for delivery in held:
            await delivery.ack()
        await take(deliveries, 4)
        assert max(source.limits) == 4


async def test_a_handler_that_ignores_cancellation_does_not_stop_the_close(both: Both) -> None:
    broker, driver = both
    stubborn = asyncio.Event()

    async def handle(body: str) -> None:
        while not stubborn.is_set():
            try:
                await asyncio.wait_for(stubborn.wait(), 30)
            except asyncio.CancelledError:
                continue

    subscription = broker.subscribe("t", group="g", handler=handle, drain_timeout=0.1)
    async with subscription:
        driver.sources[0].put("a")
        await until(lambda: subscription.in_flight == 1)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert driver.sources[0].settled("ack") == []
    stubborn.set()


async def test_a_subscription_is_entered_once_and_iterated_only_without_a_handler(
    both: Both,
) -> None:
    broker, _ = both

    async def handle(body: str) -> None:
        raise AssertionError("never called")

    subscription = broker.subscribe("t", group="g", handler=handle)
    with pytest.raises(StateError):
        await anext(broker.subscribe("t", group="g"))
    async with subscription:
        with pytest.raises(StateError):
            aiter(subscription)
        with pytest.raises(StateError):
            await subscription.__aenter__()


async def test_an_error_in_a_middleware_costs_an_attempt_and_no_worker(both: Both) -> None:
    broker, driver = both
    done = asyncio.Event()

    async def handle(body: str) -> None:
        if body == "b":
            done.set()
        raise ZeroDivisionError

    async with broker.subscribe("t", group="g", handler=handle, middleware=[]):
        driver.sources[0].put("a", "b")
        await done.wait()
        await until(lambda: driver.sources[0].settled("nack") == ["a", "b"])
