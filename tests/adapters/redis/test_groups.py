"""Groups: native names, sharing, start positions, foreign entries, and deleted groups."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from anymq.driver import SourceLost
from anymq.errors import NotFound
from anymq_redis import RedisDriver
from tests.adapters.redis.support import Bench, blocked
from tests.adapters.support import bodies, nothing, take

pytestmark = pytest.mark.redis


async def groups(driver: RedisDriver, key: str) -> list[bytes]:
    return [info["name"] for info in await driver.native.xinfo_groups(key)]


async def test_the_group_has_its_own_name_on_the_topic(bench: Bench, driver: RedisDriver) -> None:
    await bench.join(driver)
    assert await groups(driver, bench.name) == [b"billing"]
    assert await groups(driver, f"{{{bench.name}}}.billing._retry") == [b"billing"]


async def test_a_mapped_group_keeps_the_name_it_is_mapped_to(
    bench: Bench, driver: RedisDriver
) -> None:
    await driver.native.xgroup_create(bench.name, "old-name", id="0", mkstream=True)
    await driver.publish([bench.record(b"x")])
    source = await bench.join(driver, native_group="old-name", create=False)
    assert bodies(await take(source, 1)) == [b"x"]
    assert await groups(driver, bench.name) == [b"old-name"]


async def test_a_group_that_must_not_be_created_is_missed(
    bench: Bench, driver: RedisDriver
) -> None:
    with pytest.raises(NotFound):
        await bench.join(driver, create=False)


async def test_members_share_and_groups_do_not(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    first, second = await bench.join(one), await bench.join(two)
    other = await bench.join(two, "audit")
    await one.publish(bench.records(10))
    half = await take(first, 5)
    assert bodies(half) + bodies(await take(second, 5)) == [b"%d" % n for n in range(10)]
    assert await nothing(first)
    assert len(await take(other, 10)) == 10


async def test_start_is_where_a_new_group_begins(bench: Bench, driver: RedisDriver) -> None:
    await driver.publish(bench.records(2))
    late = await bench.join(driver, "late", start="latest")
    early = await bench.join(driver, "early")
    again = await bench.join(driver, "late")  # it exists, so its start position is ignored
    await driver.publish([bench.record(b"new")])
    assert bodies(await take(early, 3)) == [b"0", b"1", b"new"]
    assert bodies(await take(late, 1)) == [b"new"]
    assert await nothing(again)


async def test_many_may_create_the_same_group_at_once(bench: Bench) -> None:
    drivers = await asyncio.gather(*(bench.open() for _ in range(4)))
    sources = await asyncio.gather(*(bench.join(driver) for driver in drivers))
    await drivers[0].publish(bench.records(4))
    assert sorted(bodies(await take(sources[0], 4))) == [b"0", b"1", b"2", b"3"]
    assert await groups(drivers[0], bench.name) == [b"billing"]


async def test_entries_of_other_programs_are_received(bench: Bench, driver: RedisDriver) -> None:
    add = driver.native.xadd
    ids = [
        await add(bench.name, {"data": b"\xff raw", "odd": b"\xff"}),
        await add(bench.name, {"order": "17", "note": "naïve"}),
        await add(bench.name, {"ce-id": "1", "ce-type": "an.event.without.data"}),
        await add(bench.name, {"anymq-position": "7-7", "data": "not from a retry stream"}),
    ]
    source = await bench.join(driver)
    raw, plain, event, odd = await take(source, 4)
    assert [item.position.encode() for item in (raw, plain, event, odd)] == ids
    assert raw.body == b"\xff raw"
    assert dict(raw.headers) == {"odd": "\\xff"}
    assert json.loads(plain.body) == {"order": "17", "note": "naïve"}
    assert plain.headers["content-type"] == "application/json"
    assert plain.headers["order"] == "17"
    assert event.body == b""
    assert odd.position != "7-7"


async def test_no_more_is_returned_than_asked_for(bench: Bench, driver: RedisDriver) -> None:
    """XREADGROUP counts by stream, and a group reads two."""
    source = await bench.join(driver)
    await driver.publish(bench.records(6))
    first = await take(source, 3)
    await source.release([bench.nack(item, counted=False) for item in first])
    seen = []
    for _ in range(6):
        got = await source.receive(1, 0.5)
        assert len(got) == 1
        seen += bodies(got)
    assert sorted(seen) == [b"%d" % n for n in range(6)]
    assert await nothing(source)


async def test_buffered_records_are_kept_and_returned_on_close(
    bench: Bench, driver: RedisDriver
) -> None:
    source, other = await bench.join(driver, lease=0.6), await bench.join(driver, lease=0.6)
    await driver.publish(bench.records(2))
    first = await take(source, 1)
    await source.release([bench.nack(first[0], counted=False)])
    held = await source.receive(1, 0.5)  # the other one is buffered now
    for _ in range(4):
        await source.extend(held)
        assert await nothing(other, 0.3)
    await source.aclose()
    back = {item.body: item.redeliveries for item in await take(other, 2)}
    assert back == {b"0": 0, b"1": 0}, "no handler is known to have begun"


async def test_credit_of_nothing_takes_nothing(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    await driver.publish([bench.record()])
    assert await source.receive(0, 0.0) == []
    assert (await driver.native.xpending(bench.name, "billing"))["pending"] == 0


async def test_a_group_that_was_lost_is_made_again(
    bench: Bench, driver: RedisDriver, caplog: pytest.LogCaptureFixture
) -> None:
    source = await bench.join(driver)
    await driver.publish(bench.records(2))
    held = await take(source, 1)
    await driver.native.delete(bench.name, f"{{{bench.name}}}.billing._retry")
    await source.ack(held)  # stale: the group is gone
    await driver.publish([bench.record(b"after")])
    with caplog.at_level(logging.WARNING, "anymq.redis"):
        assert bodies(await take(source, 1)) == [b"after"]
    assert "may have been lost" in caplog.text


async def test_a_group_lost_while_a_read_waits_is_made_again(bench: Bench) -> None:
    driver = await bench.open(client_name=bench.name)
    source = await bench.join(driver)
    waiting = asyncio.create_task(source.receive(1, 2.0))
    await blocked(driver, bench.name)
    await driver.native.delete(bench.name)
    await driver.publish([bench.record(b"after")])
    got = list(await waiting) or await take(source, 1)
    assert bodies(got) == [b"after"]


async def test_losing_the_retry_stream_alone_keeps_the_group(
    bench: Bench, driver: RedisDriver, caplog: pytest.LogCaptureFixture
) -> None:
    source = await bench.join(driver)
    await driver.publish(bench.records(2))
    held = await take(source, 1)
    await driver.native.delete(f"{{{bench.name}}}.billing._retry")
    assert bodies(await take(source, 1)) == [b"1"]
    await source.ack(held)
    assert (await driver.native.xpending(bench.name, "billing"))["pending"] == 1
    assert "may have been lost" not in caplog.text


async def test_a_lost_group_that_is_not_ours_to_create_ends_the_source(
    bench: Bench, driver: RedisDriver
) -> None:
    await driver.native.xgroup_create(bench.name, "billing", id="0", mkstream=True)
    source = await bench.join(driver, create=False)
    await driver.native.xgroup_destroy(bench.name, "billing")
    with pytest.raises((SourceLost, NotFound)):
        await source.receive(1, 0.1)
