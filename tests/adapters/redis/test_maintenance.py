"""Maintenance: trimming to the retention, and consumers that have been gone for long."""

from __future__ import annotations

import asyncio

import pytest

from anymq.driver import Source
from anymq_redis import RedisDriver
from anymq_redis.scripts import MOVE, SWEEP, TRIM
from anymq_redis.scripts.keys import GroupKeys, group_keys, topic_keys
from tests.adapters.redis.support import Bench
from tests.adapters.support import bodies, eventually, take

pytestmark = pytest.mark.redis


def keys_of(bench: Bench) -> GroupKeys:
    return group_keys(bench.name, bench.name, f"{bench.name}.billing")


async def trim(bench: Bench, driver: RedisDriver, retention: int, most: int = 10_000) -> int:
    keys = topic_keys(bench.name, 1)
    args = [b"%d" % retention, b"", b"%d" % most]
    reply = await driver._commands.eval(TRIM, [keys.about, keys.cells, *keys.streams], args)
    assert reply[1:] == [retention, -1]
    return int(reply[0])


async def test_only_entries_that_every_group_has_settled_are_trimmed(
    bench: Bench, driver: RedisDriver
) -> None:
    fast, slow = await bench.join(driver), await bench.join(driver, "slow")
    await driver.publish(bench.records(10))
    await asyncio.sleep(0.01)
    assert await trim(bench, driver, 1) == 0
    await fast.ack(await take(fast, 10))
    got = await take(slow, 6)
    assert await trim(bench, driver, 1) == 0
    await slow.ack([*got[:3], got[5]])
    assert await trim(bench, driver, 60_000) == 0
    assert await trim(bench, driver, 1) == 3
    await slow.ack(got[3:5])
    assert await trim(bench, driver, 1) == 3
    assert bodies(await take(slow, 4)) == [b"6", b"7", b"8", b"9"]


async def test_trimming_is_exact_and_bounded(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    for _ in range(2):
        await driver.publish(bench.records(350))
    await source.ack(await take(source, 700))
    await asyncio.sleep(0.01)
    assert 0 < await trim(bench, driver, 1, most=200) <= 300
    while await trim(bench, driver, 1, most=200):
        pass
    assert await driver.native.xlen(bench.name) == 0


async def test_a_topic_without_groups_is_trimmed_by_age(bench: Bench, driver: RedisDriver) -> None:
    await driver.publish(bench.records(3))
    assert await trim(bench, driver, 3_600_000) == 0
    await asyncio.sleep(0.01)
    assert await trim(bench, driver, 1) == 3


@pytest.mark.parametrize("where", ["url", "topic"])
async def test_members_trim(bench: Bench, where: str) -> None:
    driver = await bench.open(retention=0.2 if where == "url" else None)
    topic = bench.topic(retention=0.2 if where == "topic" else None)
    source = await bench.join(driver, topic=topic)
    await driver.publish(bench.records(3))
    await source.ack(await take(source, 3))
    async with asyncio.timeout(60):
        while await driver.native.xlen(bench.name):  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.02)


async def test_consumers_that_have_something_pending_or_live_are_kept(
    bench: Bench, driver: RedisDriver
) -> None:
    gone: Source = await bench.join(driver)
    holding: Source = await bench.join(driver)
    await driver.publish(bench.records(2))
    await gone.ack(await take(gone, 1))
    await take(holding, 1)
    keys = keys_of(bench)

    async def sweep(silent: int) -> int:
        args = [keys.group, b"%d" % silent]
        streams = [keys.members, bench.name.encode()]
        swept: int = await driver._commands.eval(SWEEP, streams, args)
        return swept

    assert await sweep(60_000) == 0
    await asyncio.sleep(0.01)
    assert await sweep(1) == 1
    assert (await driver.native.xpending(bench.name, "billing"))["pending"] == 1
    await driver.publish([bench.record(b"still here")])
    assert bodies(await take(gone, 1)) == [b"still here"]


async def test_many_due_at_once_are_moved_in_steps(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    await driver.publish(bench.records(350))
    got = await take(source, 350)
    await source.nack([bench.nack(item, 0.05) for item in got])
    assert len(await take(source, 350)) == 350
    keys = keys_of(bench)
    args = [keys.delayed, keys.payloads, keys.retry]
    assert await driver._commands.eval(MOVE, args, [b"10"]) == [0, -1]


async def test_a_bound_in_bytes_deletes_the_oldest_that_are_settled(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=2, retention_bytes=60_000)
    await driver.declare(topic)
    source, slow = await bench.join(driver), await bench.join(driver, "slow")
    await driver.publish([bench.record(b"%03d" % n + b"x" * 1000, key=f"k{n}") for n in range(200)])
    await source.ack(await take(source, 200))
    held = await take(slow, 200)

    async def size() -> int:
        return (await driver.describe_topic(topic)).bytes or 0

    async def small() -> bool:
        return await size() <= 60_000

    assert await size() > 200_000
    await slow.ack(held[:10])
    assert await size() > 180_000
    await slow.ack(held)
    await eventually(small)
    left = [item.body[:3] async for page in driver.browse(topic) for item in page]
    assert 20 < len(left) < 60
    # All partitions were trimmed to about the same time, up to one node of a stream.
    assert min(left) > b"100"


async def test_a_topic_is_trimmed_where_only_publishers_are(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(retention=0.2))
    await driver.publish(bench.records(3))

    async def empty() -> bool:
        return not await driver.native.xlen(bench.name)

    await eventually(empty)
