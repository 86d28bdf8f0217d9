"""The server is killed, stopped and started again: nothing hangs, is lost, or is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from anymq.driver import Received
from anymq.errors import AccessDenied, PublishTimeout, TransientError, translate
from anymq_kafka.client.compat import kafka
from anymq_kafka.errors import ERRORS
from brokers import Server
from tests.adapters.kafka.support import Bench, nothing, numbers, own_tasks, until_committed
from tests.adapters.support import bodies, eventually, take, take_through

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka-faults")]


@pytest_asyncio.fixture
async def fragile(faulty: Server) -> AsyncIterator[Bench]:
    async with Bench(faulty.url) as bench:
        yield bench


async def test_a_dead_server_is_no_reason_to_hang(fragile: Bench, faulty: Server) -> None:
    """aiokafka #1101: its send and stop never end then."""
    before = own_tasks()
    driver = await fragile.open(publish_timeout=2.0, request_timeout=2.0)
    await driver.publish(fragile.records(10))
    source, other = await fragile.join(driver), await fragile.join(driver, None)
    received = await take(source, 10)
    await take(other, 10)
    await asyncio.to_thread(faulty.kill)
    async with within(15.0):
        outcomes = await driver.publish(fragile.records(2))
        assert all(isinstance(outcome, PublishTimeout) for outcome in outcomes)
    async with within(15.0):
        with pytest.raises(kafka.KafkaError):
            await driver.publish(fragile.records(1))
    async with within(25.0):
        with pytest.raises(kafka.KafkaError):
            await driver.ping()
    async with within(5.0):
        await source.ack(received[:5])
    async with within(15.0):
        with pytest.raises(kafka.KafkaError):
            await source.nack([fragile.nack(item) for item in received[5:]])
    async with within(15.0):
        assert not await source.receive(10, 1.0)
        assert not await other.receive(10, 1.0)
    async with within(25.0):
        await asyncio.gather(source.aclose(), other.aclose())
    async with within(25.0):
        await driver.aclose()
    await eventually(lambda: _ended(before, faulty.port))


async def test_closing_can_be_cancelled(fragile: Bench, faulty: Server) -> None:
    before = own_tasks()
    driver = await fragile.open()
    source = await fragile.join(driver)
    await driver.publish(fragile.records(2))
    await source.ack(await take(source, 2))
    await asyncio.to_thread(faulty.pause)
    for closing in (source.aclose, driver.aclose):
        task = asyncio.create_task(closing())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=10.0)
        assert task.done()
    await eventually(lambda: _ended(before, faulty.port))


async def test_a_server_that_stands_still(fragile: Bench, faulty: Server) -> None:
    driver = await fragile.open(publish_timeout=2.0, request_timeout=2.0)
    await driver.publish(fragile.records(4))
    source = await fragile.join(driver)
    received = await take(source, 4)
    await asyncio.to_thread(faulty.pause)
    try:
        async with within(15.0):
            (outcome,) = await driver.publish([fragile.record(b"4")])
            assert isinstance(outcome, PublishTimeout)
        async with within(15.0):
            assert not await source.receive(10, 1.0)
        async with within(30.0):
            with pytest.raises(kafka.KafkaError):
                await driver.ping()
        await source.ack(received)
    finally:
        await asyncio.to_thread(faulty.resume)

    async def published() -> bool:
        with contextlib.suppress(Exception):
            return isinstance((await driver.publish([fragile.record(b"5")]))[0], str)
        return False

    await eventually(published)
    again: list[bytes] = []
    while b"5" not in again:
        again += bodies(await take_through(source, 1, seconds=60.0))
    assert set(again) <= {b"4", b"5"}, "what was acked meanwhile was committed later"


async def test_a_restart_repeats_and_loses_nothing(fragile: Bench, faulty: Server) -> None:
    driver = await fragile.open()
    await driver.publish(fragile.records(30))
    source, reader = await fragile.join(driver), await fragile.join(driver, None)
    first, seen = await take(source, 20), await take(reader, 20)
    await source.ack(first[:10])
    await source.nack([fragile.nack(item, 2.0) for item in first[10:15]])
    await asyncio.to_thread(faulty.kill)
    await asyncio.to_thread(faulty.up)
    await source.ack(first[15:])
    assert numbers(seen + await take_through(reader, 10, seconds=60.0)) == list(range(30))
    rest = await take_through(source, 15, seconds=60.0)
    await source.ack(rest)
    assert numbers(rest) == sorted(set(range(30)) - set(numbers(first[:10] + first[15:])))
    await until_committed(source)
    await source.aclose()
    again = await fragile.join(driver)
    assert await nothing(again, 3.0), "everything was committed"


async def test_unconfirmed_is_what_was_not_stored(fragile: Bench, faulty: Server) -> None:
    """What was confirmed over two kills is there, each once within one call."""
    driver = await fragile.open(publish_timeout=30.0)
    confirmed: list[int] = []
    killing = asyncio.create_task(_kill_twice(faulty))
    number = 0
    while not killing.done():
        number += 20
        try:
            outcomes = await driver.publish([fragile.record(number + n) for n in range(20)])
        except (kafka.KafkaError, OSError):
            # No producer could be started: nothing was sent.
            await asyncio.sleep(0.1)
            continue
        confirmed += [number + n for n, out in enumerate(outcomes) if isinstance(out, str)]
    await killing
    source = await fragile.join(driver)
    received: list[Received] = []

    async def all_are_there() -> bool:
        # Besides, what was not confirmed in time and stored all the same.
        with contextlib.suppress(Exception):
            received.extend(await source.receive(100, 0.2))
        return set(confirmed) <= set(numbers(received))

    await eventually(all_are_there, seconds=60.0)
    assert len(received) == len(set(numbers(received))), "the idempotent producer stores once"


async def test_nobody_at_the_other_end() -> None:
    bench = Bench("kafka://127.0.0.1:1")
    async with within(2.0):
        with pytest.raises(OSError, match="Connect call failed") as caught:
            await bench.open()
    meaning = translate(caught.value, ERRORS, doing="connect", where="")
    assert isinstance(meaning, TransientError)
    assert not isinstance(meaning, AccessDenied)


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


async def _kill_twice(faulty: Server) -> None:
    for _ in range(2):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)


async def _ended(before: set[asyncio.Task[object]], port: int) -> bool:
    sockets = [item for item in gc.get_objects() if isinstance(item, socket.socket)]
    return own_tasks() <= before and not any(_leads_to(item, port) for item in sockets)


def _leads_to(item: socket.socket, port: int) -> bool:
    try:
        return item.fileno() >= 0 and item.getpeername()[1] == port
    except (OSError, IndexError):
        return False
