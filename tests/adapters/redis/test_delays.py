"""Delayed records: never early, durable, for every group, in order."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from anymq.driver import Duplicate, Record
from anymq_redis import RedisDriver
from anymq_redis.scripts.keys import topic_keys
from tests.adapters.redis.support import Bench, Proxy, bodies_stored
from tests.adapters.support import bodies, eventually, nothing, take

pytestmark = pytest.mark.redis


def later(bench: Bench, delay: float, body: bytes | int = b"later", **values: Any) -> Record:
    record = bench.record(body, **values)
    record.deliver_at = time.time() + delay
    return record


async def delayed(driver: RedisDriver, name: str) -> int:
    return int(await driver.native.zcard(topic_keys(name, 1).delayed.decode()))


@pytest.mark.parametrize("delay", [0.1, 0.8, 2.2])
async def test_a_delayed_record_reaches_everybody_when_it_is_due(
    bench: Bench, driver: RedisDriver, delay: float
) -> None:
    group, reader = await bench.join(driver), await bench.join(driver, None)
    begun = time.time()
    assert await driver.publish([later(bench, delay, b"x" * 100_000)]) == [None]
    made_meanwhile = await bench.join(driver, "meanwhile", start="latest")
    for source in (group, reader, made_meanwhile):
        (item,) = await take(source, 1)
        assert len(item.body) == 100_000
        assert item.time is not None
        assert begun + delay <= item.time < begun + delay + 1
    assert await delayed(driver, bench.name) == 0


async def test_a_record_that_is_due_already_is_published(bench: Bench, driver: RedisDriver) -> None:
    (position,) = await driver.publish([later(bench, -5)])
    assert isinstance(position, str)
    assert await bodies_stored(driver, bench.name) == [b"later"]


async def test_a_long_delay_waits(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    weeks = 60 * 24 * 3600.0
    await driver.publish([later(bench, weeks)])
    assert await nothing(source, 0.5)
    waiting = topic_keys(bench.name, 1).delayed.decode()
    found: Any = await driver.native.zrange(waiting, 0, -1, withscores=True)
    assert [due / 1000 for _, due in found] == [pytest.approx(time.time() + weeks, abs=60)]


async def test_due_times_and_publishes_of_one_time_keep_their_order(
    bench: Bench, driver: RedisDriver
) -> None:
    source = await bench.join(driver)
    at = time.time() + 0.8
    batch = []
    for number in range(120):
        record = bench.record(number, key="k")
        record.deliver_at = at
        batch.append(record)
    early = later(bench, 0.4, b"early", key="k")
    await driver.publish([*batch, early])
    assert bodies(await take(source, 121)) == [b"early", *(b"%d" % n for n in range(120))]


async def test_a_subscriber_moves_the_records_of_a_dead_publisher(bench: Bench) -> None:
    publisher, other = await bench.open(), await bench.open(declare=False)
    await publisher.publish([later(bench, 0.3)])
    await publisher.aclose()
    reader = await bench.join(other, None, start="latest")
    assert bodies(await take(reader, 1)) == [b"later"]


async def test_a_publisher_moves_records_of_a_topic_without_subscribers(bench: Bench) -> None:
    dead, alive = await bench.open(), await bench.open()
    await dead.publish([later(bench, 0.3)])
    await dead.aclose()

    async def moved() -> bool:
        return await bodies_stored(alive, bench.name) == [b"later"]

    await eventually(moved)


async def test_thousands_that_wait_do_not_stall_the_others(
    bench: Bench, driver: RedisDriver
) -> None:
    source = await bench.join(driver)
    for _ in range(10):
        await driver.publish([later(bench, 3600, number) for number in range(500)])
    begun = time.monotonic()
    await driver.publish([bench.record(b"live")])
    assert bodies(await take(source, 1)) == [b"live"]
    assert time.monotonic() - begun < 5
    assert await delayed(driver, bench.name) == 5000


async def test_thousands_due_at_once_all_come(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    for _ in range(4):
        await driver.publish([later(bench, 0.5, number) for number in range(500)])
    got = await take(source, 2000)
    assert len({item.position for item in got}) == 2000


async def test_a_delay_may_be_longer_than_the_retention(bench: Bench) -> None:
    driver = await bench.open()
    topic = bench.topic(retention=0.3)
    await driver.declare(topic)
    source = await bench.join(driver, topic=topic)
    await driver.publish([bench.record(b"trimmed"), later(bench, 1.2)])
    got = await take(source, 1)
    await source.ack(got)

    async def trimmed() -> bool:
        return not await driver.native.xlen(bench.name)

    await eventually(trimmed)
    assert bodies(await take(source, 1)) == [b"later"]


async def test_a_delayed_publish_whose_answer_was_lost_is_stored_once(bench: Bench) -> None:
    async with Proxy(urlsplit(bench.url).port or 6379) as proxy:
        driver = await bench.open(proxy.url, timeout=1.0)
        source = await bench.join(driver)
        record = later(bench, 1.5)
        proxy.answers.clear()
        with pytest.raises((RedisError, OSError)):
            await driver.publish([record])
        proxy.answers.set()
        (outcome,) = await driver.publish([record])
        assert isinstance(outcome, Duplicate)
        assert bodies(await take(source, 1)) == [b"later"]
        assert await nothing(source, 0.5)


async def test_delays_are_moved_to_their_partitions(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=3)
    await driver.declare(topic)
    source = await bench.join(driver, topic=topic)
    keys = [f"k{number}" for number in range(12)]
    live = await driver.publish([bench.record(b"live", key=key) for key in keys])
    await driver.publish([later(bench, 0.2, key=key) for key in keys])
    got = await take(source, 24)
    partitions = sorted(item.position.split(":")[0] for item in got if item.body == b"later")
    assert partitions == sorted(str(position).split(":")[0] for position in live)


async def test_a_waiting_record_is_refused_with_its_topic(
    bench: Bench, driver: RedisDriver
) -> None:
    """A record that cannot be stored fails when it is published, not when it is due."""
    await driver.native.set(topic_keys(bench.name, 1).delayed.decode(), "a string")
    outcomes = await asyncio.gather(driver.publish([later(bench, 1), bench.record(b"live")]))
    refused, live = outcomes[0]
    assert isinstance(refused, RedisError)
    assert isinstance(live, str)
    await driver.native.delete(topic_keys(bench.name, 1).delayed.decode())
