"""Groups at the level of the source: places, acks and what is committed of them, rebalances."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anymq import Subscription, Topic, connect
from anymq.driver import Reader, Received, SourceLost
from anymq.driver.offsets import decode
from anymq_kafka import KafkaDriver
from anymq_kafka.broadcast import BroadcastReader
from anymq_kafka.client.compat import TopicPartition, kafka
from anymq_kafka.source import GroupSource
from tests.adapters.kafka.support import (
    Bench,
    crash,
    nothing,
    numbers,
    own_tasks,
    until_committed,
    until_gone,
)
from tests.adapters.support import bodies, eventually, take

pytestmark = pytest.mark.kafka


async def test_the_place_is_stored_before_subscribe_returns(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(30))
    await bench.join(driver, "early", start="earliest")
    await bench.join(driver, "late", start="latest")
    early = await bench.committed("early")
    late = await bench.committed("late")
    assert [early[TopicPartition(bench.name, n)].offset for n in range(3)] == [0, 0, 0]
    assert sum(late[TopicPartition(bench.name, n)].offset for n in range(3)) == 30


async def test_what_is_published_after_subscribe_survives_the_member(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(5))
    await crash(await bench.join(driver, start="latest"))
    await driver.publish(bench.records(8))
    assert numbers(await take(await bench.join(driver, start="latest"), 8)) == list(range(8))


async def test_members_that_make_the_group_at_once(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(20))
    sources = await asyncio.gather(*(bench.join(driver, start="latest") for _ in range(3)))
    await driver.publish(bench.records(60))
    received: list[Received] = []

    async def all_there() -> bool:
        for source in sources:
            received.extend(await source.receive(100, 0.1))
        return len(received) >= 60

    await eventually(all_there)
    assert numbers(received) == list(range(60))


async def test_acks_in_any_order_survive_a_crash(bench: Bench) -> None:
    driver = await bench.open(partitions=1)
    await driver.publish(bench.records(100))
    first = await bench.join(driver)
    received = await take(first, 100)
    await first.ack([item for item in received if int(item.body) % 3])
    await until_committed(first)
    place = (await bench.committed(partitions=1))[TopicPartition(bench.name, 0)]
    assert place.offset == 0
    assert decode(0, place.metadata)[:2] == [(1, 3), (4, 6)]
    await crash(first)
    second = await bench.join(driver)
    again = await take(second, 34)
    assert numbers(again) == list(range(0, 100, 3))
    assert await nothing(second)
    await second.ack(again)
    await second.aclose()
    place = (await bench.committed(partitions=1))[TopicPartition(bench.name, 0)]
    assert (place.offset, place.metadata) == (100, "")


async def test_what_another_tool_wrote_as_metadata_is_no_obstacle(bench: Bench) -> None:
    driver = await bench.open(partitions=1)
    await driver.publish(bench.records(4))
    tp = TopicPartition(bench.name, 0)
    async with bench.consumer(group_id=f"{bench.name}.billing") as foreign:
        foreign.assign([tp])
        await foreign.commit({tp: (1, "anymq1:what is this?")})
    assert numbers(await take(await bench.join(driver), 3)) == [1, 2, 3]


async def test_released_records_come_back_to_whoever_has_the_partition(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(10))
    first = await bench.join(driver)
    received = await take(first, 10)
    await first.release([bench.nack(item, counted=False) for item in received[:4]])
    again = await take(first, 4)
    assert numbers(again) == numbers(received[:4])
    assert all("anymq-attempt" not in item.headers for item in again)
    await first.ack(received[4:])
    await first.release([bench.nack(item, counted=False) for item in again])
    await first.aclose()
    assert numbers(await take(await bench.join(driver), 4)) == numbers(again)


async def test_settling_twice_or_too_late_changes_nothing(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(6))
    first = await bench.join(driver)
    received = await take(first, 6)
    await first.ack(received[:3])
    await first.ack(received[:3])
    await until_committed(first)
    await crash(first)
    second = await bench.join(driver)
    again = await take(second, 3)
    await first.ack(received[3:])
    await first.nack([bench.nack(item) for item in received[3:]])
    await first.release([bench.nack(item, counted=False) for item in received[3:]])
    assert await nothing(second, 0.5)
    await second.nack([bench.nack(item) for item in again])
    assert numbers(await take(second, 3)) == numbers(received[3:])
    assert await nothing(second, 0.5)


async def test_a_partition_in_use_does_not_move(bench: Bench) -> None:
    """Not even when another member comes, until its messages are settled."""
    driver = await bench.open(partitions=2)
    await bench.place(100, 101)
    first = await bench.join(driver)
    held = await take(first, 2)
    second = await bench.join(driver)
    await driver.publish([bench.record(n, key=str(n)) for n in range(40)])
    received = await _share(first, second, until=40)
    assert received[1] == [], "both partitions are in use by the first"
    assert len(received[0]) < 40, "of which one is read no further"
    await first.ack(held)
    more = await _share(first, second, until=40 - len(received[0]))
    assert more[1], "one of them has moved"
    assert numbers(received[0] + more[0] + more[1]) == list(range(40)), "and nothing twice"


async def test_what_stays_in_use_for_too_long_is_repeated(bench: Bench) -> None:
    driver = await bench.open(partitions=2, handover=0.5)
    await bench.place(0, 1)
    first = await bench.join(driver)
    held = await take(first, 2)
    second = await bench.join(driver)
    (moved,) = (await _share(first, second, until=1))[1]
    await first.ack(held)
    await first.aclose()
    await second.ack([moved])
    assert await nothing(second)


async def test_work_goes_on_over_a_rebalance(bench: Bench, driver: KafkaDriver) -> None:
    """Nothing is repeated and nothing lost while members come and go."""
    await driver.publish(bench.records(300))
    first = await bench.join(driver)
    done: list[Received] = []

    async def work(source: Any) -> None:
        while True:
            batch = await source.receive(5, 0.2)
            await asyncio.sleep(0.01)
            done.extend(batch)
            await source.ack(batch)

    workers = [asyncio.create_task(work(first))]
    for _ in range(3):
        other = await bench.join(driver)
        worker = asyncio.create_task(work(other))
        await asyncio.sleep(0.3)
        worker.cancel()
        await asyncio.wait((worker,))
        await other.aclose()

    async def all_done() -> bool:
        return len({item.body for item in done}) == 300

    await eventually(all_done)
    for task in workers:
        task.cancel()
    await asyncio.wait(workers)
    # A cancelled worker may have taken what it did not note down; no more than one batch each.
    assert len(done) <= 300 + 3 * 5


async def test_a_member_without_partitions_takes_over(bench: Bench) -> None:
    """aiokafka #1187: such a member must not have forgotten how to join."""
    driver = await bench.open(partitions=1)
    first = await bench.join(driver)
    second = await bench.join(driver)
    assert await nothing(second, 0.5)
    await second.receive(0, 0)
    await first.aclose()
    await driver.publish(bench.records(3))
    assert numbers(await take(second, 3)) == [0, 1, 2]


async def test_partitions_added_later_are_read_from_their_beginning(bench: Bench) -> None:
    driver = await bench.open(partitions=1, metadata_max_age=0.5)
    source = await bench.join(driver, start="latest")
    other = await bench.join(driver, None, start="latest")
    await _add_partitions(driver, bench.name, 3)

    async def published() -> bool:
        async with bench.producer() as foreign:
            places = [await foreign.send_and_wait(bench.name, b"%d" % n, partition=2) for n in (1,)]
        return bool(places)

    await eventually(published)
    assert bodies(await take(source, 1)) == [b"1"]
    assert bodies(await take(other, 1)) == [b"1"]


async def test_a_topic_made_anew_is_read_from_its_beginning(bench: Bench) -> None:
    driver = await bench.open(partitions=1, stall_timeout=0.5, metadata_max_age=0.5)
    await driver.publish(bench.records(20))
    source = await bench.join(driver)
    await source.ack(await take(source, 20))
    await until_gone(driver, bench.name)
    await driver.declare(bench.topic())
    await driver.publish(bench.records(3))
    try:
        received = await take(source, 3)
    except SourceLost:
        # Noticed while it was not there: the core opens another.
        received = await take(await bench.join(driver), 3)
    assert numbers(received) == [0, 1, 2]


async def test_reading_too_far_ahead_is_paused(bench: Bench) -> None:
    driver = await bench.open(partitions=1, max_uncommitted=50)
    await driver.publish(bench.records(200))
    source = await bench.join(driver)
    first, *rest = await take(source, 50)
    await source.ack(rest)
    assert await nothing(source, 0.5), "the first holds everything up"
    await source.ack([first])
    assert len(await take(source, 50)) == 50


async def test_a_source_whose_consumer_has_died_says_so(bench: Bench, driver: KafkaDriver) -> None:
    """aiokafka #983: its reading task may end, silently."""
    source = await bench.join(driver)
    assert isinstance(source, GroupSource)
    fetcher = source._member.consumer._fetcher
    assert fetcher is not None
    fetcher._fetch_task.cancel()
    await asyncio.wait((fetcher._fetch_task,))
    with pytest.raises(SourceLost):
        await source.receive(1, 0.1)


def source_of(deliveries: Subscription) -> Reader:
    """Return the source that the subscription reads from now."""
    settler = deliveries._fetcher.settler
    assert settler is not None
    source: Reader = settler.source
    return source


async def test_a_consumer_that_stalls_although_messages_wait_is_replaced(bench: Bench) -> None:
    """aiokafka #625, #847: it may just stop."""
    url, topic = f"{bench.url}?stall_timeout=0.3", Topic(bench.name, partitions=1)
    async with connect(url) as broker, broker.subscribe(topic, group="g") as deliveries:
        source = source_of(deliveries)
        assert isinstance(source, GroupSource)
        await asyncio.sleep(1.0)
        assert source_of(deliveries) is source, "idle is not stalled"
        source._member.consumer.pause(TopicPartition(bench.name, 0))
        await broker.publish(topic, "after")
        async with asyncio.timeout(30):
            delivery = await anext(deliveries)
        assert delivery.message.body == b"after"
        await delivery.ack()
        assert source_of(deliveries) is not source


async def test_a_broadcast_consumer_that_stalls_is_replaced(bench: Bench) -> None:
    url, topic = f"{bench.url}?stall_timeout=0.3", Topic(bench.name, partitions=1)
    async with connect(url) as broker, broker.subscribe(topic, group=None) as deliveries:
        reader = source_of(deliveries)
        assert isinstance(reader, BroadcastReader)
        reader._consumer.pause(TopicPartition(bench.name, 0))
        await broker.publish(topic, "after")
        async with asyncio.timeout(30):
            assert (await anext(deliveries)).message.body == b"after"
        assert source_of(deliveries) is not reader


async def test_without_the_right_to_create_the_retry_topics_must_be_there(
    bench: Bench, driver: KafkaDriver
) -> None:
    with pytest.raises(kafka.UnknownTopicOrPartitionError, match="_retry"):
        await bench.join(driver, "strict", create=False)
    await (await bench.join(driver, "strict")).aclose()
    source = await bench.join(driver, "strict", create=False)
    await driver.publish(bench.records(1))
    assert len(await take(source, 1)) == 1


async def test_nothing_is_left_running(bench: Bench) -> None:
    before = own_tasks()
    driver = await bench.open()
    source, other = await bench.join(driver), await bench.join(driver, None)
    await driver.publish(bench.records(3))
    await take(source, 3)
    for _ in range(2):
        await source.aclose()
        await other.aclose()
        await driver.aclose()
    await eventually(lambda: _ended(before))


async def _ended(before: set[asyncio.Task[object]]) -> bool:
    return own_tasks() <= before


async def _share(first: Any, second: Any, *, until: int) -> tuple[list[Received], ...]:
    """Let both receive and ack until `until` have come in all, or nothing comes any more."""
    shares: tuple[list[Received], list[Received]] = ([], [])
    idle = 0
    while sum(map(len, shares)) < until and idle < 12:
        batches = await asyncio.gather(first.receive(5, 0.2), second.receive(5, 0.2))
        idle = 0 if any(batches) else idle + 1
        for share, source, batch in zip(shares, (first, second), batches, strict=True):
            share.extend(batch)
            await source.ack(batch)
    return shares


async def _add_partitions(driver: KafkaDriver, topic: str, count: int) -> None:
    from aiokafka.admin import NewPartitions  # type: ignore[import-untyped]

    await driver._topology.call(
        lambda admin: admin.create_partitions({topic: NewPartitions(count)})
    )


async def test_a_source_is_replaced_after_partitions_were_added(bench: Bench) -> None:
    """A topic has more partitions than its `Topic` says then, and is consumed all the same."""
    topic = Topic(bench.name, partitions=2)
    async with connect(bench.url) as broker, broker.subscribe(topic, group="g") as deliveries:
        await broker.publish(topic, "before")
        async with asyncio.timeout(30):
            await (await anext(deliveries)).ack()
        assert isinstance(broker.driver, KafkaDriver)
        await _add_partitions(broker.driver, bench.name, 4)
        source = source_of(deliveries)
        assert isinstance(source, GroupSource)
        fetcher = source._member.consumer._fetcher
        assert fetcher is not None
        fetcher._fetch_task.cancel()
        await broker.publish_many(topic, [str(n) for n in range(20)], key=lambda body: body)
        got: set[bytes] = set()
        async with asyncio.timeout(60):
            while len(got) < 20:
                delivery = await anext(deliveries)
                got.add(delivery.message.body)
                await delivery.ack()
        assert source_of(deliveries) is not source


async def test_markers_of_transactions_are_no_lag(bench: Bench, driver: KafkaDriver) -> None:
    """The last offset of the log is a marker then, and nothing can be read or acked there."""
    await driver.declare(bench.topic())
    source = await bench.join(driver)
    async with bench.producer(transactional_id=f"{bench.name}.t") as producer:
        for end in (producer.commit_transaction, producer.abort_transaction):
            await producer.begin_transaction()
            await producer.send(bench.name, b"1", partition=0)
            await end()
    await source.ack(await take(source, 1))

    async def read_to_its_end() -> bool:
        assert not await source.receive(10, 0.1)
        info = await driver.describe_group(bench.topic(), f"{bench.name}.billing")
        return info.lag == 0

    await eventually(read_to_its_end)


async def test_what_retention_takes_before_it_was_read_is_said(
    bench: Bench, driver: KafkaDriver, caplog: pytest.LogCaptureFixture
) -> None:
    await driver.declare(bench.topic())
    await (await bench.join(driver)).aclose()
    async with bench.producer() as producer:
        for number in range(10):
            await producer.send_and_wait(bench.name, b"%d" % number, partition=1)
    await driver._topology.trim({TopicPartition(bench.name, 1): 7})
    source = await bench.join(driver)
    assert numbers(await take(source, 3)) == [7, 8, 9]
    said = "in partition 1 the offsets 0 to 6, 7 at most"

    async def was_said() -> bool:
        return sum(said in line for line in caplog.messages) == 1

    await eventually(was_said)
