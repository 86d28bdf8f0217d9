"""Delayed publishes: on time, in order, for everyone, and through crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence

import aio_pika
import pytest
import pytest_asyncio

from anymq.driver import Reader, Record, Source
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.delays import HEADER, LONGEST_HOLD, PREFIX, QUEUE, Destination, pattern
from anymq_rabbitmq.groups import schema
from anymq_rabbitmq.publisher import Outgoing
from brokers import Server
from tests.adapters.rabbitmq.support import (
    Bench,
    bench_on,
    eventually,
    nothing,
    numbers,
    store,
    take,
)

pytestmark = pytest.mark.rabbitmq


@pytest_asyncio.fixture
async def source(bench: Bench, driver: RabbitMQDriver) -> AsyncIterator[Source]:
    yield await bench.join(driver, prefetch=1000)


async def test_on_time_for_every_group_and_reader(
    bench: Bench, driver: RabbitMQDriver, source: Reader
) -> None:
    reader = await bench.join(driver, None)
    await driver._delayed.prepare()
    started = time.time()
    delays = [2.3, 0.1, 0.0, 0.75, 0.4, 1.2, -5.0]
    await store(
        driver, [bench.record(i, deliver_at=started + delay) for i, delay in enumerate(delays)]
    )
    late = await bench.join(driver, "later")
    for wanted in (source, reader, late):
        assert set(numbers(await take(wanted, 2))) == {2, 6}
    for number in (1, 4, 3, 5, 0):  # Late by some milliseconds; by seconds on a loaded machine.
        (received,) = await take(source, 1)
        assert numbers([received]) == [number]
        assert 0 <= time.time() - started - delays[number] < 10
        assert received.time is not None
        assert received.time >= started + delays[number] - 0.001
        assert HEADER not in received.headers
    assert numbers(await take(reader, 5)) == [1, 4, 3, 5, 0]
    assert set(numbers(await take(late, 5))) == {1, 4, 3, 5, 0}
    await nothing(source, 0.2)


async def arrive_early(driver: RabbitMQDriver, records: Sequence[Record]) -> None:
    """Put records where the ladder leads."""
    await driver._delayed.prepare()
    carried = [
        driver._delayed.outgoing(
            one,
            Destination(one.deliver_at or 0, number, one.topic, "k", f"{one.topic}._log"),
        )
        for number, one in enumerate(records)
    ]
    await driver._publisher.publish_all(
        [Outgoing("", QUEUE, one.properties, one.body) for one in carried]
    )


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_the_order_of_due_times(faulty: Server) -> None:
    """Alone on its server: where other processes come and go, what they held comes later."""
    async with bench_on(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver, prefetch=1000)
        at = time.time() + 4.0  # Later than all of them are stored, on a slow machine too.
        different = [bench.record(i, deliver_at=at + i * 0.003) for i in range(200)]
        await arrive_early(driver, different[::-1])
        await arrive_early(driver, bench.records(range(200, 300), deliver_at=at + 1.0))
        assert numbers(await take(source, 300)) == list(range(300))


async def test_live_messages_pass_thousands_of_delayed_ones(
    bench: Bench, driver: RabbitMQDriver, source: Reader
) -> None:
    later = time.time() + 3600
    for _ in range(6):
        await store(driver, bench.records(500, deliver_at=later))
    started = time.monotonic()
    await store(driver, [bench.record(1), bench.record(2, deliver_at=time.time() + 0.2)])
    assert numbers(await take(source, 2)) == [1, 2]
    assert time.monotonic() - started < 10


async def test_a_member_that_holds_due_messages_dies(bench: Bench, driver: RabbitMQDriver) -> None:
    other = await bench.open()
    source = await bench.join(other)
    await driver._delayed.prepare()
    await store(driver, bench.records(50, deliver_at=time.time() + 0.3))
    driver._consuming.abort()
    driver._publishing.abort()
    assert set(numbers(await take(source, 50))) == set(range(50))


CHILD = """
import asyncio, sys, time
from tests.adapters.rabbitmq.support import Bench, store

async def main(url, name):
    bench = Bench(url)
    bench.name = name
    driver = await bench.open(settle_time=1.5)
    await store(driver, bench.records(5, deliver_at=time.time() + 1.0))
    print("confirmed", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_publisher_killed_after_the_confirmation(
    bench: Bench, driver: RabbitMQDriver, source: Reader
) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, bench.url, bench.name, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    await child.communicate()
    assert numbers(await take(source, 5)) == list(range(5))


async def test_what_is_too_early_waits_once_more(
    bench: Bench, driver: RabbitMQDriver, source: Reader
) -> None:
    at = time.time() + LONGEST_HOLD + 0.5
    await arrive_early(driver, [bench.record(1, deliver_at=at)])
    assert numbers(await take(source, 1)) == [1]
    assert 0 <= time.time() - at < 10


async def test_what_nobody_wants_holds_nothing_up(
    bench: Bench, driver: RabbitMQDriver, source: Reader
) -> None:
    gone = bench.topic(f"{bench.name}.gone")
    await driver.declare(gone)
    at = time.time() + 0.5
    await store(driver, bench.records(100, name=gone.name, deliver_at=at))
    await store(driver, bench.records(5, deliver_at=at + 0.2))
    channel = await driver.native.channel()
    await channel.exchange_delete(gone.name)
    await channel.queue_delete(f"{gone.name}._log")
    await channel.default_exchange.publish(aio_pika.Message(b"junk"), routing_key=QUEUE)
    assert sorted(numbers(await take(source, 5))) == list(range(5))
    assert time.time() - at < 10


async def test_a_topic_that_is_there_is_not_gone(bench: Bench, driver: RabbitMQDriver) -> None:
    reader = await bench.join(driver, None)
    await store(driver, [bench.record(1, deliver_at=time.time() + 1.0)])
    log = schema.log_of(bench.name)
    await unbind(driver, log, bench.name, schema.EVERYTHING)
    assert numbers(await take(reader, 1)) == [1]


async def unbind(driver: RabbitMQDriver, queue: str, exchange: str, key: str) -> None:
    async with driver._consuming.request_channel() as channel:
        await driver._consuming.call(channel.queue_unbind(queue, exchange, key))


async def test_who_is_closed_while_joining_takes_no_part(bench: Bench) -> None:
    driver = await bench.open()
    taking_part = asyncio.create_task(driver._delayed.take_part())
    await asyncio.sleep(0)
    await driver._delayed.aclose()
    await taking_part
    assert driver._delayed._task is None


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_nothing_is_lost_or_early_when_the_server_is_killed(faulty: Server) -> None:
    async with bench_on(faulty.url) as bench:
        driver = await bench.open(settle_time=1.5)
        source = await bench.join(driver)
        reader = await bench.join(driver, None)
        await unbind(driver, QUEUE, PREFIX, pattern(QUEUE))
        await driver._delayed.prepare()
        started = time.time()
        delays = [0.2 * i for i in range(60)]
        await store(driver, [bench.record(i, deliver_at=started + d) for i, d in enumerate(delays)])
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)
        got: dict[int, float] = {}
        seen: set[int] = set()

        async def member() -> bool:
            nonlocal source
            try:
                for number in numbers(await source.receive(100, 0.1)):
                    got.setdefault(number, time.time() - started - delays[number])
            except Exception:
                with contextlib.suppress(Exception):
                    source = await bench.join(driver)
            with contextlib.suppress(Exception):
                seen.update(numbers(await reader.receive(100, 0.1)))
            return len(got) == len(seen) == len(delays)

        await eventually(member, seconds=60)
        assert min(got.values()) >= 0


async def test_nobody_reaches_what_is_no_topic_through_the_queue_of_what_is_due(
    bench: Bench, driver: RabbitMQDriver, source: Reader
) -> None:
    """Another program writes to it; what it wants to have published elsewhere is set aside."""
    await store(driver, [bench.record(0, deliver_at=time.time() + 0.2)])
    assert numbers(await take(source, 1)) == [0]
    channel = await driver.native.channel()
    secret = f"{bench.name}._secret"
    exchange = await channel.declare_exchange(secret, "fanout", auto_delete=True)
    hidden = await channel.declare_queue(exclusive=True)
    await hidden.bind(exchange)
    plain = await channel.declare_queue(f"{bench.name}._plain", exclusive=True)
    other = f"{bench.name}.other"
    await driver.declare(bench.topic(other))
    log = schema.log_of(bench.name)
    forged = [
        [0.0, 1, secret, "k", None],
        [0.0, 1, "", plain.name, None],
        [float("inf"), 1, bench.name, "k", log],
        [0.0, 1, f"{other}.gone", "k", schema.log_of(other)],
        [0.0, 1, "", "", None],
        "nested",
    ]
    for to in [*forged, [0.0, 1, bench.name, "k", log]]:
        message = aio_pika.Message(b"1", message_id="i", headers={HEADER: json.dumps(to)})
        message.headers |= {"cloudEvents:id": "i", "cloudEvents:source": "/forger"}
        await channel.default_exchange.publish(message, routing_key=QUEUE)
    assert numbers(await take(source, 1)) == [1]
    await nothing(source)
    for queue in (hidden, plain):
        assert await queue.get(fail=False) is None
