"""Ack, nack, release and reject, and what becomes of them when the channel is gone."""

from __future__ import annotations

import asyncio
import time

import pytest

from anymq.driver import Begun, SourceLost
from anymq_rabbitmq import RabbitMQDriver, messages
from brokers import Server
from tests.adapters.rabbitmq.support import (
    Bench,
    Proxy,
    attempt,
    bench_on,
    bodies,
    cut,
    eventually,
    nothing,
    numbers,
    store,
    take,
)

pytestmark = pytest.mark.rabbitmq


async def test_acks_in_any_order_and_the_rest_comes_back_counted(bench: Bench) -> None:
    driver, other = await bench.open(), await bench.open()
    source = await bench.join(driver)
    await store(driver, bench.records(10))
    received = await take(source, 10)
    await source.ack([received[i] for i in (5, 0, 9, 1)])
    await source.ack([received[3]])
    await driver.ping()  # The acknowledgements have gone out before.
    cut(driver)
    with pytest.raises(SourceLost):
        await source.receive(10, 2)
    again = await take(await bench.join(other), 5)
    assert sorted(numbers(again)) == [2, 4, 6, 7, 8]
    assert {attempt(one) for one in again} == {2}


async def test_a_lost_connection_wakes_the_reader_at_once(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    source = await bench.join(driver)
    reading = asyncio.create_task(source.receive(10, 2))
    await asyncio.sleep(0)
    started = time.monotonic()
    cut(driver)
    with pytest.raises(SourceLost):
        await reading
    assert time.monotonic() - started < 1


async def test_tokens_of_a_lost_channel_settle_nothing(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    source = await bench.join(driver)
    await store(driver, bench.records(3))
    received = await take(source, 3)
    cut(driver)
    with pytest.raises(SourceLost):
        await source.receive(1, 2)
    again = await bench.join(driver)
    second = await take(again, 3)
    await source.ack(received)
    await source.nack([bench.nack(one) for one in received])
    await source.release([bench.nack(one, counted=False) for one in received])
    await again.ack(received)
    await nothing(again)
    await again.ack(second)
    await again.aclose()
    await nothing(await bench.join(driver))


async def test_settling_again_is_harmless(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    await store(driver, bench.records(4))
    received = await take(source, 4)
    await asyncio.gather(source.ack(received[:3]), source.ack(received[1:]))
    await source.ack(received)
    await source.nack([bench.nack(one) for one in received])
    await nothing(source)


async def test_a_nack_goes_to_its_group_only(bench: Bench, driver: RabbitMQDriver) -> None:
    source, other = await bench.join(driver), await bench.join(driver, "audit")
    reader = await bench.join(driver, None, start="latest")
    await store(driver, [bench.record(1)])
    (received,) = await take(source, 1)
    await take(other, 1)
    await take(reader, 1)
    for delay in (0.0, 0.1):
        await source.nack([bench.nack(received, delay)])
        (received,) = await take(source, 1)
    assert attempt(received) == 3
    assert received.redeliveries == 0
    await nothing(other, 0.3)
    await nothing(reader, 0.3)


async def test_release_is_not_counted(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    await store(driver, bench.records(3))
    received = await take(source, 3)
    await source.release([bench.nack(one, counted=False) for one in received])
    again = await take(source, 3)
    assert numbers(again) == [0, 1, 2]
    assert {attempt(one) for one in again} == {1}


async def test_release_by_servers_that_do_not_count_it(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    source = await bench.join(driver)
    await store(driver, bench.records(5))
    received = await take(source, 3)
    driver._consuming.version = (4, 3, 0)
    await source.release([bench.nack(one, counted=False) for one in received])
    assert sorted(numbers(await take(source, 5))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("headers", "redelivered", "expected"),
    [
        ({"x-delivery-count": "7"}, False, 0),  # Another publisher's.
        ({"x-delivery-count": "7"}, True, 7),
        ({}, True, 1),  # A classic queue.
        ({"x-acquired-count": "2"}, True, 0),  # 4.3: given back, and not as a failure.
        ({"x-acquired-count": "2", "x-delivery-count": "1"}, True, 1),
        ({"anymq-redeliveries": "3", "x-delivery-count": "1"}, True, 4),
        ({"anymq-redeliveries": "9" * 5000}, False, 0),
    ],
)
def test_how_often_it_was_delivered_before(
    headers: dict[str, str], redelivered: bool, expected: int
) -> None:
    found = messages.redeliveries_of(headers, redelivered=redelivered, copied=True)
    assert found == expected
    # What was published to the topic says nothing of earlier deliveries.
    headers.pop("anymq-redeliveries", None)
    assert messages.redeliveries_of(headers, redelivered=redelivered, copied=True) == (
        messages.redeliveries_of(
            {**headers, "anymq-redeliveries": "3"}, redelivered=redelivered, copied=False
        )
    )


async def test_what_the_core_never_saw_is_not_counted(bench: Bench) -> None:
    driver = await bench.open()
    source = await bench.join(driver)
    await store(driver, bench.records(5))
    received = await take(source, 1)
    await source.ack(received)
    await source.aclose()
    again = await bench.join(driver)
    second = await take(again, 4)
    assert sorted(numbers(second)) == [1, 2, 3, 4]
    assert {attempt(one) for one in second} == {1}
    # What had begun before stays counted, and nothing else.
    await again.begin([Begun(one, 2) for one in second[:2]])
    begun = set(numbers(second[:2]))
    cut(driver)
    third = await bench.join(driver)
    await eventually(lambda: _prefetched(third, 4))
    await third.aclose()
    last = await take(await bench.join(driver), 4)
    counted = {number: attempt(one) for number, one in zip(numbers(last), last, strict=True)}
    assert counted == {number: 2 if number in begun else 1 for number in (1, 2, 3, 4)}


async def _prefetched(source: object, count: int) -> bool:
    return len(source._fetcher._buffer) == count  # type: ignore[attr-defined]


async def test_reject_stores_the_letter_first(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    letters = bench.topic(f"{bench.name}.billing.dlq")
    await driver.declare(letters)
    await store(driver, bench.records(2))
    received = await take(source, 2)
    await source.reject([bench.rejected(one) for one in received], driver.publish)
    assert numbers(await take(await bench.join(driver, "ops", topic=letters), 2)) == [0, 1]
    await source.aclose()
    await nothing(await bench.join(driver))


async def test_a_copy_that_cannot_be_stored_leaves_the_original(bench: Bench) -> None:
    driver = await bench.open()
    source = await bench.join(driver)
    async with Proxy(bench.url) as proxy:
        other = await bench.open(proxy.url, confirm_timeout=0.5)
        await store(other, bench.records(2))
        received = await take(source, 2)
        source._publisher = other._publisher
        proxy.block()
        for _ in range(2):
            with pytest.raises(Exception, match=r"blocked|blocks"):
                await source.nack([bench.nack(one) for one in received])
        proxy.unblock()
        # Of the first try, which was on its way. The originals are still ours.
        assert sorted(numbers(await take(source, 2))) == [0, 1]
        await source.ack(received)
        await other.aclose()
    await nothing(source)


async def test_closing_twice_and_with_a_dead_connection(bench: Bench) -> None:
    async with Proxy(bench.url) as proxy:
        driver = await bench.open(proxy.url)
        source = await bench.join(driver)
        await store(driver, bench.records(3))
        await take(source, 1)
        proxy.stall()
        started = time.monotonic()
        await source.aclose()
        await source.aclose()
        await driver.aclose()
        await driver.aclose()
        assert time.monotonic() - started < 40


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_nothing_is_lost_when_the_server_is_killed(faulty: Server) -> None:
    async with bench_on(faulty.url) as bench:
        driver = await bench.open(settle_time=1.5)
        source = await bench.join(driver)
        await store(driver, bench.records(20))
        received = await take(source, 20)
        await source.ack(received[:5])
        await source.nack([bench.nack(one, 6.0) for one in received[5:10]])
        nacked = time.monotonic()
        await asyncio.to_thread(faulty.kill)
        with pytest.raises(SourceLost):
            await source.receive(10, 2)
        await asyncio.to_thread(faulty.up)
        again = await bench.join(driver)
        back = await take(again, 15)
        elapsed = time.monotonic() - nacked
        assert elapsed > 5.9, "the ladder was early"
        assert {
            k: sum(one.headers.get("anymq-attempt", "1") == str(k) for one in back) for k in (1, 2)
        } == {1: 10, 2: 5}
        assert sorted(numbers(back)) == list(range(5, 20))
        assert bodies(await again.receive(10, 1)) == []
