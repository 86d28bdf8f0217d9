"""Broadcast readers: their place in the log, kept through lost connections."""

from __future__ import annotations

import asyncio

import pytest

from anymq.driver import Reader, Received, SourceLost
from anymq.errors import ConnectionLost
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import protocol
from brokers import Server
from tests.adapters.rabbitmq.support import (
    Bench,
    Proxy,
    bench_on,
    cut,
    eventually,
    nothing,
    numbers,
    store,
    take,
)

pytestmark = pytest.mark.rabbitmq


async def through(source: Reader, count: int) -> list[Received]:
    """Receive `count` records; the first failure of an outage is raised, and only that."""
    got: list[Received] = []
    failures = 0

    async def more() -> bool:
        nonlocal failures
        try:
            got.extend(await source.receive(count - len(got), 0.2))
        except SourceLost:
            raise
        except Exception:
            failures += 1
        return len(got) >= count

    await eventually(more, seconds=40)
    assert failures <= 1
    return got


async def test_every_reader_gets_everything_from_its_place(bench: Bench) -> None:
    drivers = [await bench.open() for _ in range(2)]
    await store(drivers[0], bench.records(3))
    late = [await bench.join(driver, None, start="latest") for driver in drivers]
    early = await bench.join(drivers[1], None, start="earliest")
    await store(drivers[0], bench.records(range(3, 6)))
    for source in late:
        assert numbers(await take(source, 3)) == [3, 4, 5]
        await nothing(source, 0.2)
    assert numbers(await take(early, 6)) == list(range(6))


async def test_positions_name_the_place_for_ever(bench: Bench, driver: RabbitMQDriver) -> None:
    await store(driver, bench.records(5))
    readers = [await bench.join(driver, None, start="earliest") for _ in range(2)]
    first, second = [[one.position for one in await take(reader, 5)] for reader in readers]
    assert first == second
    assert first == sorted(set(first), key=int)


async def test_a_reader_that_has_read_nothing_yet_keeps_its_place(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    other = await bench.open()
    await store(driver, bench.records(3))
    source = await bench.join(driver, None, start="latest")
    cut(driver)
    await store(other, bench.records(range(3, 6)))
    assert numbers(await through(source, 3)) == [3, 4, 5]


async def test_a_reader_goes_on_behind_what_it_has_read(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    other = await bench.open()
    source = await bench.join(driver, None, start="earliest")
    await store(other, bench.records(500))
    assert numbers(await take(source, 120)) == list(range(120))
    for start in range(500, 1000, 100):
        cut(driver)
        await store(other, bench.records(range(start, start + 100)))
    assert numbers(await through(source, 880)) == list(range(120, 1000))
    await nothing(source, 0.2)


async def test_more_than_the_window_flows(bench: Bench, driver: RabbitMQDriver) -> None:
    await store(driver, bench.records(500))
    source = await bench.join(driver, None, start="earliest", prefetch=7)
    assert numbers(await take(source, 500)) == list(range(500))


async def test_readers_see_no_markers(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver, None, start="earliest")
    await bench.join(driver, "new")  # Filling a group writes markers.
    await bench.join(driver, None, start="latest")
    await store(driver, [bench.record(1)])
    assert numbers(await take(source, 1)) == [1]
    await nothing(source, 0.2)


async def test_an_outage_is_reported_once(bench: Bench) -> None:
    async with Proxy(bench.url) as proxy:
        driver = await bench.open(proxy.url, timeout=0.5, request_timeout=0.5)
        source = await bench.join(driver, None, start="latest")
        proxy.stall()
        cut(driver)
        failures = 0
        for _ in range(5):
            try:
                await source.receive(10, 0.1)
            except ConnectionLost:
                failures += 1
        assert failures == 1
        proxy.flow()
        other = await bench.open()
        await store(other, [bench.record(1)])
        assert numbers(await through(source, 1)) == [1]


async def test_a_deleted_log_ends_the_reader(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver, None)
    await protocol.delete_queue(driver._consuming, f"{bench.name}._log")

    async def lost() -> bool:
        try:
            await source.receive(1, 0.2)
        except SourceLost:
            return True
        return False

    await eventually(lost)


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_a_reader_outlives_the_server(faulty: Server) -> None:
    async with bench_on(faulty.url) as bench:
        driver = await bench.open(settle_time=1.5)
        source = await bench.join(driver, None, start="latest")
        await store(driver, bench.records(10))
        assert numbers(await take(source, 5)) == [0, 1, 2, 3, 4]
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)
        assert numbers(await through(source, 5)) == [5, 6, 7, 8, 9]
