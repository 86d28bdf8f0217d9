"""Broadcast: each reader gets every message, in order, without a gap."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from anymq_redis import RedisDriver
from tests.adapters.redis.support import Bench, Proxy
from tests.adapters.support import bodies, nothing, take, take_through

pytestmark = pytest.mark.redis


async def test_every_reader_gets_everything(bench: Bench, driver: RedisDriver) -> None:
    await driver.publish([bench.record(b"old")])
    late = await bench.join(driver, None, start="latest")
    early = await bench.join(driver, None)
    await driver.publish(bench.records(5))
    expected = [b"%d" % n for n in range(5)]
    assert bodies(await take(late, 5)) == expected
    assert bodies(await take(early, 6)) == [b"old", *expected]
    assert await nothing(late)
    assert await driver.native.xinfo_groups(bench.name) == []


async def test_latest_is_fixed_when_subscribing(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver, None, start="latest")  # there is no stream yet
    await driver.publish(bench.records(3))
    assert len(await take(source, 3)) == 3
    await driver.native.xtrim(bench.name, maxlen=0)
    source = await bench.join(driver, None, start="latest")  # the last entry is deleted
    await driver.publish([bench.record(b"new")])
    assert bodies(await take(source, 1)) == [b"new"]


async def test_nothing_is_skipped_or_repeated_over_a_lost_link(bench: Bench) -> None:
    direct = await bench.open()
    async with Proxy(urlsplit(bench.url).port or 6379) as proxy:
        driver = await bench.open(proxy.url)
        source = await bench.join(driver, None)
        await direct.publish(bench.records(3))
        got = await take(source, 2)
        proxy.cut()
        await direct.publish(bench.records(2))
        got += await take_through(source, 3)
        assert bodies(got) == [b"0", b"1", b"2", b"0", b"1"]
        assert await nothing(source)
