"""Ordered groups on the server: who reads what, what exists, what survives."""

from __future__ import annotations

import asyncio

import pytest

from anymq.driver import Received, SourceLost
from anymq.driver.ordered import LeasedSource
from anymq.errors import ConfigurationError
from anymq_nats import NatsDriver
from anymq_nats.ordered import StreamLog
from brokers import Server
from tests.adapters.nats.support import Bench, stored
from tests.adapters.support import attempt, bodies, eventually, nothing, take

pytestmark = pytest.mark.nats


async def partitioned(bench: Bench, count: int = 4) -> NatsDriver:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=count))
    return driver


async def acked(source: LeasedSource, count: int) -> list[Received]:
    """Receive and ack `count` records, through failures."""
    got: list[Received] = []

    async def enough() -> bool:
        try:
            some = await source.receive(20, 0.5)
            await source.ack(some)
        except SourceLost:
            raise
        except Exception:
            return False
        got.extend(some)
        return len(got) >= count

    await eventually(enough, seconds=30.0)
    return got


def in_order(records: list[Received], key: str) -> bool:
    mine = [int(record.body) for record in records if record.headers["k"] == key]
    return mine == sorted(mine)


async def publish(bench: Bench, driver: NatsDriver, count: int, begin: int = 0) -> None:
    records = [
        bench.record(n, key=f"k-{n % 16}", headers={"k": f"k-{n % 16}"})
        for n in range(begin, begin + count)
    ]
    stored(await driver.publish(records))


async def test_partitions_that_are_not_heard_of_are_noticed(bench: Bench) -> None:
    driver = await partitioned(bench)
    source = await bench.join(driver, "ordered", topic=bench.topic(partitions=4), ordered=True)
    assert isinstance(source, LeasedSource)
    assert await nothing(source, 0.2)
    assert await source.undelivered() is None
    assert isinstance(source._log, StreamLog)
    for reader in source._log._readers.values():
        assert reader._pull is not None
        reader._pull.mute()
    stored(await driver.publish([bench.record(b"x", key="k")]))

    async def noticed() -> object:
        return await source.undelivered()

    await eventually(noticed)
    assert await source.undelivered() == await source.undelivered()


async def test_members_share_the_partitions_and_keep_the_order(bench: Bench) -> None:
    driver = await partitioned(bench)
    one = await bench.ordered(driver)
    two = await bench.ordered(await bench.open())
    got: list[list[Received]] = [[], []]
    number = 0

    async def both_have_some() -> bool:
        nonlocal number
        await publish(bench, driver, 16, number)
        number += 16
        for source, mine in zip((one, two), got, strict=True):
            some = await source.receive(50, 0.2)
            await source.ack(some)
            mine += some
        return all(got)

    await eventually(both_have_some)
    got[0] += await acked(one, 0)
    rest = number - sum(map(len, got))
    while rest > 0:
        for source, mine in zip((one, two), got, strict=True):
            some = await source.receive(50, 0.2)
            await source.ack(some)
            mine += some
            rest -= len(some)
    for key in range(16):
        assert in_order(got[0], f"k-{key}")
        assert in_order(got[1], f"k-{key}")


async def test_a_group_is_of_one_kind(bench: Bench, driver: NatsDriver) -> None:
    await bench.ordered(driver, "ordered")
    with pytest.raises(ConfigurationError, match="ordered"):
        await bench.join(driver, "ordered")
    await bench.join(driver, "plain")
    with pytest.raises(ConfigurationError, match="not ordered"):
        await bench.ordered(driver, "plain")


async def test_a_group_begins_where_it_was_made(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish([bench.record(b"before")]))
    first = await bench.ordered(driver, start="latest")
    await first.aclose()
    stored(await driver.publish([bench.record(b"meanwhile")]))
    again = await bench.ordered(driver, start="latest")
    assert bodies(await take(again, 1)) == [b"meanwhile"]


async def test_what_a_dead_member_had_is_counted(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish(bench.records(3)))
    dying = await bench.ordered(driver, lease=2.0)
    got = await take(dying, 3)
    await dying.ack(got[:1])
    dying._leases._stop.set()
    for task in dying._leases._keeping:
        task.cancel()
    heir = await bench.ordered(await bench.open(), lease=2.0)
    again = await take(heir, 2)
    assert bodies(again) == [b"1", b"2"]
    assert [attempt(record) for record in again] == [2, 2]


@pytest.mark.xdist_group("nats-faults")
async def test_the_order_survives_a_kill_of_the_server(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await partitioned(bench)
        source = await bench.ordered(driver, lease=10.0)
        await publish(bench, driver, 100)
        got = await acked(source, 40)
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)
        while len({record.body for record in got}) < 100:
            got += await acked(source, 1)
        first: dict[bytes, Received] = {}
        for record in got:
            first.setdefault(record.body, record)
        for key in range(16):
            assert in_order(list(first.values()), f"k-{key}")
