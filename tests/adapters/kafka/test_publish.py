"""Publishing and declaring: outcomes, places, limits, what a refused record must not cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.protocol.produce import ProduceRequest  # type: ignore[import-untyped]

from anymq.driver import Outcome, Record, TopicSpec
from anymq.errors import ConfigurationError, MessageTooLarge, NotFound, translate
from anymq_kafka import KafkaDriver, publisher
from anymq_kafka.aio import kafka
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


class Gate:
    """Stops what a driver sends of messages until it is opened; counts it."""

    def __init__(self, driver: KafkaDriver) -> None:
        client: Any = driver.native.client  # type: ignore[union-attr]
        self._send = client.send
        self._came, self._opened = asyncio.Event(), asyncio.Event()
        self.requests = 0
        client.send = self._pass

    async def _pass(self, node: int, request: Any, **options: Any) -> Any:
        if isinstance(request, ProduceRequest):
            self.requests += 1
            self._came.set()
            await self._opened.wait()
        return await self._send(node, request, **options)

    async def shut(self) -> None:
        """Return when the first request has come."""
        await self._came.wait()

    def open(self) -> None:
        self._opened.set()


async def publishing(
    driver: KafkaDriver, calls: Sequence[Sequence[Record]]
) -> list[asyncio.Task[Sequence[Outcome]]]:
    """Begin these calls, each in a turn of the loop of its own."""
    begun: list[asyncio.Task[Sequence[Outcome]]] = []
    for records in calls:
        begun.append(asyncio.create_task(driver.publish(records)))
        await asyncio.sleep(0)
    return begun


async def test_calls_that_wait_share_a_batch(bench: Bench) -> None:
    driver = await bench.open(partitions=2)
    await driver.publish([bench.record()])
    gate = Gate(driver)
    calls = [[bench.record(3 * n + m, key=f"k{m}") for m in range(3)] for n in range(20)]
    first = await publishing(driver, calls[:1])
    await gate.shut()
    rest = await publishing(driver, calls[1:])
    gate.open()
    outcomes = [one for call in await asyncio.gather(*first, *rest) for one in call]
    assert gate.requests == 2
    received = await take(await bench.join(driver), 61)
    assert {item.position: int(item.body) for item in received if item.key} == {
        outcome: number for number, outcome in enumerate(outcomes)
    }
    for key in range(3):
        mine = [int(item.body) for item in received if item.key == f"k{key}"]
        assert mine == sorted(mine)


async def test_a_batch_of_several_calls_that_is_too_large(bench: Bench) -> None:
    driver = await bench.open(partitions=1)
    limit = _limit(bench.name, 20_000)
    await driver._topology.call(lambda admin: admin.alter_configs([limit]))
    gate = Gate(driver)
    first = await publishing(driver, [[bench.record(0)]])
    await gate.shut()
    bodies_of = [[b"x" * 9000, b"1"], [b"y" * 9000, b"2"], [b"z" * 9000]]
    rest = await publishing(driver, [[bench.record(one) for one in some] for some in bodies_of])
    gate.open()
    outcomes = [one for call in await asyncio.gather(*first, *rest) for one in call]
    assert all(isinstance(outcome, str) for outcome in outcomes), outcomes
    found = bodies(await take(await bench.join(driver), 6))
    assert sorted(body[:1] for body in found) == [b"0", b"1", b"2", b"x", b"y", b"z"]


async def test_large_records_have_requests_of_their_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "LARGE", 1000)
    driver = await bench.open()
    await driver.publish([bench.record(0)])
    gate = Gate(driver)
    first = await publishing(driver, [[bench.record(1)]])
    await gate.shut()
    rest = await publishing(driver, [[bench.record(b"x" * 2000, key=f"k{n}")] for n in range(3)])
    gate.open()
    assert all(isinstance(one, str) for (one,) in await asyncio.gather(*first, *rest))
    assert gate.requests == 4


async def test_nothing_is_stored_at_once(driver: KafkaDriver) -> None:
    assert await driver.publish([]) == []


async def test_who_gives_up_a_batch_leaves_it_to_the_others(bench: Bench) -> None:
    driver = await bench.open(partitions=1)
    await driver.publish([bench.record(0)])
    gate = Gate(driver)
    first = await publishing(driver, [[bench.record(1)]])
    await gate.shut()
    (gone, stays) = await publishing(driver, [[bench.record(2)], [bench.record(3)]])
    gone.cancel()
    gate.open()
    (outcome,) = await stays
    await asyncio.gather(*first)
    assert outcome == "0:3"
    assert bodies(await take(await bench.join(driver), 4)) == [b"0", b"1", b"2", b"3"]


async def test_a_topic_that_is_not_there(bench: Bench, driver: KafkaDriver) -> None:
    outcomes = await driver.publish([bench.record(1), bench.record(2, name=f"{bench.name}.no")])
    assert isinstance(outcomes[0], str)
    assert meaning(outcomes[1]) is NotFound


async def test_a_topic_that_vanishes(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(1)])
    await until_gone(driver, bench.name)
    async with asyncio.timeout(8):
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
