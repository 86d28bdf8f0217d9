"""Replay, looking and operating, as other clients see it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from anymq.driver import Received, Start
from anymq.errors import ConfigurationError, NotFound, StateError, translate
from anymq_kafka import KafkaDriver
from anymq_kafka.client.compat import TopicPartition, kafka
from anymq_kafka.delays import retry_topics
from anymq_kafka.errors import ERRORS
from anymq_kafka.positions import check_start
from anymq_kafka.topology import size_bound
from tests.adapters.kafka.support import Bench, nothing, numbers, until_committed
from tests.adapters.support import bodies, eventually, take

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    "start",
    [
        "",
        "1",
        "1:",
        ":1",
        "1:-1",
        "1:2:3",
        "_retry.5s:0:1",
        "Earliest",
        "٣:٣",
    ],
)
def test_what_is_no_place_is_refused(start: Start) -> None:
    with pytest.raises(ConfigurationError):
        check_start(start)


def test_the_size_of_a_topic_is_shared_by_its_partitions() -> None:
    assert size_bound(10, 3) == {"retention.bytes": "4", "segment.bytes": str(1024 * 1024)}
    assert size_bound(80 * 2**30, 4)["segment.bytes"] == str(2**30)


async def browsed(driver: KafkaDriver, bench: Bench, start: Start) -> list[Received]:
    return [item async for batch in driver.browse(bench.topic(), start) for item in batch]


async def test_browsing_begins_at_a_place_everywhere(bench: Bench, driver: KafkaDriver) -> None:
    hour_ago = int(time.time()) - 3600  # Kafka deletes what is older than its retention.
    async with bench.producer() as foreign:
        for partition, moment in ((0, 10), (1, 20), (2, 30), (0, 40), (1, 50)):
            await foreign.send_and_wait(
                bench.name,
                b"%d" % moment,
                partition=partition,
                timestamp_ms=hour_ago * 1000 + moment,
            )
    for start, expected in (
        ("earliest", [10, 20, 30, 40, 50]),
        ("0:1", [40, 50]),
        ("1:0", [20, 30, 40, 50]),
        ("1:2", []),
        ("latest", []),
        (datetime.fromtimestamp(hour_ago + 0.03, UTC), [30, 40, 50]),
        (datetime(2100, 1, 1, tzinfo=UTC), []),
        (datetime(1960, 1, 1, tzinfo=UTC), [10, 20, 30, 40, 50]),
    ):
        assert numbers(await browsed(driver, bench, start)) == expected, start
    for start in ("0:3", "3:0"):
        with pytest.raises(ConfigurationError, match="no position"):
            await browsed(driver, bench, start)


async def test_browsing_ends_behind_what_is_no_record(bench: Bench) -> None:
    driver = await bench.open(partitions=1)
    async with bench.producer(transactional_id=bench.name) as foreign, foreign.transaction():
        await foreign.send(bench.name, b"committed", partition=0)
    assert bodies(await browsed(driver, bench, "earliest")) == [b"committed"]


async def test_seeking_forgets_retries(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(4))
    source = await bench.join(driver)
    await source.nack([bench.nack(item, 1.0) for item in await take(source, 4)])
    await until_committed(source)
    native = f"{bench.name}.billing"
    with pytest.raises(StateError):
        await driver.seek(bench.topic(), native, "earliest")
    await source.aclose()
    await driver.seek(bench.topic(), native, "latest")
    source = await bench.join(driver)
    assert await nothing(source, 2.0)
    with pytest.raises(kafka.GroupIdNotFound) as caught:
        await driver.seek(bench.topic(), f"{bench.name}.nobody", "latest")
    assert isinstance(translate(caught.value, ERRORS, doing="", where=""), NotFound)


async def test_what_a_group_has_yet_to_do(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(n, key="k") for n in range(10)])
    source = await bench.join(driver)
    received = await take(source, 10)
    await source.ack(received[4:6])
    await source.nack([bench.nack(received[0], 60)])
    await until_committed(source)
    info = await driver.describe_group(bench.topic(), f"{bench.name}.billing")
    assert (info.lag, info.waiting, info.in_flight, info.ordered) == (8, 1, None, False)
    assert info.members is not None
    assert [member.partitions for member in info.members] == [(0, 1, 2)]
    assert info.partitions is not None
    assert {part.owner for part in info.partitions} == {info.members[0].name}
    assert sorted(part.lag or 0 for part in info.partitions) == [0, 0, 7]
    assert info.lag_seconds is not None
    assert 0 < info.lag_seconds < 60


async def test_a_topic_and_its_bounds(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=4, retention=3600.0, retention_bytes=4_000_000)
    await driver.declare(topic)
    await driver.publish([bench.record(n, key=str(n)) for n in range(50)])
    info = await driver.describe_topic(topic)
    assert (info.messages, info.retention, info.retention_bytes) == (50, 3600.0, 4_000_000)
    assert info.bytes is not None
    assert info.bytes > 50
    assert [part.first for part in info.partitions] == ["0:0", "1:0", "2:0", "3:0"]
    with pytest.raises(ConfigurationError, match="4 partitions, not 5"):
        await driver.declare(bench.topic(partitions=5))
    await driver.declare(bench.topic(partitions=3))
    await (await bench.open(declare=False)).declare(bench.topic())


async def test_nothing_is_left_of_a_topic(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(1))
    source = await bench.join(driver)
    await source.nack([bench.nack(item, 60) for item in await take(source, 1)])
    await until_committed(source)
    await source.aclose()
    native = f"{bench.name}.billing"
    assert await driver.groups(bench.topic()) == [native]
    await driver.delete_topic(bench.topic())

    async def gone() -> bool:
        names = await driver._topology.names()
        return not {bench.name, *retry_topics(native)} & set(names)

    await eventually(gone)
    assert not await driver._topology.call(lambda admin: _exists(admin, native))


async def test_purging_reaches_what_waits(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(5))
    source = await bench.join(driver)
    await source.nack([bench.nack(item, 2.0) for item in (await take(source, 5))[:3]])
    await until_committed(source)
    await source.aclose()
    await driver.publish([bench.record(b"later", deliver_at=time.time() + 1.5)])
    await driver.purge(bench.topic())
    await driver.publish([bench.record(b"after", deliver_at=time.time() + 1.0)])
    source = await bench.join(driver)
    assert bodies(await take(source, 1)) == [b"after"]
    assert await nothing(source, 2.5)
    async with bench.consumer() as foreign:
        tps = [TopicPartition(bench.name, number) for number in range(3)]
        ends, begins = await foreign.end_offsets(tps), await foreign.beginning_offsets(tps)
    assert sum(ends.values()) - sum(begins.values()) == 1


async def _exists(admin: object, group: str) -> bool:
    listed = await admin.list_consumer_groups()  # type: ignore[attr-defined]
    return any(name == group for name, *_ in listed)
