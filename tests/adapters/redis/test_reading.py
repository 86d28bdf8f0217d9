"""Broken reads: entries delivered to them are neither lost nor delivered twice."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from anymq.testing.samples import join
from anymq_redis import RedisDriver
from tests.adapters.redis.support import Bench, Proxy, blocked
from tests.adapters.support import bodies, eventually, nothing, take

pytestmark = pytest.mark.redis


def proxy_to(bench: Bench) -> Proxy:
    return Proxy(urlsplit(bench.url).port or 6379)


async def all_pending(driver: RedisDriver, key: str, count: int) -> bool:
    return int((await driver.native.xpending(key, "billing"))["pending"]) == count


async def test_a_reply_that_was_lost_is_read_again_uncounted(bench: Bench) -> None:
    direct = await bench.open()
    async with proxy_to(bench) as proxy:
        driver = await bench.open(proxy.url)
        source = await bench.join(driver)
        await direct.publish(bench.records(2))
        held = await take(source, 2)
        proxy.answers.clear()
        reading = asyncio.create_task(source.receive(10, 2.0))
        await direct.publish(bench.records(3))
        await eventually(lambda: all_pending(direct, bench.name, 5))
        proxy.cut()
        proxy.answers.set()
        with pytest.raises((RedisError, OSError)):
            await reading
        again = await take(source, 3)
        assert bodies(again) == [b"0", b"1", b"2"]
        assert [item.redeliveries for item in again] == [0, 0, 0]
        assert not {item.token.id for item in again} & {item.token.id for item in held}
        await source.ack([*held, *again])
        assert await all_pending(direct, bench.name, 0)


async def test_a_dead_read_that_the_server_still_serves_is_found_later(bench: Bench) -> None:
    """The server does not notice the broken link, so its side of the read stays blocked."""
    direct = await bench.open()
    async with proxy_to(bench) as proxy:
        driver = await bench.open(proxy.url, client_name=bench.name)
        source = await bench.join(driver)
        assert await nothing(source)
        proxy.endings.clear()
        reading = asyncio.create_task(source.receive(10, 2.0))
        await blocked(direct, bench.name)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await nothing(source)  # recovered once, when there was no entry yet
        await direct.publish([bench.record(b"x")])
        await eventually(lambda: all_pending(direct, bench.name, 1))
        begun = time.monotonic()
        (item,) = await take(source, 1)
        assert time.monotonic() - begun < 20
        assert (item.body, item.redeliveries) == (b"x", 0)
        proxy.endings.set()


async def test_a_cancelled_read_leaves_the_source_usable(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    for round in range(20):
        reading = asyncio.create_task(source.receive(1, 2.0))
        await asyncio.sleep(0.002 * round)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await driver.publish(bench.records(10))
    assert sorted(bodies(await take(source, 10))) == [b"%d" % n for n in range(10)]


async def test_a_cancelled_call_whose_command_fails_says_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy_to(bench) as proxy:
        driver = await bench.open(proxy.url)
        proxy.answers.clear()
        call = asyncio.create_task(driver.ping())
        await eventually(lambda: _said(proxy, b"PING", 2))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        proxy.cut()
        await driver.aclose()
        gc.collect()
    assert "never retrieved" not in caplog.text


async def _said(proxy: Proxy, word: bytes, times: int) -> bool:
    return proxy.said.count(word) >= times


async def test_cancelled_commands_leave_no_reply_for_others(
    bench: Bench, driver: RedisDriver
) -> None:
    async def echo(text: str) -> None:
        assert await driver.native.echo(text) == text.encode()

    for round in range(50):
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(driver.publish([bench.record(b"x" * 10_000)])),
            asyncio.create_task(driver.ping()),
        ]
        await asyncio.sleep(0.0002 * (round % 10))
        for task in tasks:
            task.cancel()
        await echo(f"echo {round}")
        await asyncio.gather(*tasks, return_exceptions=True)
    await driver.publish([bench.record(b"last")])
    assert await driver.native.xlen(bench.name) <= 51


async def test_entries_trimmed_while_pending_are_reported(
    bench: Bench, driver: RedisDriver, caplog: pytest.LogCaptureFixture
) -> None:
    source = await join(driver, bench.spec(lease=0.3))
    await driver.publish(bench.records(2))
    await take(source, 2)
    await driver.native.xtrim(bench.name, maxlen=0)
    other = await bench.join(driver, lease=0.3)

    async def gone() -> bool:
        return await nothing(other, 0.1) and await all_pending(driver, bench.name, 0)

    await eventually(gone)
    assert "2 messages" in caplog.text
    await source.aclose()
