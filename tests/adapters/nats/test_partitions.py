"""Topics with several partitions: where records go, and that groups see all of them."""

from __future__ import annotations

import asyncio
import time

import nats.js.errors
import pytest

from anymq.driver import partition_of
from anymq.errors import ConfigurationError
from anymq_nats import NatsDriver
from tests.adapters.nats.support import Bench, stored
from tests.adapters.support import attempt, bodies, nothing, take

pytestmark = pytest.mark.nats


async def partitioned(bench: Bench, count: int = 8) -> NatsDriver:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=count))
    return driver


async def subjects(bench: Bench, driver: NatsDriver) -> dict[str, int]:
    js = driver.native.jetstream()
    info = await js.stream_info(bench.stream, subjects_filter=">")
    return dict(info.state.subjects or {})


async def test_a_key_decides_the_partition(bench: Bench) -> None:
    driver = await partitioned(bench)
    keys = [f"k-{number}" for number in range(100)]
    stored(await driver.publish([bench.record(key=key) for key in keys]))
    expected: dict[str, int] = {}
    for key in keys:
        number = partition_of(key, 8)
        name = f"{bench.name}._part.8.{number}" if number else bench.name
        expected[name] = expected.get(name, 0) + 1
    assert await subjects(bench, driver) == expected


async def test_without_a_key_the_partitions_take_turns(bench: Bench) -> None:
    driver = await partitioned(bench, 4)
    stored(await driver.publish(bench.records(20)))
    assert sorted((await subjects(bench, driver)).values()) == [5, 5, 5, 5]


async def test_a_topic_without_partitions_has_one_subject(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish([bench.record(key=f"k-{number}") for number in range(20)]))
    assert await subjects(bench, driver) == {bench.name: 20}


async def test_the_number_is_found_by_others(bench: Bench) -> None:
    await partitioned(bench)
    other = await bench.open()
    mapped = await bench.open(declare=False)
    await mapped.declare(bench.topic(create=False))
    for driver in (other, mapped):
        stored(await driver.publish([bench.record(key="o-17")]))
    number = partition_of("o-17", 8)
    assert await subjects(bench, other) == {f"{bench.name}._part.8.{number}": 2}


async def test_another_number_is_refused(bench: Bench) -> None:
    await partitioned(bench)
    driver = await bench.open(declare=False)
    with pytest.raises(ConfigurationError, match="8 partitions, not 4"):
        await driver.declare(bench.topic(partitions=4))
    mapped = bench.topic(partitions=4, create=False)
    await driver.declare(mapped)
    (outcome,) = await driver.publish([bench.record()])
    assert isinstance(outcome, ConfigurationError)
    with pytest.raises(ConfigurationError, match="8 partitions, not 4"):
        await bench.join(driver, topic=mapped)


async def test_who_makes_it_first_decides(bench: Bench) -> None:
    drivers = [await bench.open(declare=False) for _ in range(4)]
    declared = await asyncio.gather(
        *[driver.declare(bench.topic(partitions=n + 2)) for n, driver in enumerate(drivers)],
        return_exceptions=True,
    )
    assert [type(item) for item in declared if item] == [ConfigurationError] * 3


async def test_a_publisher_with_an_outdated_number_is_told(bench: Bench) -> None:
    driver = await partitioned(bench)
    js = driver.native.jetstream()
    await js.delete_stream(bench.stream)
    await (await bench.open(declare=False)).declare(bench.topic(partitions=4))
    key = next(key for key in map(str, range(99)) if partition_of(key, 8))
    (outcome,) = await driver.publish([bench.record(key=key)])
    assert isinstance(outcome, nats.js.errors.NoStreamResponseError)


async def test_groups_and_readers_see_all_partitions(bench: Bench) -> None:
    driver = await partitioned(bench)
    group = await bench.join(driver)
    reader = await bench.join(driver, None)
    stored(await driver.publish([bench.record(n, key=f"k-{n}") for n in range(50)]))
    expected = [b"%d" % number for number in range(50)]
    assert bodies(await take(group, 50)) == expected
    assert bodies(await take(reader, 50)) == expected


async def test_copies_and_delays_on_a_partitioned_topic(bench: Bench) -> None:
    driver = await partitioned(bench)
    group = await bench.join(driver)
    other = await bench.join(driver, "other")
    due = time.time() + 0.5
    await driver.publish([bench.record(b"later", key="o-17", deliver_at=due)])
    (received,) = await take(group, 1)
    await group.nack([bench.nack(received, 0.2)])
    (again,) = await take(group, 1)
    assert (again.body, attempt(again)) == (b"later", 2)
    await group.release([bench.nack(again, counted=False)])
    (again,) = await take(group, 1)
    assert attempt(again) == 2
    await take(other, 1)
    assert await nothing(other, 0.3)
    name = f"{bench.name}._part.8.{partition_of('o-17', 8)}"
    assert (await subjects(bench, driver))[name] == 1
