"""`group=None`: every subscriber reads everything, in order, whatever happens."""

from __future__ import annotations

import asyncio

import nats.errors
import pytest
from nats.js import api

from anymq.driver import SourceLost
from anymq_nats import NatsDriver
from anymq_nats.broadcast import BroadcastReader
from brokers import Server
from tests.adapters.nats.support import Bench, Proxy, stored, take_through
from tests.adapters.support import bodies, eventually, nothing, take

pytestmark = pytest.mark.nats


async def test_every_reader_gets_everything_from_its_start(
    bench: Bench, driver: NatsDriver
) -> None:
    stored(await driver.publish(bench.records(2)))
    late = await bench.join(driver, None, start="latest")
    early = await bench.join(await bench.open(), None, start="earliest")
    stored(await driver.publish([bench.record(b"2")]))
    assert bodies(await take(late, 1)) == [b"2"]
    assert bodies(await take(early, 3)) == [b"0", b"1", b"2"]
    assert [received.position for received in await early.receive(10, 0.1)] == []


async def test_a_reader_that_hears_nothing_is_noticed(bench: Bench, driver: NatsDriver) -> None:
    reader = await bench.join(driver, None)
    assert isinstance(reader, BroadcastReader)
    assert await reader.undelivered() is None
    pull = reader._reader._pull
    assert pull is not None
    pull.mute()
    stored(await driver.publish(bench.records(2)))
    seen = await reader.undelivered()
    assert seen is not None
    assert seen == await reader.undelivered()
    await driver.native.jetstream().delete_consumer(bench.stream, reader._reader._name)
    assert await reader.undelivered() is None
    assert len(await take(reader, 2)) == 2, "by another consumer"


async def test_a_topic_that_was_emptied_is_read_on(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish(bench.records(3)))
    await driver.native.jetstream().purge_stream(bench.stream)
    reader = await bench.join(driver, None, start="earliest")
    stored(await driver.publish([bench.record(b"new")]))
    assert bodies(await take(reader, 1)) == [b"new"]


async def test_a_reader_takes_no_more_than_its_credit(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish(bench.records(500)))
    reader = await bench.join(driver, None, start="earliest")
    assert await reader.receive(0, 1.0) == ()
    seen: list[bytes] = []
    while len(seen) < 500:
        some = await reader.receive(7, 1.0)
        assert 0 < len(some) <= 7
        seen += bodies(some)
    assert seen == [b"%d" % number for number in range(500)]


async def test_nothing_is_skipped_when_the_consumer_goes(bench: Bench, driver: NatsDriver) -> None:
    reader = await bench.join(driver, None, start="latest")
    assert isinstance(reader, BroadcastReader)
    stored(await driver.publish(bench.records(2)))
    seen = await take(reader, 2)
    js = driver.native.jetstream()
    await js.delete_consumer(bench.stream, reader._reader._name)
    stored(await driver.publish([bench.record(b"2"), bench.record(b"3")]))
    seen += await take(reader, 2)
    assert bodies(seen) == [b"0", b"1", b"2", b"3"]


async def test_a_reader_leaves_no_consumer(bench: Bench, driver: NatsDriver) -> None:
    reader = await bench.join(driver, None)
    js = driver.native.jetstream()
    (info,) = await js.consumers_info(bench.stream)
    assert info.config.inactive_threshold == 60
    assert info.config.ack_policy == api.AckPolicy.NONE
    await reader.aclose()

    async def gone() -> bool:
        return not await js.consumers_info(bench.stream)

    await eventually(gone)


async def test_a_reader_whose_stream_is_gone_is_lost(bench: Bench, driver: NatsDriver) -> None:
    reader = await bench.join(driver, None)
    await driver.native.jetstream().delete_stream(bench.stream)
    with pytest.raises(SourceLost):
        await take(reader, 1)


async def test_a_stream_made_anew_is_read_from_its_beginning(
    bench: Bench, driver: NatsDriver
) -> None:
    reader = await bench.join(driver, None)
    stored(await driver.publish(bench.records(3)))
    await take(reader, 3)
    await driver.native.jetstream().delete_stream(bench.stream)
    await driver.declare(bench.topic())
    stored(await driver.publish([bench.record(b"first")]))
    assert bodies(await take(reader, 1)) == [b"first"]


async def test_nothing_is_skipped_when_the_connection_breaks(bench: Bench, server_url: str) -> None:
    async with Proxy(int(server_url.rpartition(":")[2])) as proxy, Bench(proxy.url) as other:
        writer = await bench.open(declare=False)
        driver = await other.open()
        await writer.declare(other.topic())
        reader = await other.join(driver, None, start="earliest")
        expected: list[bytes] = []
        seen: list[bytes] = []
        for round_ in range(5):
            sent = [b"%d.%d" % (round_, number) for number in range(50)]
            stored(await writer.publish([other.record(body) for body in sent]))
            expected += sent
            seen += await _some(reader)
            proxy.cut()
        while len(seen) < len(expected):
            seen += await _some(reader)
        assert seen == expected


async def _some(reader: object) -> list[bytes]:
    assert isinstance(reader, BroadcastReader)
    try:
        return bodies(await reader.receive(20, 1.0))
    except (nats.errors.Error, OSError):
        return []


@pytest.mark.xdist_group("nats-faults")
async def test_nothing_is_skipped_or_repeated_when_the_server_is_killed(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        reader = await bench.join(driver, None)
        stored(await driver.publish(bench.records(10)))
        seen = bodies(await take(reader, 4))
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)
        seen += bodies(await take_through(reader, 6))
        assert seen == [b"%d" % number for number in range(10)]
        assert await nothing(reader, 0.3)
