"""Ordered groups: their mode, order over joins, leaves and crashes, and trimming."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from anymq.driver import OrderedSource, Received, Start
from anymq.errors import ConfigurationError, NotFound
from anymq.testing.samples import join_ordered
from anymq_redis import RedisDriver
from anymq_redis.scripts.keys import topic_keys
from brokers import Server
from tests.adapters.redis.support import Bench, Proxy, groups
from tests.adapters.support import attempt, bodies, eventually, nothing, take, take_through

pytestmark = pytest.mark.redis


async def join(
    bench: Bench,
    driver: RedisDriver,
    group: str = "billing",
    *,
    start: Start = "earliest",
    lease: float = 30.0,
    create: bool = True,
) -> OrderedSource:
    spec = replace(bench.spec(group, start=start, lease=lease, create=create), ordered=True)
    source = await join_ordered(driver, spec)
    bench._sources.append(source)
    return source


async def partitioned(bench: Bench, count: int) -> RedisDriver:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=count))
    return driver


def in_order(got: Sequence[Received], modulus: int) -> bool:
    """Whether the first deliveries of each key came in the order of their numbers."""
    by_key: dict[int, list[int]] = defaultdict(list)
    for item in got:
        number = int(item.body)
        if number not in by_key[number % modulus]:
            by_key[number % modulus].append(number)
    return all(numbers == sorted(numbers) for numbers in by_key.values())


async def test_a_group_is_ordered_or_not(bench: Bench, driver: RedisDriver) -> None:
    await bench.join(driver, "plain")
    with pytest.raises(ConfigurationError, match="is unordered"):
        await join(bench, driver, "plain")
    await join(bench, driver, "ordered")
    with pytest.raises(ConfigurationError, match="is ordered"):
        await bench.join(driver, "ordered")
    assert await groups(bench, driver) == ["ordered", "plain"]
    with pytest.raises(NotFound):
        await join(bench, driver, "missing", create=False)


async def test_a_new_ordered_group_begins_where_it_should(
    bench: Bench, driver: RedisDriver
) -> None:
    first, second = await driver.publish(bench.records(2))
    for start, expected in (
        ("earliest", [b"0", b"1", b"new"]),
        (str(second), [b"1", b"new"]),
        ("latest", [b"new"]),
    ):
        source = await join(bench, driver, f"from-{expected[0].decode()}", start=start)
        if start == "latest":
            await driver.publish([bench.record(b"new")])
        assert bodies(await take(source, 1)) == expected[:1]
    assert first != second


async def test_order_holds_over_joins_and_leaves(bench: Bench) -> None:
    driver = await partitioned(bench, 4)
    got: list[Received] = []
    stop = asyncio.Event()

    async def member(source: Any, until: asyncio.Event) -> None:
        while not until.is_set():
            records = await source.receive(7, 0.2)
            got.extend(records)
            await source.ack(records)
        await source.aclose()

    async def publish() -> None:
        for start in range(0, 600, 20):
            numbers = range(start, start + 20)
            await driver.publish([bench.record(n, key=f"k{n % 8}") for n in numbers])
            await asyncio.sleep(0.1)

    async def handled() -> bool:
        return len({item.body for item in got}) == 600

    async with asyncio.TaskGroup() as group:
        group.create_task(member(await join(bench, driver, lease=3.0), stop))
        publishing = group.create_task(publish())
        for _ in range(3):
            leave = asyncio.Event()
            other = await bench.open()
            left = group.create_task(member(await join(bench, other, lease=3.0), leave))
            count = len(got)
            await eventually(partial(_more, got, count + 100))
            leave.set()
            await left
        await publishing
        await eventually(handled)
        stop.set()
    assert in_order(got, 8)
    assert len(got) == 600


async def _more(got: Sequence[Received], count: int) -> bool:
    return len(got) >= min(count, 580)


async def test_deliveries_of_a_dead_member_are_redelivered_and_counted(bench: Bench) -> None:
    driver = await partitioned(bench, 2)
    async with Proxy(urlsplit(bench.url).port or 6379) as proxy:
        dying = await bench.open(proxy.url, timeout=1.0)
        source = await join(bench, dying, lease=1.0)
        await driver.publish([bench.record(number, key="k") for number in range(6)])
        got = await take(source, 6)
        await source.ack(got[:2])
        await source.keep([bench.nack(got[2])])
        proxy.requests.clear()  # a crash: nothing it sends reaches the server
        proxy.cut()
        heir = await join(bench, driver, lease=1.0)
        back = await take(heir, 4)
        assert bodies(back) == [b"2", b"3", b"4", b"5"]
        assert attempt(back[0]) == 2
        await heir.ack(back)
        assert await nothing(heir, 0.3)
        await source.aclose()


async def test_partitions_spread_over_the_members(bench: Bench) -> None:
    driver = await partitioned(bench, 4)
    sources = [await join(bench, driver, lease=2.0), await join(bench, driver, lease=2.0)]

    async def shared() -> bool:
        await asyncio.gather(*(source.receive(1, 0.1) for source in sources))
        info = await driver.describe_group(bench.topic(), f"{bench.name}.billing")
        return [len(item.partitions or ()) for item in info.members or ()] == [2, 2]

    await eventually(shared)


async def test_trimming_spares_entries_that_an_ordered_group_has_not_settled(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=2, retention=0.2)
    await driver.declare(topic)
    source = await join(bench, driver)
    await driver.publish([bench.record(number, key="k") for number in range(10)])
    got = await take(source, 10)
    await source.ack(got[:4])
    stream = topic_keys(bench.name, 2).streams[got[0].partition].decode()

    async def trimmed(left: int) -> bool:
        return int(await driver.native.xlen(stream)) == left

    await eventually(lambda: trimmed(6))
    begun = time.monotonic()
    while time.monotonic() - begun < 0.8:
        assert await trimmed(6)
    await source.ack(got[4:])
    await eventually(lambda: trimmed(0))


@pytest.mark.xdist_group("redis-faults")
async def test_order_holds_over_a_restart_of_the_server(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await partitioned(bench, 3)
        source = await join(bench, driver, lease=5.0)
        await driver.publish([bench.record(n, key=f"k{n % 6}") for n in range(60)])
        got = await take(source, 30)
        await source.ack(got[:20])
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)

        async def published() -> bool:
            try:
                await driver.publish([bench.record(n, key=f"k{n % 6}") for n in range(60, 90)])
            except OSError:
                return False
            return True

        await eventually(published)
        seen = {item.body for item in got}
        rest = await take_through(source, 1)
        while len(seen | {item.body for item in rest}) < 90:
            rest += await take_through(source, 1)
        assert in_order([*got, *rest], 6)
