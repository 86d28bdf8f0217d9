"""Records that are published now and delivered later."""

from __future__ import annotations

import asyncio
import time

import pytest

from anymq.driver import Duplicate, Received
from anymq.errors import UnsupportedOperation
from anymq_nats import NatsDriver
from brokers import Server
from tests.adapters.nats.support import Bench, stored
from tests.adapters.support import bodies, nothing, take, take_through

pytestmark = pytest.mark.nats


async def test_a_delayed_record_comes_when_it_is_due(bench: Bench, driver: NatsDriver) -> None:
    group = await bench.join(driver)
    reader = await bench.join(driver, None)
    due = time.time() + 1.0
    (outcome,) = await driver.publish([bench.record(b"later", deliver_at=due)])
    assert outcome is None
    stored(await driver.publish([bench.record(b"now")]))
    made_meanwhile = await bench.join(driver, "late", start="latest")
    assert bodies(await take(group, 1)) == [b"now"]
    assert bodies(await take(reader, 1)) == [b"now"]
    for source in (group, reader, made_meanwhile):
        (received,) = await take(source, 1)
        assert received.body == b"later"
        assert time.time() >= due
        assert received.redeliveries == 0


async def test_what_is_due_already_comes_at_once(bench: Bench, driver: NatsDriver) -> None:
    group = await bench.join(driver)
    await driver.publish([bench.record(b"past", deliver_at=time.time() - 60)])
    assert bodies(await take(group, 1, seconds=10.0)) == [b"past"]


async def test_the_delay_may_be_longer_than_the_retention(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(retention=1.0))
    await driver.publish([bench.record(b"later", deliver_at=time.time() + 3.0)])
    group = await bench.join(driver, topic=bench.topic(retention=1.0))
    assert bodies(await take(group, 1)) == [b"later"]


async def test_a_topic_bounded_in_size_keeps_what_waits(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=4, retention_bytes=50_000)
    await driver.declare(topic)
    group = await bench.join(driver, topic=topic)
    stored(await driver.publish([bench.record(b"retried")]))
    (received,) = await take(group, 1)
    await group.nack([bench.nack(received, 2.0)])
    due = time.time() + 2.0
    later = [bench.record(b"later", key=str(number), deliver_at=due) for number in range(20)]
    assert await driver.publish(later) == [None] * 20
    assert (await driver.describe_topic(topic)).delayed == 20
    assert (await driver.describe_group(topic, f"{bench.name}.billing")).waiting == 1
    for _ in range(3):
        stored(await driver.publish([bench.record(b"x" * 1000) for _ in range(100)]))
    bulk = [record async for batch in driver.browse(topic) for record in batch]
    assert len(bulk) < 50
    got: list[Received] = []
    while len(got) < 21:
        more = await take(group, 1)
        got += [received for received in more if len(received.body) < 1000]
    assert time.time() >= due
    assert sorted(bodies(got)) == [b"later"] * 20 + [b"retried"]
    partitions = (await driver.describe_topic(topic)).partitions
    assert all(partition.messages for partition in partitions)


async def test_a_repeated_delayed_publish_comes_once(bench: Bench, driver: NatsDriver) -> None:
    group = await bench.join(driver)
    record = bench.record(b"once", deliver_at=time.time() + 0.5)
    assert await driver.publish([record]) == [None]
    (again,) = await driver.publish([record])
    assert isinstance(again, Duplicate)
    assert bodies(await take(group, 1)) == [b"once"]
    assert await nothing(group, 1.0)


async def test_many_delayed_records_do_not_stall_others(bench: Bench, driver: NatsDriver) -> None:
    group = await bench.join(driver)
    far = time.time() + 30 * 24 * 3600
    for _ in range(5):
        outcomes = await driver.publish([bench.record(b"far", deliver_at=far) for _ in range(1000)])
        assert outcomes == [None] * 1000
    begun = time.monotonic()
    stored(await driver.publish(bench.records(500)))
    assert len(await take(group, 500)) == 500
    assert time.monotonic() - begun < 15.0
    await driver.publish([bench.record(b"soon", deliver_at=time.time() + 0.3)])
    assert bodies(await take(group, 1)) == [b"soon"]


async def test_a_stream_that_cannot_schedule_refuses(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    js = driver.native.jetstream()
    await js.add_stream(name=bench.stream, subjects=[bench.name])
    await driver.declare(bench.topic())
    late, now = await driver.publish(
        [bench.record(b"later", deliver_at=time.time() + 60), bench.record(b"now")]
    )
    assert isinstance(late, UnsupportedOperation)
    assert now == "1"


@pytest.mark.xdist_group("nats-faults")
async def test_a_delayed_record_survives_a_kill_of_the_server(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        group = await bench.join(driver)
        due = time.time() + 3.0
        records = [bench.record(number, deliver_at=due) for number in range(50)]
        assert await driver.publish(records) == [None] * 50
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)
        got = await take_through(group, 50)
        assert time.time() >= due
        assert sorted(bodies(got), key=int) == [b"%d" % number for number in range(50)]
