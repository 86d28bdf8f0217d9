"""Publishing and declaring: outcomes, places, limits, what a refused record must not cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anymq.driver import TopicSpec
from anymq.errors import ConfigurationError, MessageTooLarge, NotFound, translate
from anymq_kafka import KafkaDriver
from anymq_kafka.client.compat import kafka
from anymq_kafka.errors import ERRORS
from tests.adapters.kafka.support import Bench, until_gone
from tests.adapters.support import bodies, take

pytestmark = pytest.mark.kafka

MIB = 1024 * 1024


def meaning(error: object) -> type[BaseException]:
    assert isinstance(error, BaseException)
    return type(translate(error, ERRORS, doing="publish", where=""))


async def test_each_record_has_its_place(bench: Bench, driver: KafkaDriver) -> None:
    outcomes = await driver.publish(
        [bench.record(number, key=f"k{number % 7}") for number in range(200)]
    )
    source = await bench.join(driver)
    received = await take(source, 200)
    assert {item.position: item.body for item in received} == {
        outcome: b"%d" % number for number, outcome in enumerate(outcomes)
    }


async def test_keys_are_placed_as_other_clients_place_them(
    bench: Bench, driver: KafkaDriver
) -> None:
    keys = [f"key-{number}" for number in range(50)]
    outcomes = await driver.publish([bench.record(key=key) for key in keys])
    async with bench.producer() as foreign:
        for key, outcome in zip(keys, outcomes, strict=True):
            place = await foreign.send_and_wait(bench.name, b"", key=key.encode())
            assert str(outcome).split(":")[0] == str(place.partition)


async def test_records_without_a_key_use_all_partitions(bench: Bench, driver: KafkaDriver) -> None:
    outcomes = await driver.publish(bench.records(100))
    assert {str(outcome).split(":")[0] for outcome in outcomes} == {"0", "1", "2"}


async def test_a_full_mebibyte_with_all_its_headers_passes(
    bench: Bench, driver: KafkaDriver
) -> None:
    headers = {f"h{number}": "x" * 256 for number in range(60)}
    (outcome,) = await driver.publish([bench.record(b"m" * MIB, key="k" * 1024, headers=headers)])
    assert isinstance(outcome, str)
    (received,) = await take(await bench.join(driver), 1)
    assert len(received.body) == MIB
    assert len(received.headers) == 61


async def test_a_refused_record_costs_no_other(bench: Bench, driver: KafkaDriver) -> None:
    """aiokafka counts the refused batch's sequence numbers: the broker would refuse all that
    follows it in the partition."""
    large = bench.record(b"z" * 3 * MIB, key="a")
    outcomes = await driver.publish([bench.record(1, key="a"), large, bench.record(2, key="a")])
    assert isinstance(outcomes[0], str)
    assert meaning(outcomes[1]) is MessageTooLarge
    assert isinstance(outcomes[2], str)
    (later,) = await driver.publish([bench.record(3, key="a")])
    assert isinstance(later, str)
    assert bodies(await take(await bench.join(driver), 3)) == [b"1", b"2", b"3"]


async def test_what_is_only_too_large_together_is_stored(bench: Bench) -> None:
    """A topic that is not ours may have a limit far below that of our batches."""
    driver = await bench.open(partitions=1)
    limit = _limit(bench.name, 20_000)
    await driver._topology.call(lambda admin: admin.alter_configs([limit]))
    outcomes = await driver.publish([bench.record(b"x" * 9000) for _ in range(12)])
    assert all(isinstance(outcome, str) for outcome in outcomes), outcomes


async def test_a_topic_that_is_not_there(bench: Bench, driver: KafkaDriver) -> None:
    outcomes = await driver.publish([bench.record(1), bench.record(2, name=f"{bench.name}.no")])
    assert isinstance(outcomes[0], str)
    assert meaning(outcomes[1]) is NotFound


async def test_a_topic_that_vanishes(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(1)])
    await until_gone(driver, bench.name)
    async with asyncio.timeout(40):
        (outcome,) = await driver.publish([bench.record(2)])
    assert meaning(outcome) is NotFound
    await driver.declare(bench.topic())
    (outcome,) = await driver.publish([bench.record(3)])
    assert isinstance(outcome, str)


async def test_many_declare_the_same_at_once(bench: Bench) -> None:
    drivers = await asyncio.gather(*(bench.open() for _ in range(4)))
    topic = bench.topic(f"{bench.name}.new", partitions=5, retention=60.0)
    await asyncio.gather(*(driver.declare(topic) for driver in drivers for _ in range(3)))
    assert await drivers[0]._topology.partitions(topic.native) == 5
    for driver in drivers:
        (outcome,) = await driver.publish([bench.record(name=topic.name)])
        assert isinstance(outcome, str)


async def test_names_that_differ_only_in_dot_and_underscore(
    bench: Bench, driver: KafkaDriver
) -> None:
    """Kafka's metrics would take one for the other, so it refuses the second."""
    await driver.declare(bench.topic(f"{bench.name}.a"))
    with pytest.raises(kafka.InvalidTopicError, match="collides") as caught:
        await driver.declare(bench.topic(f"{bench.name}_a"))
    assert meaning(caught.value) is ConfigurationError


async def test_a_mapped_topic_is_left_to_its_operator(bench: Bench, driver: KafkaDriver) -> None:
    mapped = TopicSpec(name="orders", native=bench.name, create=False)
    await driver.declare(mapped)
    (outcome,) = await driver.publish([bench.record(1, name="orders")])
    assert isinstance(outcome, str)
    absent = TopicSpec(name="absent", native=f"{bench.name}.absent", create=False)
    await driver.declare(absent)
    assert await driver._topology.partitions(absent.native) is None


async def test_ping_and_native(driver: KafkaDriver) -> None:
    await driver.ping()
    assert driver.native is driver._publisher.producer
    await driver.aclose()
    await driver.aclose()


def _limit(topic: str, size: int) -> Any:
    from aiokafka.admin.config_resource import (  # type: ignore[import-untyped]
        ConfigResource,
        ConfigResourceType,
    )

    return ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": str(size)})
