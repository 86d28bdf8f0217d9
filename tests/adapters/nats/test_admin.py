"""Looking at topics and groups, and operating them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import nats.js.errors
import pytest

from anymq import connect
from anymq.driver import Received, SourceLost, Start, partition_of
from anymq.errors import ConfigurationError, StateError
from anymq_nats import NatsDriver
from anymq_nats.jetstream.schema import cells_stream, encode
from tests.adapters.nats.support import Bench, stored
from tests.adapters.support import attempt, bodies, nothing, take

pytestmark = pytest.mark.nats


async def browsed(
    bench: Bench, driver: NatsDriver, start: Start = "earliest"
) -> Sequence[Received]:
    return [item async for batch in driver.browse(bench.topic(), start) for item in batch]


async def test_browsing_shows_what_the_topic_holds(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=4))
    group = await bench.join(driver)
    positions = stored(await driver.publish([bench.record(n, key=str(n)) for n in range(1200)]))
    await driver.publish([bench.record(b"later", deliver_at=time.time() + 60)])
    got = await take(group, 3)
    await group.release([bench.nack(got[0], counted=False)])
    await group.nack([bench.nack(got[1], 60)])
    found = await browsed(bench, driver)
    assert bodies(found) == [b"%d" % number for number in range(1200)]
    assert [record.partition for record in found] == [partition_of(str(n), 4) for n in range(1200)]
    assert bodies(await browsed(bench, driver, positions[1190])) == bodies(found)[1190:]
    assert await browsed(bench, driver, "latest") == []
    assert await browsed(bench, driver, datetime.now(UTC)) == []


async def test_browsing_a_topic_that_is_not_there(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    with pytest.raises(nats.js.errors.NotFoundError):
        await browsed(bench, driver)


@pytest.mark.parametrize("start", ["", "x", "0", "-1", "1.5", "٣"])
async def test_a_start_that_is_none_is_refused(
    bench: Bench, driver: NatsDriver, start: Start
) -> None:
    for group in ("billing", None):
        with pytest.raises(ConfigurationError):
            await bench.join(driver, group, start=start)
    with pytest.raises(ConfigurationError):
        await bench.ordered(driver, start=start)
    assert await driver.groups(bench.topic()) == []


async def test_a_start_without_time_zone_is_refused(bench: Bench) -> None:
    start = datetime(2026, 1, 1)
    await bench.open()
    async with connect(bench.url) as broker:
        for group in ("billing", None):
            with pytest.raises(ConfigurationError, match="time zone"):
                async with broker.subscribe(bench.name, group=group, start=start):
                    pass
        with pytest.raises(ConfigurationError, match="time zone"):
            async with broker.subscribe(bench.name, group="billing", start=start, ordered=True):
                pass
        assert await broker.admin.groups(bench.name) == []


async def test_a_start_in_time(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish(bench.records(3)))
    moment = datetime.now(UTC)
    stored(await driver.publish([bench.record(b"after")]))
    for source in (
        await bench.join(driver, start=moment),
        await bench.join(driver, None, start=moment),
        await bench.ordered(driver, "ordered", start=moment),
    ):
        assert bodies(await take(source, 1)) == [b"after"]
    early = await bench.join(driver, "early", start=moment - timedelta(days=1))
    assert len(await take(early, 4)) == 4


async def test_a_start_beyond_the_end_is_the_end(bench: Bench, driver: NatsDriver) -> None:
    group = await bench.join(driver, start="1000")
    stored(await driver.publish([bench.record(b"next")]))
    assert bodies(await take(group, 1)) == [b"next"]


async def test_topics_and_groups_are_listed_by_their_names(
    bench: Bench, driver: NatsDriver
) -> None:
    await bench.join(driver, "b_c")
    await bench.ordered(driver, "a")
    await bench.join(driver, None)
    assert bench.name in await driver.topics()
    mine = [name for name in await driver.topics() if bench.name in name]
    assert mine == [bench.name]
    found = await driver.groups(bench.topic())
    assert sorted(found) == [f"{bench.name}.a", f"{bench.name}.b_c"]


async def test_a_group_made_by_an_earlier_release_is_listed(
    bench: Bench, driver: NatsDriver
) -> None:
    config = {"durable_name": encode(f"{bench.name}.old"), "metadata": {"anymq": "1"}}
    await driver._connection.api(
        f"CONSUMER.CREATE.{bench.stream}.{config['durable_name']}",
        {"stream_name": bench.stream, "config": {**config, "filter_subject": bench.name}},
    )
    assert await driver.groups(bench.topic()) == [f"{bench.name}.old"]


async def test_a_topic_is_described(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=4, retention=3600, retention_bytes=1_000_000)
    await driver.declare(topic)
    positions = stored(await driver.publish([bench.record(b"x") for _ in range(4)]))
    await driver.publish([bench.record(deliver_at=time.time() + 600)])
    info = await driver.describe_topic(bench.topic())
    assert (info.messages, info.delayed) == (4, 1)
    assert sorted(p.first or "" for p in info.partitions) == positions
    assert [p.first for p in info.partitions] == [p.last for p in info.partitions]
    assert (info.retention, info.retention_bytes) == (3600, 1_000_000)
    assert info.oldest is not None
    assert abs((datetime.now(UTC) - info.oldest).total_seconds()) < 60


async def test_a_group_is_described(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish(bench.records(10)))
    group = await bench.join(driver)
    got = await take(group, 4)
    await group.ack(got[:1])
    await group.nack([bench.nack(got[1], 600)])
    info = await driver.describe_group(bench.topic(), f"{bench.name}.billing")
    assert (info.lag, info.in_flight, info.waiting) == (9, 2, 1)
    assert info.members is not None
    assert len(info.members) == 1
    assert info.lag_seconds is not None
    assert 0 < info.lag_seconds < 60
    with pytest.raises(nats.js.errors.NotFoundError):
        await driver.describe_group(bench.topic(), f"{bench.name}.nobody")


async def test_an_ordered_group_is_described(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=4)
    await driver.declare(topic)
    stored(await driver.publish([bench.record(n, key=str(n)) for n in range(40)]))
    group = await bench.ordered(driver)
    await group.ack(await take(group, 40))
    stored(await driver.publish([bench.record(n, key=str(n)) for n in range(8)]))
    held = await take(group, 8)
    await group.ack(held[:2])
    info = await driver.describe_group(topic, f"{bench.name}.billing")
    assert (info.ordered, info.lag, info.in_flight) == (True, 6, 6)
    assert info.lag_seconds is not None
    assert 0 < info.lag_seconds < 60  # what is in handlers is not finished
    assert info.partitions is not None
    (owner,) = {partition.owner for partition in info.partitions}
    assert info.members is not None
    assert [(m.name, m.partitions, m.in_flight) for m in info.members] == [(owner, (0, 1, 2, 3), 6)]
    stored(await driver.publish([bench.record(n, key=str(n)) for n in range(5)]))
    await group.aclose()
    info = await driver.describe_group(topic, f"{bench.name}.billing")
    assert (info.lag, info.in_flight, info.members) == (11, 0, ())
    assert info.lag_seconds is not None
    assert 0 < info.lag_seconds < 60


@pytest.mark.parametrize("ordered", [False, True])
async def test_seeking_begins_anew(bench: Bench, driver: NatsDriver, ordered: bool) -> None:
    join = bench.ordered if ordered else bench.join
    positions = stored(await driver.publish(bench.records(5)))
    native = f"{bench.name}.billing"
    group = await join(driver, "billing")
    await group.ack(await take(group, 3))
    with pytest.raises(StateError, match="live members"):
        await driver.seek(bench.topic(), native, "earliest")
    await group.aclose()
    for to, expected in ((positions[1], 4), ("earliest", 5), ("latest", 0)):
        await driver.seek(bench.topic(), native, to)
        group = await join(driver, "billing", start="latest")
        got = await take(group, expected)
        assert [attempt(record) for record in got] == [1] * expected
        assert await nothing(group, 0.2)
        await group.aclose()
    with pytest.raises(ConfigurationError):
        await driver.seek(bench.topic(), native, "never")
    assert await driver.groups(bench.topic()) == [native]


@pytest.mark.parametrize("ordered", [False, True])
async def test_deleting_a_group(bench: Bench, driver: NatsDriver, ordered: bool) -> None:
    join = bench.ordered if ordered else bench.join
    native = f"{bench.name}.billing"
    stored(await driver.publish(bench.records(3)))
    group = await join(driver, "billing")
    await group.ack(await take(group, 3))
    with pytest.raises(StateError):
        await driver.delete_group(bench.topic(), native)
    await group.aclose()
    for _ in range(2):
        await driver.delete_group(bench.topic(), native)
    assert await driver.groups(bench.topic()) == []
    other = bench.join if ordered else bench.ordered
    assert len(await take(await other(driver, "billing"), 3)) == 3


async def test_a_member_whose_ordered_group_was_deleted_is_lost(
    bench: Bench, driver: NatsDriver
) -> None:
    group = await bench.ordered(driver)
    js = driver.native.jsm()
    await js.purge_stream(cells_stream(bench.stream))
    with pytest.raises(SourceLost):
        await take(group, 1)


async def test_deleting_a_topic_leaves_nothing(bench: Bench, driver: NatsDriver) -> None:
    group = await bench.ordered(driver)
    await group.aclose()
    for _ in range(2):
        await driver.delete_topic(bench.topic())
    js = driver.native.jsm()
    for name in (bench.stream, cells_stream(bench.stream)):
        with pytest.raises(nats.js.errors.NotFoundError):
            await js.stream_info(name)


async def test_a_shared_stream_keeps_what_is_not_the_topics(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    js = driver.native.jetstream()
    other = f"{bench.name}.other"
    await js.add_stream(name=bench.stream, subjects=[bench.name, other])
    await driver.declare(bench.topic())
    stored(await driver.publish(bench.records(3)))
    await js.publish(other, b"theirs")
    await driver.purge(bench.topic())
    assert (await driver.describe_topic(bench.topic())).messages == 0
    stored(await driver.publish(bench.records(3)))
    await bench.join(driver)
    await driver.delete_topic(bench.topic())
    info = await js.stream_info(bench.stream)
    assert (info.state.messages, info.state.consumer_count) == (1, 0)


async def test_purging_deletes_what_waits_too(bench: Bench, driver: NatsDriver) -> None:
    group = await bench.join(driver)
    stored(await driver.publish(bench.records(3)))
    (received,) = await take(group, 1)
    await group.nack([bench.nack(received, 0.5)])
    await driver.publish([bench.record(deliver_at=time.time() + 0.5)])
    await driver.purge(bench.topic())
    stored(await driver.publish([bench.record(b"new")]))
    fresh = await bench.join(driver, "fresh")
    assert bodies(await take(fresh, 1)) == [b"new"]
    assert await nothing(fresh, 1.0)


async def test_retention_by_size(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(retention_bytes=200_000))
    for _ in range(5):
        stored(await driver.publish([bench.record(b"x" * 1000) for _ in range(100)]))
    info = await driver.describe_topic(bench.topic())
    assert info.bytes is not None
    assert info.messages is not None
    assert info.bytes <= 200_000
    assert 100 < info.messages < 200


async def test_another_retention_changes_the_topic(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(retention=3600))
    other = await bench.open(declare=False)
    await other.declare(bench.topic(retention=60, retention_bytes=1_000_000))
    await driver.declare(bench.topic())
    info = await driver.describe_topic(bench.topic())
    assert (info.retention, info.retention_bytes) == (60, 1_000_000)
    await other.declare(bench.topic(retention=7200))
    info = await driver.describe_topic(bench.topic())
    assert (info.retention, info.retention_bytes) == (7200, 1_000_000)
