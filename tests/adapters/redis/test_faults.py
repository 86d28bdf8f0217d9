"""A server that is killed, paused or gone."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError

from anymq.driver import Received
from brokers import Server
from tests.adapters.redis.support import Bench, Proxy, bodies_stored
from tests.adapters.support import attempt, bodies, eventually, nothing, take, take_through

pytestmark = [pytest.mark.redis, pytest.mark.xdist_group("redis-faults")]

LOST = (RedisError, OSError)


async def test_a_kill_in_mid_stream_loses_nothing(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver, lease=5.0)
        delayed = await bench.join(driver, "delayed")
        everything = await bench.join(driver, None)
        stored = set(await driver.publish(bench.records(50)))
        first = await take(source, 20)
        await source.ack(first[:10])
        (item,) = await take(delayed, 1)
        begun = time.monotonic()
        await delayed.nack([bench.nack(item, 4.0)])
        seen = await take(everything, 30)
        await asyncio.to_thread(faulty.kill)
        for call in (
            driver.ping(),
            source.receive(1, 0.1),
            source.ack(first[10:]),
            nothing(delayed),
        ):
            with pytest.raises(LOST):
                await call
        await asyncio.to_thread(faulty.up)
        await eventually(lambda: _answers(driver.ping()))
        stored |= set(await driver.publish(bench.records(10)))
        await source.ack(first[10:15])
        rest = await take_through(source, 45)
        assert len({item.position for item in rest}) == 45
        assert {item.position for item in [*first[:15], *rest]} == stored
        assert {item.position for item in rest if item.redeliveries} == {
            item.position for item in first[15:]
        }
        assert {item.position for item in await take_through(delayed, 60)} == stored
        assert time.monotonic() - begun >= 4.0
        seen += await take_through(everything, 30)
        assert [item.position for item in seen] == sorted(
            {str(position) for position in stored}, key=_order
        )


def _order(position: str) -> tuple[int, ...]:
    return tuple(map(int, position.split("-")))


async def _answers(call: object) -> bool:
    try:
        await call  # type: ignore[misc]
    except LOST:
        return False
    return True


async def test_a_delay_survives_a_restart_of_everything(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver)
        await driver.publish([bench.record(b"x")])
        (item,) = await take(source, 1)
        begun = time.monotonic()
        await source.nack([bench.nack(item, 3.0)])
        name = bench.name
    await asyncio.to_thread(faulty.kill)
    await asyncio.to_thread(faulty.up)
    async with Bench(faulty.url) as again:
        again.name = name
        driver = await again.open()
        source = await again.join(driver)
        back: list[Received] = []
        while not back:
            back += await source.receive(1, 0.5)
        assert 3.0 <= time.monotonic() - begun < 60
        assert (bodies(back), attempt(back[0])) == ([b"x"], 2)


async def test_a_paused_server_hangs_nothing_and_stores_once(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open(timeout=1.0)
        source = await bench.join(driver)
        await driver.publish([bench.record(b"first")])
        held = await take(source, 1)
        await asyncio.to_thread(faulty.pause)
        try:
            record = bench.record(b"once")
            for call in (
                driver.publish([record]),
                driver.publish([record]),
                driver.ping(),
                source.ack(held),
                source.nack([bench.nack(held[0])]),
                source.extend(held),
            ):
                begun = time.monotonic()
                with pytest.raises(LOST):
                    await call
                assert time.monotonic() - begun < 10
            begun = time.monotonic()
            with pytest.raises(LOST):
                await source.receive(1, 2.0)
            assert time.monotonic() - begun < 30
        finally:
            await asyncio.to_thread(faulty.resume)
        await driver.publish([record])
        await driver.publish([bench.record(b"last")])
        assert await bodies_stored(driver, bench.name) == [b"first", b"once", b"last"]
        await source.ack(held)
        assert bodies(await take_through(source, 2)) == [b"once", b"last"]


async def test_a_full_server_takes_no_more_and_consumers_go_on(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver)
        await driver.publish(bench.records(3))
        await driver.native.config_set("maxmemory", "1mb")
        try:
            outcomes = await driver.publish(bench.records(2))
            assert [type(outcome) for outcome in outcomes] == [OutOfMemoryError] * 2
            got = await take(source, 3)
            await source.extend(got)
            await source.ack(got[:2])
            with pytest.raises(OutOfMemoryError):
                await source.nack([bench.nack(got[2])])
        finally:
            await driver.native.config_set("maxmemory", "0")
        await source.nack([bench.nack(got[2])])
        assert bodies(await take(source, 1)) == [b"2"]
        await driver.publish([bench.record(b"room again")])
        stored = await bodies_stored(driver, bench.name)
        assert stored == [b"0", b"1", b"2", b"room again"]


async def test_a_demoted_primary_refuses_and_is_left(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open(connections=1)
        await driver.publish([bench.record(b"before")])
        number = await driver._commands.call(b"CLIENT", b"ID")
        admin = await bench.open()
        await admin._commands.call(b"REPLICAOF", b"127.0.0.1", b"1")
        try:
            (outcome,) = await driver.publish([bench.record(b"refused")])
            assert isinstance(outcome, ReadOnlyError)
        finally:
            await admin._commands.call(b"REPLICAOF", b"NO", b"ONE")
        await driver.publish([bench.record(b"after")])
        assert await driver._commands.call(b"CLIENT", b"ID") > number
        assert await bodies_stored(driver, bench.name) == [b"before", b"after"]


async def test_risky_settings_of_the_server_are_logged_once(
    faulty: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bench(faulty.url) as bench, Proxy(faulty.port) as proxy:
        driver = await bench.open()
        await driver.native.config_set("appendonly", "no")
        await driver.native.config_set("maxmemory-policy", "allkeys-lru")
        try:
            for _ in range(2):  # through the proxy it has an address without a warning yet
                await bench.open(proxy.url)
        finally:
            await driver.native.config_set("appendonly", "yes")
            await driver.native.config_set("maxmemory-policy", "noeviction")
    assert caplog.text.count("has no append-only file") == 1
    assert caplog.text.count("evicts keys") == 1


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_closing_with_a_dead_server_is_bounded(faulty: Server, how: str) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver)
        broadcast = await bench.join(driver, None)
        await driver.publish(bench.records(3))
        await take(source, 2)
        await take(broadcast, 1)
        reading = asyncio.create_task(broadcast.receive(0, 0.0))
        await asyncio.to_thread(getattr(faulty, how))
        try:
            begun = time.monotonic()
            await source.aclose()
            await broadcast.aclose()
            assert time.monotonic() - begun < 10
            await driver.aclose()
            await driver.aclose()
            assert time.monotonic() - begun < 20
        finally:
            if how == "pause":
                await asyncio.to_thread(faulty.resume)
            reading.cancel()


async def test_a_cancelled_close_leaves_nothing_open(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver)
        await driver.publish(bench.records(3))
        await take(source, 2)
        before = asyncio.all_tasks()
        await asyncio.to_thread(faulty.pause)
        try:
            for closing in (source.aclose(), driver.aclose()):
                task = asyncio.create_task(closing)
                await asyncio.sleep(0.1)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        finally:
            await asyncio.to_thread(faulty.resume)
        assert asyncio.all_tasks() <= before


async def test_a_delayed_record_survives_a_kill_of_server_and_publisher(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        record = bench.record(b"x")
        begun = time.time()
        record.deliver_at = begun + 3.0
        assert await driver.publish([record]) == [None]
        await asyncio.to_thread(faulty.kill)
        name = bench.name
    await asyncio.to_thread(faulty.up)
    async with Bench(faulty.url) as again:
        again.name = name
        driver = await again.open(declare=False)
        reader = await again.join(driver, None)
        (item,) = await take_through(reader, 1)
        assert item.body == b"x"
        assert item.time is not None
        assert item.time >= begun + 3.0
