"""Ordered groups: one owner a partition, and the order over whatever happens to members."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import Any, cast

import pytest

from anymq.driver import Listener, Nack, OrderedSource, Received, SourceLost
from anymq.errors import ConfigurationError, TransientError, UnsupportedOperation
from anymq.testing.samples import join_ordered
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import protocol
from brokers import Server
from tests.adapters.rabbitmq.support import (
    Bench,
    attempt,
    bench_on,
    cut,
    eventually,
    nothing,
    numbers,
    store,
    take,
)

pytestmark = pytest.mark.rabbitmq

KEYS = 16


def keep(bench: Bench, received: Received) -> Nack:
    return bench.nack(received)


class Group(Listener):
    """Members of one group, and the order in which they got what came for the first time."""

    def __init__(self, bench: Bench, partitions: int) -> None:
        self.bench = bench
        self.topic = bench.topic(partitions=partitions)
        self.sources: list[Any] = []
        self.first: dict[int, list[int]] = {}
        self.seen: set[int] = set()
        self.read_by: list[int] = []
        self.revoked: list[bool] = []

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        self.revoked.append(gone)

    async def join(self, driver: RabbitMQDriver, **values: Any) -> OrderedSource:
        spec = self.bench.spec(topic=self.topic, ordered=True, **values)
        source = await join_ordered(driver, spec, self)
        self.sources.append(source)
        return source

    def note(self, received: Sequence[Received]) -> None:
        for number in numbers(received):
            if number not in self.seen:
                self.seen.add(number)
                self.first.setdefault(number % KEYS, []).append(number)

    async def read(self, count: int, *, seconds: float = 90) -> None:
        """Read, in turn, acknowledging, until there are `count` messages."""

        async def more() -> bool:
            for index, source in enumerate(list(self.sources)):
                with contextlib.suppress(SourceLost):
                    received = await source.receive(40, 0.02)
                    self.note(received)
                    self.read_by += [index] * len(received)
                    await source.ack(received)
            return len(self.seen) >= count

        await eventually(more, seconds=seconds)

    def check(self, count: int) -> None:
        assert self.seen == set(range(count))
        for key, got in self.first.items():
            assert got == sorted(got), key


async def opened(bench: Bench, partitions: int) -> RabbitMQDriver:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=partitions))
    return driver


def keyed(bench: Bench, span: range) -> Any:
    return [bench.record(i, key=f"k{i % KEYS}") for i in span]


@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_new_group_gets_old_and_new_in_order(bench: Bench, partitions: int) -> None:
    driver = await opened(bench, partitions)
    reader = Group(bench, partitions)
    await store(driver, keyed(bench, range(600)))
    going = True
    count = 600

    async def publish() -> None:
        nonlocal count
        while going:
            await store(driver, keyed(bench, range(count, count + 20)))
            count += 20
            await asyncio.sleep(0.005)

    publishing = asyncio.create_task(publish())
    await reader.join(driver)
    await reader.join(driver)
    await reader.read(900)
    going = False
    await publishing
    await reader.read(count)
    reader.check(count)
    assert len(reader.read_by) == count
    for source in reader.sources:
        await nothing(source, 0.3)
    assert not await protocol.queue_exists(driver._consuming, f"{bench.name}.billing._h0")
    assert not await protocol.queue_exists(driver._consuming, f"{bench.name}.billing._fill")


async def test_partitions_spread_and_are_handed_over(bench: Bench) -> None:
    driver = await opened(bench, 8)
    reader = Group(bench, 8)
    await reader.join(driver, start="latest")
    await store(driver, keyed(bench, range(100)))
    held = await take(reader.sources[0], 30)
    reader.note(held)
    for _ in range(3):
        await reader.join(driver)
    await store(driver, keyed(bench, range(100, 200)))
    await reader.sources[0].ack(held)
    await reader.read(200)
    await store(driver, keyed(bench, range(200, 400)))
    await reader.read(400)
    reader.check(400)
    assert len(set(reader.read_by)) >= 2  # By a hash: one of them may have none.
    for source in reader.sources[1:]:
        await source.aclose()
    del reader.sources[1:]
    await store(driver, keyed(bench, range(400, 500)))
    await reader.read(500)
    reader.check(500)
    assert reader.revoked == []


async def test_a_partition_whose_consumer_the_server_has_forgotten_is_noticed(bench: Bench) -> None:
    driver = await opened(bench, 2)
    reader = Group(bench, 2)
    members = [await reader.join(driver, start="latest"), await reader.join(driver)]
    consumers = [each for one in members for each in one._partitions]  # type: ignore[attr-defined]
    await consumers[0].fetcher.pause()
    await store(driver, keyed(bench, range(20)))
    assert await members[0].undelivered() is None, "it is the other one's"
    await reader.read(20)
    for consumer in consumers:
        await consumer.fetcher.pause()
    await store(driver, keyed(bench, range(20, 40)))

    async def both_say_so() -> bool:
        found = [cast("list[Any]", await member.undelivered() or []) for member in members]
        return sorted(found[0]) == sorted(found[1]) and len(found[0]) == 2

    await eventually(both_say_so)


async def test_a_history_that_has_been_read_is_not_waited_for(bench: Bench) -> None:
    """A server that is killed while it deletes a queue has its name again, and nothing behind it:
    to consume that is answered never."""
    driver = await opened(bench, 2)
    await store(driver, keyed(bench, range(40)))
    reader = Group(bench, 2)
    group = driver._topics.group(reader.topic, f"{bench.name}.billing", ordered=True, create=True)
    await reader.join(driver)
    await reader.read(40)

    async def is_read() -> bool:
        await reader.sources[0].receive(10, 0.1)
        left = [await protocol.queue_exists(driver._consuming, queue) for queue in group.histories]
        return not any(left)

    await eventually(is_read)
    await reader.sources.pop().aclose()
    for queue in group.histories:  # Nothing will ever come of these.
        await protocol.ensure_queue(driver._consuming, queue, group.arguments())
    await reader.join(driver)
    await store(driver, keyed(bench, range(40, 60)))
    await reader.read(60)
    reader.check(60)
    await reader.sources.pop().aclose()
    await driver.delete_group(reader.topic, f"{bench.name}.billing")
    for queue in group.histories:  # As if that had been cut short.
        await driver._members.attempts_of(group).end_history(queue)
    again = Group(bench, 2)
    await again.join(driver)
    await again.read(60)
    again.check(60)


async def test_leaving_gives_back_in_order_and_uncounted(bench: Bench) -> None:
    driver = await opened(bench, 1)
    reader = Group(bench, 1)
    first = await reader.join(driver, start="latest")
    await store(driver, keyed(bench, range(30)))
    held = await take(first, 10)
    await first.ack([held[3], held[0]])
    await first.keep([keep(bench, held[1])])
    second = await reader.join(driver)
    await first.aclose()
    received = await take(second, 28)
    assert numbers(received) == [1, 2, *range(4, 30)]
    assert [attempt(one) for one in received] == [2] + [1] * 27


async def test_attempts_survive_a_crash_without_a_change_of_order(bench: Bench) -> None:
    driver = await opened(bench, 1)
    other = await opened(bench, 1)
    reader = Group(bench, 1)
    source = await reader.join(other, start="latest")
    await store(driver, keyed(bench, range(10)))
    held = await take(source, 10)
    await source.keep([keep(bench, held[2]), keep(bench, held[5])])
    again = bench.nack(held[2])
    again.attempt = 3
    await source.keep([again])
    await source.ack([held[0]])
    await other.ping()
    cut(other)
    with pytest.raises(SourceLost):
        await source.receive(10, 1)
    assert reader.revoked == [True]
    await source.keep([keep(bench, held[3])])
    await source.ack(held)
    second = await reader.join(driver)
    received = await take(second, 9)
    assert numbers(received) == list(range(1, 10))
    shown = {int(one.body): attempt(one) for one in received}
    assert (shown[2], shown[5]) == (3, 2)
    await second.ack(received[1:])
    await store(driver, [bench.record(10, id=held[2].headers["cloudEvents:id"])])
    (again_published,) = await take(second, 1)
    assert attempt(again_published) == 1


CHILD = """
import asyncio, sys
from tests.adapters.rabbitmq.support import Bench

async def main(url, name):
    bench = Bench(url)
    bench.name = name
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic())
    source = await bench.join(driver, topic=bench.topic(), ordered=True)
    print("joined", flush=True)
    while True:
        received = await source.receive(20, 1)
        if received:
            print(*(one.body.decode() for one in received), flush=True)
            await source.ack(received[: len(received) // 2])

asyncio.run(main(*sys.argv[1:]))
"""


async def test_members_that_are_killed(bench: Bench) -> None:
    driver = await opened(bench, 4)
    reader = Group(bench, 4)
    await reader.join(driver, start="latest")
    await reader.join(driver)
    total = 0
    for _ in range(3):
        child = await asyncio.create_subprocess_exec(
            sys.executable, *("-c", CHILD, bench.url, bench.name), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"joined\n"
        for _ in range(10):
            await store(driver, keyed(bench, range(total, total + 50)))
            total += 50
            await reader.read(0)
        child.send_signal(signal.SIGKILL)
        printed, _ = await child.communicate()
        # What it had was handed out before whatever comes now.
        reader.seen.update(map(int, printed.split()))
        await reader.read(total)
        for key, got in reader.first.items():
            assert got == sorted(got), key
    assert reader.seen == set(range(total))


async def test_a_group_stays_in_its_mode(bench: Bench) -> None:
    driver = await opened(bench, 3)
    topic = bench.topic()
    await bench.join(driver, "one", topic=topic, ordered=True)
    with pytest.raises(ConfigurationError, match="is ordered"):
        await bench.join(driver, "one", topic=topic)
    await bench.join(driver, "two", topic=topic)
    with pytest.raises(ConfigurationError, match="is not ordered"):
        await bench.join(driver, "two", topic=topic, ordered=True)
    assert not await protocol.queue_exists(driver._consuming, f"{bench.name}.two._p1")
    with pytest.raises(UnsupportedOperation):
        await bench.join(driver, "three", topic=topic, create=False, ordered=True)


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_the_order_through_a_killed_server(faulty: Server) -> None:
    async with bench_on(faulty.url) as bench:
        driver = await bench.open(declare=False, settle_time=1.5)
        await driver.declare(bench.topic(partitions=4))
        reader = Group(bench, 4)
        for _ in range(2):
            await reader.join(driver)
        await store(driver, keyed(bench, range(200)))
        await reader.read(60)
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)
        reader.sources.clear()

        async def joined() -> bool:
            with contextlib.suppress(TransientError):  # queues that are just coming up
                await reader.join(driver)
            return len(reader.sources) == 2

        await eventually(joined, seconds=90)
        await store(driver, keyed(bench, range(200, 300)))
        await reader.read(300)
        reader.check(300)


async def test_every_wait_ends(bench: Bench) -> None:
    driver = await opened(bench, 2)
    source = await bench.join(driver, topic=bench.topic(partitions=2), ordered=True)
    async with asyncio.timeout(60):
        for _ in range(1000):
            assert not await source.receive(10, 0.001)
