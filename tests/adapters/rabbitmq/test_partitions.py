"""Topics of several partitions: the number, where keys land, and that all else is as ever."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from anymq.driver import partition_of
from anymq.errors import ConfigurationError
from anymq_rabbitmq import RabbitMQDriver, messages
from tests.adapters.rabbitmq.support import Bench, nothing, numbers, store, take

pytestmark = pytest.mark.rabbitmq


async def test_the_number_is_found_and_kept(bench: Bench) -> None:
    first, second = [await bench.open(declare=False) for _ in range(2)]
    await first.declare(bench.topic(partitions=8))
    await first.declare(bench.topic(partitions=8))
    await second.declare(bench.topic())
    assert len((await second.describe_topic(bench.topic())).partitions) == 8
    for wrong in (1, 4):
        with pytest.raises(ConfigurationError, match=rf"8 partitions, not {wrong}"):
            await second.declare(bench.topic(partitions=wrong))


async def test_a_topic_without_a_number_has_one(bench: Bench, driver: RabbitMQDriver) -> None:
    await driver.declare(bench.topic(partitions=1))
    with pytest.raises(ConfigurationError, match="1 partitions, not 3"):
        await driver.declare(bench.topic(partitions=3))
    assert len((await driver.describe_topic(bench.topic())).partitions) == 1


async def test_one_number_wins(bench: Bench) -> None:
    drivers = [await bench.open(declare=False) for _ in range(4)]
    results = await asyncio.gather(
        *(one.declare(bench.topic(partitions=n)) for n, one in enumerate(drivers, 2)),
        return_exceptions=True,
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, ConfigurationError) for result in results) == 3


async def test_keys_land_where_the_partitioner_says(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=5))
    reader = await bench.join(driver, None)
    keys = [f"key.{i}" for i in range(20)] + ["*", "#", "", "x" * 250, "y" * 300]
    await store(driver, [bench.record(i, key=key) for i, key in enumerate(keys)])
    await store(driver, bench.records(10))
    received = await take(reader, len(keys) + 10)
    found = [messages.routed_partition(one.native) for one in received]
    assert found[: len(keys)] == [partition_of(key, 5) for key in keys]
    assert Counter(found[len(keys) :]) == dict.fromkeys(range(5), 2)


async def test_groups_retries_and_delays_are_as_ever(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=3))
    await store(driver, [bench.record(i, key=f"k{i}") for i in range(10)])
    source = await bench.join(driver)
    other = await bench.join(driver, "audit")
    at = time.time() + 0.5
    await store(driver, [bench.record(10 + i, key=f"k{i}", deliver_at=at) for i in range(10)])
    for each in (source, other):
        received = await take(each, 20)
        assert numbers(received[:10]) == list(range(10))
        assert sorted(numbers(received[10:])) == list(range(10, 20))
        if each is source:
            await source.nack([bench.nack(received[0]), bench.nack(received[1], 0.1)])
            await source.ack(received[2:])
    assert sorted(numbers(await take(source, 2))) == [0, 1]
    await nothing(other)
