"""Places in the log, retention, and groups made anew."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from anymq.driver import Start
from anymq.errors import ConfigurationError, StateError
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import protocol
from tests.adapters.rabbitmq.support import (
    Bench,
    eventually,
    nothing,
    numbers,
    store,
    take,
)

pytestmark = pytest.mark.rabbitmq


async def browsed(driver: RabbitMQDriver, bench: Bench, start: Start = "earliest") -> list[int]:
    return [n async for batch in driver.browse(bench.topic(), start) for n in numbers(batch)]


async def test_places(bench: Bench, driver: RabbitMQDriver) -> None:
    assert await browsed(driver, bench) == []
    await store(driver, bench.records(5))
    between = datetime.now(UTC)
    time.sleep(0.002)  # noqa: ASYNC251 - a clock has to move, by milliseconds
    records = bench.records(range(5, 10))
    await store(driver, records)
    assert await browsed(driver, bench) == list(range(10))
    assert await browsed(driver, bench, between) == list(range(5, 10))
    assert await browsed(driver, bench, "latest") == []
    assert await browsed(driver, bench, records[2].id) == [7, 8, 9]
    for batch in [b async for b in driver.browse(bench.topic(), datetime.now(UTC))]:
        assert not batch
    for wrong in ("99999", "-1", "9:x", "", "1" * 30):
        with pytest.raises(ConfigurationError, match="no position"):
            await browsed(driver, bench, wrong)


async def test_seek_forgets_what_waits(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    await store(driver, bench.records(4))
    received = await take(source, 4)
    await source.nack([bench.nack(one, 1.5) for one in received])
    with pytest.raises(StateError):
        await driver.seek(bench.topic(), f"{bench.name}.billing", "earliest")
    await source.aclose()
    await driver.seek(bench.topic(), f"{bench.name}.billing", received[2].position)
    again = await bench.join(driver)
    first, second = await take(again, 2)
    assert numbers([first, second]) == [2, 3]
    await nothing(again, 2)
    await again.nack([bench.nack(first, 0.2)])
    assert numbers(await take(again, 1)) == [2]


async def test_the_log_keeps_no_more_than_it_shall(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(retention=3600, retention_bytes=1_000_000)
    await driver.declare(topic)
    body = b"x" * 10_000
    for _ in range(10):
        await store(driver, [bench.record(body) for _ in range(50)])

    async def trimmed() -> bool:
        await store(driver, [bench.record(body)])
        kept = [one async for batch in driver.browse(topic) for one in batch]
        return sum(len(one.body) for one in kept) <= 1_300_000

    await eventually(trimmed)
    info = await (await bench.open(declare=False)).describe_topic(bench.topic())
    assert (info.retention, info.retention_bytes) == (3600.0, 1_000_000)


async def test_a_purge_under_live_readers(bench: Bench, driver: RabbitMQDriver) -> None:
    await store(driver, bench.records(5))
    source = await bench.join(driver)
    reader = await bench.join(driver, None, start="earliest")
    for each in (source, reader):
        await take(each, 5)
    await driver.purge(bench.topic())
    assert await browsed(driver, bench) == []
    await store(driver, [bench.record(7)])
    assert numbers(await take(await bench.join(driver), 1)) == [7]
    assert numbers(await take(reader, 1)) == [7]


async def test_a_deleted_topic_leaves_nothing(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=2))
    for group, ordered in (("one", True), ("two", False)):
        await (await bench.join(driver, group, topic=bench.topic(), ordered=ordered)).aclose()
    assert bench.name in await driver.topics()
    natives = [f"{bench.name}.one", f"{bench.name}.two"]
    assert await driver.groups(bench.topic()) == natives
    await driver.delete_topic(bench.topic())
    await driver.delete_topic(bench.topic())
    assert bench.name not in await driver.topics()
    for queue in (*natives, f"{natives[0]}._p1", f"{natives[0]}._attempts", f"{bench.name}._log"):
        assert not await protocol.queue_exists(driver._consuming, queue)


async def test_names_are_followed_from_where_they_were_read(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    names = driver._catalog
    await names.add_topic(f"{bench.name}.before")
    known = await names.read()
    following = await names.follow(known)
    try:
        await names.add_purge(f"{bench.name}.after")
        found: list[bytes] = []
        async with asyncio.timeout(60):
            while not any(f"{bench.name}.after".encode() in body for body in found):
                found += [one.body for one in await following.take(10, 1.0)]
    finally:
        await following.aclose()
    assert not any(f"{bench.name}.before".encode() in body for body in found)
