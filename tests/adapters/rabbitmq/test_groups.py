"""Groups: how a new one begins, alone, with others at once, and through a crash."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Sequence

import aio_pika
import pytest

from anymq.driver import Reader, Received, Source
from anymq.errors import NotFound, UnsupportedOperation, translate
from anymq.testing.tools import until
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import protocol
from anymq_rabbitmq.groups import backfill
from anymq_rabbitmq.source import QueueSource
from tests.adapters.rabbitmq.support import (
    Bench,
    bodies,
    cut,
    eventually,
    nothing,
    numbers,
    store,
    take,
)

pytestmark = pytest.mark.rabbitmq


async def queue_exists(driver: RabbitMQDriver, name: str) -> bool:
    return await protocol.queue_exists(driver._consuming, name)


async def filled(driver: RabbitMQDriver, queue: str) -> None:
    """Wait until nothing of the filling is left."""

    async def done() -> bool:
        left = [await queue_exists(driver, f"{queue}.{part}") for part in ("_fill", "_seam")]
        return not any(left)

    await eventually(done)


async def drain(sources: Sequence[Source], expected: int) -> Counter[int]:
    """Everything the sources get, acknowledged, until all numbers are there and no more come."""
    got: Counter[int] = Counter()

    async def more() -> bool:
        for source in sources:
            records: Sequence[Received] = await source.receive(1000, 0.05)
            got.update(numbers(records))
            await source.ack(records)
        return len(got) >= expected

    await eventually(more, seconds=60)
    for source in sources:
        got.update(numbers(await source.receive(1000, 0.5)))
    return got


async def test_the_native_names(bench: Bench, driver: RabbitMQDriver) -> None:
    await bench.join(driver)
    assert await queue_exists(driver, f"{bench.name}.billing")
    channel = await driver.native.channel()
    await channel.get_exchange(bench.name)
    await filled(driver, f"{bench.name}.billing")


async def test_a_new_group_gets_the_old_in_order_and_each_once(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    await store(driver, bench.records(2500))
    source = await bench.join(driver, prefetch=5000)
    await store(driver, bench.records(range(2500, 2600)))
    received = await take(source, 2600, seconds=60)
    assert numbers(received) == list(range(2600))
    await filled(driver, f"{bench.name}.billing")
    await nothing(source)


async def test_live_messages_meet_the_old_ones_without_loss_or_repetition(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    await store(driver, bench.records(200))
    count = 200
    going = True

    async def publish() -> None:
        nonlocal count
        while going:
            await store(driver, bench.records(range(count, count + 20)))
            count += 20
            await asyncio.sleep(0.002)

    publishing = asyncio.create_task(publish())
    source = await bench.join(driver, prefetch=5000)
    await filled(driver, f"{bench.name}.billing")
    going = False
    await publishing
    got = await drain([source], count)
    assert got == Counter(range(count))


async def test_messages_without_an_id_meet_the_old_ones_without_loss_or_repetition(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    channel = await driver.native.channel()
    exchange = await channel.get_exchange(bench.name)
    sent: Counter[int] = Counter()
    going = True

    async def publish() -> None:
        while going:  # Three of a kind, of which some may come before the group has a queue.
            message = aio_pika.Message(str(sum(sent.values()) // 3).encode())
            await exchange.publish(message, routing_key="k")
            sent[int(message.body)] += 1

    publishing = asyncio.create_task(publish())
    await until(lambda: len(sent) > 20)
    source = await bench.join(driver, prefetch=5000)
    await filled(driver, f"{bench.name}.billing")
    going = False
    await publishing
    assert await drain([source], len(sent)) == sent


async def test_two_members_at_once_on_a_new_group(bench: Bench) -> None:
    drivers = [await bench.open() for _ in range(2)]
    await store(drivers[0], bench.records(1000))
    sources = await asyncio.gather(*(bench.join(driver) for driver in drivers))
    assert await drain(sources, 1000) == Counter(range(1000))


async def test_members_share_and_groups_do_not(bench: Bench) -> None:
    drivers = [await bench.open() for _ in range(2)]
    sources = [await bench.join(driver, prefetch=10) for driver in drivers]
    other = await bench.join(drivers[0], "audit", prefetch=1000)
    await store(drivers[0], bench.records(100))
    first = numbers(await take(sources[0], 10))
    second = numbers(await take(sources[1], 10))
    assert not set(first) & set(second)
    assert numbers(await take(other, 100)) == list(range(100))


async def test_a_consumer_that_the_server_has_forgotten_is_noticed(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    """A queue that moves may lose its consumers without a word (rabbitmq-server #14675)."""
    source = await bench.join(driver)
    assert isinstance(source, QueueSource)
    assert await source.undelivered() is None
    await source._fetcher.pause()
    await store(driver, bench.records(2))
    await eventually(source.undelivered)
    seen = await source.undelivered()
    assert seen == await source.undelivered()
    await store(driver, bench.records(1))
    await eventually(lambda: _differs(source, seen))
    assert len(await take(source, 3)) == 3
    assert await source.undelivered() is None


async def _differs(source: Reader, seen: object) -> bool:
    return await source.undelivered() != seen


async def test_latest_begins_now(bench: Bench, driver: RabbitMQDriver) -> None:
    await store(driver, bench.records(5))
    source = await bench.join(driver, start="latest")
    await store(driver, [bench.record(5)])
    assert numbers(await take(source, 1)) == [5]
    assert not await queue_exists(driver, f"{bench.name}.billing._fill")


async def test_a_group_that_is_there_is_not_filled_again(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    source = await bench.join(driver)
    await store(driver, bench.records(3))
    await source.ack(await take(source, 3))
    await filled(driver, f"{bench.name}.billing")
    await source.aclose()
    again = await bench.join(driver)
    await nothing(again)


async def test_a_connection_lost_while_filling(bench: Bench, driver: RabbitMQDriver) -> None:
    await store(driver, bench.records(3000))
    other = await bench.open()
    source = await bench.join(other, prefetch=5000)
    cut(other)
    with contextlib.suppress(Exception):
        await source.aclose()
    again = await bench.join(driver, prefetch=5000)
    assert set(await drain([again], 3000)) == set(range(3000))
    await filled(driver, f"{bench.name}.billing")


CHILD = """
import asyncio, sys
from anymq_rabbitmq.groups import backfill
from tests.adapters.rabbitmq.support import Bench

async def slow(self, deliveries, copy=backfill.Backfill.copy):
    for one in deliveries:
        await copy(self, [one])
        print(one.tag, flush=True)

async def main(url, name):
    backfill.Backfill.copy = slow
    bench = Bench(url)
    bench.name = name
    await bench.join(await bench.open())
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_member_killed_while_filling(bench: Bench, driver: RabbitMQDriver) -> None:
    await store(driver, bench.records(2500))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, bench.url, bench.name, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    for _ in range(2000):  # Past a checkpoint, and before the end.
        assert await child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    await child.communicate()
    assert await queue_exists(driver, f"{bench.name}.billing._fill")
    source = await bench.join(driver, prefetch=5000)
    await store(driver, [bench.record(2500)])
    got = await drain([source], 2501)
    assert set(got) == set(range(2501))
    # Only what was copied since the last checkpoint comes again.
    assert sum(got.values()) - len(got) <= backfill.CHECKPOINT_INTERVAL + backfill.MOST_CHECKPOINTS
    await filled(driver, f"{bench.name}.billing")


async def test_what_the_operator_makes_is_not_made(bench: Bench, driver: RabbitMQDriver) -> None:
    topic = bench.topic("mapped", native=f"{bench.name}-x", create=False)
    await driver.declare(topic)
    queue = f"{bench.name}-q"

    async def missing(text: str) -> None:
        with pytest.raises(Exception, match=text) as caught:
            await bench.join(driver, topic=topic, native_group=queue, create=False)
        assert type(translate(caught.value, driver.errors, doing="", where="")) is NotFound

    await missing("no exchange")
    channel = await driver.native.channel()
    exchange = await channel.declare_exchange(
        f"{bench.name}-x", aio_pika.ExchangeType.FANOUT, durable=True
    )
    await missing("no queue")
    made = await channel.declare_queue(queue, durable=True)
    await made.bind(exchange)
    source = await bench.join(driver, topic=topic, native_group=queue, create=False)
    await store(driver, [bench.record(1, name="mapped")])
    assert bodies(await take(source, 1)) == [b"1"]
    for group in ("new", None):
        with pytest.raises(UnsupportedOperation, match="_log"):
            await bench.join(driver, group, topic=topic)
    later = await bench.join(driver, "later", topic=topic, start="latest")
    await store(driver, [bench.record(2, name="mapped")])
    assert bodies(await take(later, 1)) == [b"2"]


async def test_names_that_the_server_reserves(bench: Bench, driver: RabbitMQDriver) -> None:
    name = f"amq.{bench.name}"
    topic = bench.topic(name)
    await driver.declare(topic)
    source = await bench.join(driver, topic=topic)
    await store(driver, [bench.record(1, name=name)])
    assert numbers(await take(source, 1)) == [1]
    assert await queue_exists(driver, f"_{name}.billing")


@pytest.mark.parametrize(("topic_size", "group_size"), [(200, 35), (171, 64)])
async def test_the_longest_names(
    bench: Bench, driver: RabbitMQDriver, topic_size: int, group_size: int
) -> None:
    name = f"{bench.name}.{'x' * 200}"[:topic_size]
    topic = bench.topic(name)
    await driver.declare(topic)
    source = await bench.join(driver, "g" * group_size, topic=topic)
    await store(driver, [bench.record(1, name=name)])
    (received,) = await take(source, 1)
    await source.nack([bench.nack(received, 0.1)])
    assert numbers(await take(source, 1)) == [1]
    letters = bench.topic(f"{name}.{'g' * group_size}.dlq")
    await driver.declare(letters)
    reader = await bench.join(driver, None, topic=letters)
    await store(driver, [bench.record(2, name=letters.name)])
    assert numbers(await take(reader, 1)) == [2]
