"""Publishing: native form, outcomes, and lost replies."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from anymq.driver import Duplicate
from anymq.errors import ConfigurationError, NotFound
from anymq_redis import RedisDriver
from tests.adapters.redis.support import Bench, Proxy, bodies_stored, stored
from tests.adapters.support import eventually, take

pytestmark = pytest.mark.redis

HEADERS = {"x-odd": 'naïve "quotes" 漢字 \U0001f600', "x-empty": "", "x-long": "y" * 4000}


def port_of(url: str) -> int:
    return urlsplit(url).port or 6379


@pytest.mark.parametrize(
    "body", [b"", b"\x00\xff\r\n*3\r\n", b"x" * 1024 * 1024], ids=["empty", "binary", "1 MiB"]
)
async def test_published_records_are_received(
    bench: Bench, driver: RedisDriver, body: bytes
) -> None:
    record = bench.record(body, headers=HEADERS)
    (position,) = await driver.publish([record])
    source = await bench.join(driver)
    (received,) = await take(source, 1)
    assert received.body == body
    assert dict(received.headers) == record.headers
    assert received.position == position
    assert received.redeliveries == 0
    assert received.time is not None
    assert abs(received.time - time.time()) < 60
    assert received.native == (bench.name, position)


async def test_the_stream_has_the_name_of_the_topic_and_plain_fields(
    bench: Bench, driver: RedisDriver
) -> None:
    record = bench.record(b"hello", headers={"content-type": "text/plain"})
    (position,) = await driver.publish([record])
    assert await stored(driver, bench.name) == {
        position: {b"ce-id": record.id.encode(), b"content-type": b"text/plain", b"data": b"hello"}
    }


async def test_records_keep_their_order_and_topics_are_told_apart(
    bench: Bench, driver: RedisDriver
) -> None:
    other = f"{bench.name}.other"
    records = [bench.record(n, name=bench.name if n % 3 else other) for n in range(50)]
    outcomes = await driver.publish(records)
    for name in (bench.name, other):
        mine = [(o, r.body) for o, r in zip(outcomes, records, strict=True) if r.topic == name]
        entries = await stored(driver, name)
        assert [(id, fields[b"data"]) for id, fields in entries.items()] == mine


async def test_one_record_that_fails_does_not_fail_the_others(
    bench: Bench, driver: RedisDriver
) -> None:
    taken, missing = f"{bench.name}.taken", f"{bench.name}.missing"
    await driver.declare(bench.topic(missing, create=False))
    await driver.native.set(taken, "a string")
    names = [bench.name, taken, missing, bench.name]
    outcomes = await driver.publish([bench.record(name=name) for name in names])
    assert isinstance(outcomes[0], str)
    assert isinstance(outcomes[1], RedisError)
    assert "WRONGTYPE" in str(outcomes[1])
    assert isinstance(outcomes[2], NotFound)
    assert isinstance(outcomes[3], str)
    assert not await driver.native.exists(missing)
    await driver.native.delete(taken)


async def test_a_key_that_is_no_stream_is_refused(bench: Bench, driver: RedisDriver) -> None:
    name = f"{bench.name}.list"
    await driver.native.lpush(name, "x")
    with pytest.raises(ConfigurationError, match="holds a list"):
        await driver.declare(bench.topic(name))
    await driver.native.delete(name)


async def test_a_mapped_topic_uses_the_key_that_is_there(bench: Bench, driver: RedisDriver) -> None:
    native = f"legacy:{bench.name}"
    await driver.native.xadd(native, {"data": "old"})
    topic = bench.topic(create=False)
    mapped = type(topic)(name=bench.name, native=native, create=False)
    await driver.declare(mapped)
    await driver.publish([bench.record(b"new")])
    source = await bench.join(driver, topic=mapped)
    assert [item.body for item in await take(source, 2)] == [b"old", b"new"]


async def test_the_scripts_survive_a_flush(bench: Bench, driver: RedisDriver) -> None:
    await driver.publish([bench.record()])
    await driver.native.script_flush()
    (outcome,) = await driver.publish([bench.record()])
    assert isinstance(outcome, str)


async def test_a_publish_whose_answer_was_lost_is_stored_once(bench: Bench) -> None:
    """redis-py alone would repeat the command and store the record twice."""
    async with Proxy(port_of(bench.url)) as proxy:
        driver = await bench.open(proxy.url, timeout=1.0)
        await driver.publish([bench.record(b"first")])
        proxy.answers.clear()
        lost = bench.records(3)
        with pytest.raises((RedisError, OSError)):
            await driver.publish(lost)
        proxy.answers.set()
        more = bench.record(b"more")
        outcomes = await driver.publish([*lost[:2], more])
        assert [(type(item), item) for item in outcomes[:2]] == [(Duplicate, "")] * 2
        assert isinstance(outcomes[2], str)
        # The third may be repeated later, and is still known to be stored.
        (third,) = await driver.publish(lost[2:])
        assert isinstance(third, Duplicate)
        expected = [b"first", b"0", b"1", b"2", b"more"]
        assert await bodies_stored(driver, bench.name) == expected


async def test_a_publish_that_comes_late_is_refused(bench: Bench) -> None:
    """Commands sent over a dead connection may reach the server after their retry."""
    direct = await bench.open()
    async with Proxy(port_of(bench.url)) as proxy:
        driver = await bench.open(proxy.url, timeout=1.0)
        record = bench.record(b"once")
        proxy.requests.clear()
        with pytest.raises((RedisError, OSError)):
            await driver.publish([record])
        held, proxy.requests = proxy.requests, asyncio.Event()
        proxy.requests.set()
        (outcome,) = await driver.publish([record])
        assert isinstance(outcome, str)
        held.set()
        await eventually(lambda: _heard(proxy, b"was given up"))
        assert await direct.native.xlen(bench.name) == 1


async def _heard(proxy: Proxy, words: bytes) -> bool:
    return words in proxy.heard


async def test_a_dead_server_fails_a_publish_in_time(bench: Bench) -> None:
    async with Proxy(port_of(bench.url)) as proxy:
        driver = await bench.open(proxy.url, timeout=1.0)
        proxy.answers.clear()
        begun = time.monotonic()
        with pytest.raises((RedisError, OSError)):
            await driver.publish([bench.record()])
        with pytest.raises((RedisError, OSError)):
            await driver.ping()
        assert time.monotonic() - begun < 15
