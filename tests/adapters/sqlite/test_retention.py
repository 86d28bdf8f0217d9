"""Retention by age and by bytes."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import replace

from anymq.driver import TopicSpec
from anymq.testing.samples import join, join_ordered
from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import Bench, nack, record, records, spec, topic
from tests.adapters.support import drain

HOUR = 3600.0


async def age(driver: SqliteDriver, seconds: float) -> None:
    update = "UPDATE messages SET time = time - ?"
    await driver.native.write(lambda db: db.execute(update, (seconds,)))


async def kept(driver: SqliteDriver) -> list[int]:
    def query(db: sqlite3.Connection) -> list[int]:
        return [seq for (seq,) in db.execute("SELECT seq FROM messages ORDER BY seq")]

    return await driver.native.read(query)


async def test_only_what_is_old_and_settled_by_every_group_goes(driver: SqliteDriver) -> None:
    fast, slow = await join(driver, spec("fast")), await join(driver, spec("slow"))
    await driver.publish(records(6))
    await fast.ack(await drain(fast, 6))
    got = await drain(slow, 4)
    await slow.ack([got[0], got[2], got[3]])
    await slow.nack([nack(got[1], HOUR)])
    assert await driver.sweeper.sweep() == 0
    await age(driver, 8 * 24 * HOUR)
    assert await driver.sweeper.sweep() == 3
    assert await kept(driver) == [2, 5, 6]
    await fast.aclose()
    await slow.aclose()


async def test_a_topic_without_groups_goes_by_its_own_retention_only(driver: SqliteDriver) -> None:
    brief = TopicSpec(name="brief", native="brief", retention=HOUR)
    await driver.declare(brief)
    await driver.publish([record(b"stays"), record(b"goes", name="brief")])
    await age(driver, 30 * 24 * HOUR)
    assert await driver.sweeper.sweep() == 1
    assert await kept(driver) == [1]


async def test_a_later_declaration_keeps_or_replaces_the_retention(driver: SqliteDriver) -> None:
    query = "SELECT retention FROM topics"
    for retention, expected in ((HOUR, HOUR), (None, HOUR), (60.0, 60.0)):
        await driver.declare(topic(retention=retention))
        assert await driver.native.read(lambda db: db.execute(query).fetchone()) == (expected,)


async def test_many_messages_go_a_few_at_a_time(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    for _ in range(3):
        await driver.publish(records(400))
    await source.ack(await drain(source, 1200))
    await age(driver, 8 * 24 * HOUR)
    await driver.publish([record(b"young")])
    assert await driver.sweeper.sweep() == 1200
    assert await kept(driver) == [1201]
    await driver.publish([record(b"next")])
    assert await kept(driver) == [1201, 1202]
    await source.aclose()


async def test_positions_are_never_used_again(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.publish(records(3))
    await source.ack(await drain(source, 3))
    await age(driver, 8 * 24 * HOUR)
    await driver.sweeper.sweep()
    assert await kept(driver) == []
    assert await driver.publish([record(b"x")]) == ["4"]
    assert [got.position for got in await drain(source, 1)] == ["4"]
    await source.aclose()


async def test_it_sweeps_by_itself(bench: Bench) -> None:
    driver = await bench.open(sweep=0.05, retention=0.01)
    source = await join(driver, spec())
    await driver.publish(records(3))
    await source.ack(await drain(source, 3))
    deadline = time.monotonic() + 5
    while await kept(driver):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await source.aclose()


async def test_by_size_the_oldest_go_that_are_settled(driver: SqliteDriver) -> None:
    bounded = topic(retention_bytes=1000)
    await driver.declare(bounded)
    await driver.publish([record(b"x" * 100) for _ in range(1500)])
    reader = await join(driver, spec("g"))
    assert await driver.sweeper.sweep() == 0
    got = await drain(reader, 1500)
    await reader.ack(got[:3])
    assert await driver.sweeper.sweep() == 3
    await reader.ack(got[3:])
    await driver.publish([record(deliver_at=time.time() + HOUR)])
    assert await driver.sweeper.sweep() == 1487
    info = await driver.describe_topic(bounded)
    assert (info.messages, info.bytes, info.delayed) == (10, 1000, 1)
    await reader.aclose()


async def test_by_size_without_a_group(driver: SqliteDriver) -> None:
    await driver.declare(topic(retention_bytes=250))
    await driver.publish([record(b"x" * 100) for _ in range(5)])
    assert await driver.sweeper.sweep() == 3
    assert await kept(driver) == [4, 5]


async def test_an_ordered_group_keeps_what_it_has_not_settled(driver: SqliteDriver) -> None:
    lanes = TopicSpec(name="lanes", native="lanes", partitions=2)
    await driver.declare(lanes)
    source = await join_ordered(driver, replace(spec("g", topic=lanes), ordered=True))
    await driver.publish([record(n, name="lanes", key=f"k{n}") for n in range(20)])
    got = await drain(source, 20)
    (held,) = got[7:8]
    await source.ack([*got[:7], *got[8:]])
    await age(driver, 8 * 24 * HOUR)
    await driver.sweeper.sweep()
    info = await driver.describe_group(lanes, "lanes.g")
    assert info.lag == 1
    left = await kept(driver)
    assert left[0] == int(held.position)
    await source.ack([held])
    await driver.sweeper.sweep()
    assert await kept(driver) == []
    await source.aclose()


async def test_a_delay_longer_than_the_retention_survives_the_sweep(driver: SqliteDriver) -> None:
    await driver.declare(topic(retention=0.05))
    source = await join(driver, spec())
    await driver.publish([record(b"x", deliver_at=time.time() + 0.4)])
    while (await driver.describe_topic(topic())).delayed:
        assert await driver.sweeper.sweep() == 0
    assert [got.body for got in await drain(source, 1)] == [b"x"]
    await source.aclose()
