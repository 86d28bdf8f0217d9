"""Ordered subscriptions in the core: key lanes, retries, revocation."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from anymq import Acknowledge, Broker, ConfigurationError, DeadLetter, Delivery, Retry, StateError
from anymq.driver import Due, Received, SourceLost
from anymq.testing.tools import bodies, silent, take, take_acked, until

from .scripted import Refused, ScriptedDriver, scripted

Both = tuple[Broker, ScriptedDriver]


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    broker, driver = await scripted()
    yield broker, driver
    await broker.aclose()
    assert all(source.closed for source in driver.sources)


async def test_one_delivery_per_key_is_dispatched_at_a_time(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        assert source.spec.ordered
        source.put_keyed(("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3"), ("b", "b2"))
        first, second = await take(deliveries, 2)
        assert bodies([first, second]) == ["a1", "b1"]
        await first.ack()
        (third,) = await take(deliveries, 1)
        assert bodies([third]) == ["a2"]
        await second.reject("no")
        (fourth,) = await take(deliveries, 1)
        assert bodies([fourth]) == ["b2"]
        await third.ack()
        assert bodies(await take(deliveries, 1)) == ["a3"]
        assert deliveries.in_flight >= 2
    assert source.settled("ack") == ["a1", "a2"]
    assert source.settled("reject") == ["b1"]
    assert source.settled("release") == []


async def test_a_failed_delivery_holds_up_its_key_and_no_other(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        source.put_keyed(("a", "a1"), ("a", "a2"), ("b", "b1"))
        (first,) = await take(deliveries, 1)
        await first.nack(0.2)
        (other,) = await take(deliveries, 1)
        await other.ack()
        assert bodies([other]) == ["b1"]
        (again,) = await take(deliveries, 1)
        assert (bodies([again]), again.attempt) == (["a1"], 2)
        await again.release()
        (released,) = await take(deliveries, 1)
        assert (bodies([released]), released.attempt) == (["a1"], 2)
        await released.ack()
        assert bodies(await take(deliveries, 1)) == ["a2"]
    assert source.settled("keep") == ["a1"]
    assert source.settled("nack") == source.settled("release") == []


async def test_messages_without_a_key_wait_for_no_other(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        driver.sources[0].put("1", "2", "3")
        assert bodies(await take(deliveries, 3)) == ["1", "2", "3"]


async def test_handlers_keep_the_order_of_every_key(both: Both) -> None:
    broker, driver = both
    order: dict[str, list[int]] = defaultdict(list)
    running: set[str] = set()

    async def handle(body: str, delivery: Delivery) -> None:
        key, number = body.split(".")
        assert key not in running, "one at a time"
        running.add(key)
        await asyncio.sleep(random.uniform(0, 0.005))
        running.discard(key)
        if random.random() < 0.2 and delivery.attempt < 3:
            raise RuntimeError("again")
        order[key].append(int(number))

    chain = (Acknowledge(), DeadLetter(), Retry(initial=0.02, in_place=0.005))
    async with broker.subscribe(
        "t", group="g", ordered=True, handler=handle, concurrency=8, middleware=chain
    ) as subscription:
        source = driver.sources[0]
        source.put_keyed(*((f"k{n % 7}", f"k{n % 7}.{n}") for n in range(400)))
        await until(lambda: sum(map(len, order.values())) == 400)
        await until(lambda: subscription.in_flight == 0)
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert len(source.settled("ack")) == 400


async def test_a_stopped_key_lane_waits_for_its_restart(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        source.put_keyed(("a", "a1"), ("a", "a2"), ("b", "b1"))
        (first,) = await take(deliveries, 1)
        await first.stop("the card service is down")
        assert deliveries.stopped == {"a": "the card service is down"}
        assert bodies(await take(deliveries, 1)) == ["b1"]
        with pytest.raises(StateError):
            deliveries.restart("b")
        deliveries.restart("a")
        (again,) = await take(deliveries, 1)
        assert (bodies([again]), again.attempt) == (["a1"], 1)
        assert deliveries.stopped == {}
        await again.ack()
        assert bodies(await take(deliveries, 1)) == ["a2"]
    async with broker.subscribe("t", group="g") as deliveries:
        driver.sources[1].put("x")
        (delivery,) = await take(deliveries, 1)
        with pytest.raises(StateError):
            await delivery.stop("there are no lanes")


async def test_revoked_deliveries_are_discarded_after_their_handlers_ended(both: Both) -> None:
    broker, driver = both
    ends = asyncio.Event()
    ended: list[str] = []

    async def handle(body: str) -> None:
        await ends.wait()
        ended.append(body)

    async with broker.subscribe("t", group="g", ordered=True, handler=handle, concurrency=4):
        source = driver.sources[0]
        source.put_keyed(("a", "a1"), ("a", "a2"), partition=1)
        source.put_keyed(("b", "b1"), partition=2)
        await until(lambda: len(source.limits) > 2)
        revoking = asyncio.create_task(source.listener.revoke(frozenset({1}), False))
        await asyncio.sleep(0.1)
        assert not revoking.done()
        ends.set()
        await revoking
        assert "a1" in ended
        assert source.settled("ack").count("a1") == 1
        await until(lambda: "b1" in ended)
        source.put_keyed(("a", "a2"), partition=1)
        await until(lambda: ended.count("a2") == 1)
    assert sorted(ended) == ["a1", "a2", "b1"]


async def test_handlers_of_a_lost_partition_are_cancelled_and_settle_nothing(both: Both) -> None:
    broker, driver = both
    cancelled: list[str] = []

    async def handle(body: str) -> None:
        if body == "later":
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(body)
            raise

    async with broker.subscribe(
        "t", group="g", ordered=True, handler=handle, concurrency=2
    ) as subscription:
        source = driver.sources[0]
        source.put_keyed(("a", "a1"), ("b", "b1"), ("a", "a2"), partition=1)
        await until(lambda: subscription.in_flight == 3)
        await asyncio.sleep(0.05)
        await source.listener.revoke(frozenset({1}), True)
        assert sorted(cancelled) == ["a1", "b1"]
        await until(lambda: subscription.in_flight == 0)
        source.put_keyed(("a", "later"), partition=1)
        await until(lambda: source.settled("ack") == ["later"])
    assert [verb for verb, _ in source.calls] == ["ack"]


async def test_handlers_of_a_lost_source_end_before_the_next_source(both: Both) -> None:
    broker, driver = both
    running: list[str] = []
    overlaps: list[str] = []

    async def handle(body: str) -> None:
        if running:
            overlaps.append(body)
        running.append(body)
        try:
            await asyncio.sleep(0 if len(driver.sources) > 1 else 10)
        finally:
            running.remove(body)

    async with broker.subscribe("t", group="g", ordered=True, handler=handle, concurrency=2):
        driver.sources[0].put_keyed(("a", "a1"))
        await until(lambda: bool(running))
        driver.sources[0].inbox.put_nowait(SourceLost())
        await until(lambda: len(driver.sources) == 2)
        driver.sources[1].put_keyed(("a", "a1"))
        await until(lambda: driver.sources[1].settled("ack") == ["a1"])
    assert overlaps == []
    assert driver.sources[0].settled("ack") == []


async def test_a_permanently_failed_settlement_reopens_the_source(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        source.failures = {"ack": [Refused("no")]}
        source.put_keyed(("a", "a1"), ("a", "a2"))
        (first,) = await take(deliveries, 1)
        await first.ack()
        await until(lambda: len(driver.sources) == 2)
        driver.sources[1].put_keyed(("a", "a1"), ("a", "a2"))
        received = bodies(await take(deliveries, 1))
        assert received == ["a2"], "a1 is done: it is acked again, and not handled again"
        await until(lambda: driver.sources[1].settled("ack") == ["a1"])


async def test_ordered_without_auto_extend_is_refused(both: Both) -> None:
    broker, _ = both
    with pytest.raises(ConfigurationError):
        broker.subscribe("t", group="g", ordered=True, auto_extend=False)


async def test_a_paused_subscription_dispatches_nothing_until_resumed(both: Both) -> None:
    broker, driver = both
    handled: list[str] = []

    async def handle(body: str) -> None:
        handled.append(body)

    async with broker.subscribe("t", group="g", handler=handle) as subscription:
        source = driver.sources[0]
        subscription.pause()
        assert subscription.paused
        await until(lambda: 0 in source.limits, what="the session is kept alive")
        source.limits.clear()
        source.put("x")
        await until(lambda: len(source.limits) >= 2)
        assert set(source.limits) == {0}
        assert handled == []
        subscription.resume()
        await until(lambda: handled == ["x"])


@pytest.mark.parametrize("target", [1, 6])
async def test_concurrency_changes_while_it_runs(both: Both, target: int) -> None:
    broker, driver = both
    gate = asyncio.Semaphore(0)
    running = 0

    async def handle(body: str) -> None:
        nonlocal running
        running += 1
        await gate.acquire()
        running -= 1

    async with broker.subscribe("t", group="g", handler=handle, concurrency=3) as subscription:
        driver.sources[0].put(*map(str, range(30)))
        await until(lambda: running == 3)
        subscription.concurrency = target
        for _ in range(3):
            gate.release()
        await until(lambda: running == target and len(driver.sources[0].settled("ack")) == 3)
        with pytest.raises(ConfigurationError):
            subscription.concurrency = 0
        for _ in range(27):
            gate.release()
        await until(lambda: len(driver.sources[0].settled("ack")) == 30)


async def test_bytes_in_flight_are_bounded(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", prefetch_bytes=10_000) as deliveries:
        source = driver.sources[0]
        source.put(*("x" * 5000 for _ in range(300)))
        await until(lambda: source.inbox.qsize() < 300)
        for _ in range(300):
            (delivery,) = await take(deliveries, 1)
            await delivery.ack()
        assert min(limit for limit in source.limits[50:] if limit) <= 3


def wait_of(item: Received, seconds: float) -> Received:
    """Deliver `item` with the due time that an earlier owner stored."""
    item.not_before = Due(time.time() + seconds, 3600.0)
    return item


def keyed(key: str, body: str) -> Received:
    return Received(body.encode(), {"ce-partitionkey": key}, position=body, token=body)


async def test_a_failed_delivery_is_kept_with_the_time_when_it_is_due(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        source.put_keyed(("a", "a1"), ("b", "b1"), ("c", "c1"))
        first, second, third = await take(deliveries, 3)
        before = time.time()
        await first.nack(500)
        await second.nack(500, counted=False)
        await third.nack()
        await until(lambda: len(source.kept) == 3)
    dues = {nack.received.position: nack.due for nack in source.kept}
    assert dues["c1"] is None
    for due in (dues["a1"], dues["b1"]):
        assert due is not None
        assert due.delay == 500
        assert before + 500 <= due.at <= time.time() + 500
    shown = {nack.received.position: nack.attempt for nack in source.kept}
    assert shown == {"a1": 2, "b1": 1, "c1": 2}


async def test_a_delivery_before_its_due_time_closes_its_key_lane_alone(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        for item in (
            wait_of(keyed("a", "a1"), 0.3),
            keyed("a", "a2"),
            keyed("b", "b1"),
            wait_of(keyed("b", "b2"), 0.3),
            wait_of(keyed("c", "c1"), -5),
        ):
            source.inbox.put_nowait(item)
        first, second = await take(deliveries, 2)
        assert sorted(bodies([first, second])) == ["b1", "c1"]
        await first.ack()
        await second.ack()
        left = bodies(await take_acked(deliveries, 3))
    assert sorted(left) == ["a1", "a2", "b2"]
    assert left.index("a1") < left.index("a2")


async def test_a_wall_clock_that_was_set_back_adds_at_most_the_delay(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        item = keyed("a", "a1")
        item.not_before = Due(time.time() + 3600, 0.2)
        driver.sources[0].inbox.put_nowait(item)
        assert bodies(await take_acked(deliveries, 1)) == ["a1"]


async def test_an_inherited_backoff_is_discarded_with_its_partition(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        source.inbox.put_nowait(wait_of(keyed("a", "a1"), 0.5))
        source.inbox.put_nowait(keyed("b", "b1"))
        await take_acked(deliveries, 1)
        await source.listener.revoke(frozenset({0}), False)
        assert deliveries.in_flight == 0
        await silent(deliveries, 0.8)


async def test_deliveries_of_a_lost_partition_count_as_settled(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=True) as deliveries:
        source = driver.sources[0]
        source.put_keyed(("a", "a1"))
        (lost,) = await take(deliveries, 1)
        settled = [lost.settled]
        await source.listener.revoke(frozenset({0}), True)
        settled.append(lost.settled)
        await lost.ack()
    assert settled == [False, True]
    assert source.settled("ack") == []
