"""What other clients see of us, and we of them."""

from __future__ import annotations

import asyncio
import time

import pytest

from anymq_kafka import KafkaDriver
from anymq_kafka.broadcast import BroadcastReader
from anymq_kafka.client.compat import TopicPartition
from tests.adapters.kafka.support import Bench, nothing
from tests.adapters.support import bodies, take

pytestmark = pytest.mark.kafka


async def test_what_others_read(bench: Bench, driver: KafkaDriver) -> None:
    record = bench.record(b"body", key="schlüssel", headers={"x-note": "ä€😀"})
    await driver.publish([record, bench.record(b"", key="schlüssel")])
    async with bench.consumer(bench.name) as foreign:
        first, second = await foreign.getone(), await foreign.getone()
    assert (first.value, first.key) == (b"body", "schlüssel".encode())
    assert dict(first.headers) == {"ce_id": record.id.encode(), "x-note": "ä€😀".encode()}
    assert second.value == b"", "an empty body is no tombstone"


async def test_what_others_write(bench: Bench, driver: KafkaDriver) -> None:
    hour_ago = int(time.time()) - 3600  # Kafka deletes what is older than its retention.
    async with bench.producer() as foreign:
        place = await foreign.send_and_wait(
            bench.name,
            b"\x00\xff",
            key=b"\xfe",
            headers=[("a", b"1"), ("a", b"2"), ("b", b"\xff"), ("c", None)],
            timestamp_ms=hour_ago * 1000,
        )
        await foreign.send_and_wait(bench.name, None, key=b"k", partition=place.partition)
    first, second = await take(await bench.join(driver), 2)
    assert first.body == b"\x00\xff"
    assert first.key == "\\xfe"
    assert dict(first.headers) == {"a": "2", "b": "\\xff", "c": ""}
    assert first.position == f"{place.partition}:{place.offset}"
    assert first.time == hour_ago
    assert first.redeliveries == 0
    assert second.body == b"", "a tombstone"
    assert second.key == "k"


async def test_the_group_as_others_see_it(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(12))
    source = await bench.join(driver)
    await source.ack(await take(source, 12))
    await source.aclose()
    async with bench.consumer(bench.name, group_id=f"{bench.name}.billing") as foreign:
        assert await foreign.getmany(timeout_ms=1000) == {}
        await driver.publish([bench.record(b"new")])
        assert (await foreign.getone()).value == b"new"


async def test_compressed_batches(bench: Bench) -> None:
    driver = await bench.open(compression="gzip", partitions=1)
    await driver.publish([bench.record(b"x" * 1000) for _ in range(50)])
    assert len(await take(await bench.join(driver), 50)) == 50


async def test_what_is_read_of_transactions(bench: Bench) -> None:
    """Only what was committed; and the markers, which are no records, stop nobody."""
    driver = await bench.open(partitions=1)
    source = await bench.join(driver)
    async with bench.producer(transactional_id=bench.name) as foreign:
        async with foreign.transaction():
            await foreign.send(bench.name, b"committed", partition=0)
        await foreign.begin_transaction()
        await foreign.send_and_wait(bench.name, b"aborted", partition=0)
        await foreign.abort_transaction()
    received = await take(source, 1)
    assert bodies(received) == [b"committed"]
    await source.ack(received)
    assert await nothing(source, 1.0)
    assert await source.undelivered() is None, "the log ends with a marker: that is not a stall"
    await driver.publish([bench.record(b"after")])
    await source.ack(await take(source, 1))
    await source.aclose()
    place = (await bench.committed(partitions=1))[TopicPartition(bench.name, 0)]
    assert (place.offset, place.metadata) == (5, "")


async def test_broadcast_begins_where_it_was_when_it_was_opened(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(4))
    late, early = await bench.join(driver, None, start="latest"), await bench.join(driver, None)
    await driver.publish([bench.record(b"new")])
    assert bodies(await take(late, 1)) == [b"new"]
    assert len(await take(early, 5)) == 5
    assert await nothing(late, 0.3)
    assert not await bench.committed("None")


async def test_a_broadcast_reader_survives_its_consumer(bench: Bench, driver: KafkaDriver) -> None:
    """It goes on from where it was: a new one from latest would miss what came meanwhile."""
    reader = await bench.join(driver, None, start="latest")
    assert isinstance(reader, BroadcastReader)
    await driver.publish(bench.records(3))
    assert len(await take(reader, 2)) == 2
    fetcher = reader._consumer._fetcher
    assert fetcher is not None
    fetcher._fetch_task.cancel()
    await asyncio.wait((fetcher._fetch_task,))
    await driver.publish([bench.record(b"meanwhile")])
    assert sorted(bodies(await take(reader, 2)))[-1] == b"meanwhile"
