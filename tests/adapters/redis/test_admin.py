"""Administration and replay: start positions, seek, browse, describe, delete, purge."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from anymq.driver import Received, Start
from anymq.errors import ConfigurationError, NotFound, StateError
from anymq.testing.samples import join_ordered
from anymq_redis import RedisDriver
from anymq_redis.scripts.keys import topic_keys
from tests.adapters.redis.support import Bench, groups
from tests.adapters.redis.test_delays import later
from tests.adapters.support import bodies, eventually, nothing, take

pytestmark = pytest.mark.redis


async def browsed(bench: Bench, driver: RedisDriver, start: Start = "earliest") -> list[Received]:
    return [item async for page in driver.browse(bench.topic(), start) for item in page]


def native(bench: Bench, group: str = "billing") -> str:
    return f"{bench.name}.{group}"


async def ordered(bench: Bench, driver: RedisDriver, group: str = "billing") -> Any:
    source = await join_ordered(driver, replace(bench.spec(group), ordered=True))
    bench._sources.append(source)
    return source


async def test_a_new_group_starts_at_a_position(bench: Bench, driver: RedisDriver) -> None:
    positions = await driver.publish(bench.records(4))
    for number, position in enumerate(positions):
        start = str(position)
        group = await bench.join(driver, f"g{number}", start=start)
        reader = await bench.join(driver, None, start=start)
        expected = [b"%d" % n for n in range(number, 4)]
        assert bodies(await take(group, 4 - number)) == expected
        assert bodies(await take(reader, 4 - number)) == expected
        assert bodies(await browsed(bench, driver, start)) == expected


async def test_a_position_starts_every_partition(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=3))
    positions: list[object] = []
    for number in range(12):
        positions += await driver.publish([bench.record(number)])
        await asyncio.sleep(0.003)  # so that the ids differ in their milliseconds
    group = await bench.join(driver, start=str(positions[5]))
    assert sorted(bodies(await take(group, 7)), key=int) == [b"%d" % n for n in range(5, 12)]
    assert await nothing(group)


async def test_a_new_group_starts_at_a_time(bench: Bench, driver: RedisDriver) -> None:
    await driver.publish([bench.record(b"before")])
    await asyncio.sleep(0.01)
    seconds, micros = await driver.native.time()
    then = datetime.fromtimestamp(seconds + micros / 1e6, UTC)
    await driver.publish([bench.record(b"after")])
    for group in ("billing", None):
        source = await bench.join(driver, group, start=then)
        assert bodies(await take(source, 1)) == [b"after"]
    (item,) = await browsed(bench, driver, then)
    assert item.time is not None
    again = datetime.fromtimestamp(item.time, UTC)
    assert bodies(await browsed(bench, driver, again)) == [b"after"]


@pytest.mark.parametrize("start", ["middle", "5", "1-", "0:1-1", "99999999999999999999-0", ""])
async def test_a_text_that_is_no_position_is_refused(
    bench: Bench, driver: RedisDriver, start: Start
) -> None:
    await bench.join(driver, "there")
    for call in (
        bench.join(driver, "new", start=start),
        bench.join(driver, None, start=start),
        driver.seek(bench.topic(), native(bench, "there"), start),
        browsed(bench, driver, start),
    ):
        with pytest.raises(ConfigurationError):
            await call
    assert await groups(bench, driver) == ["there"]


async def test_a_position_of_a_partition_that_is_not_there_is_refused(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=3))
    for start in ("3:1-1", "1-1"):
        with pytest.raises(ConfigurationError, match="look like"):
            await bench.join(driver, start=start)


async def test_seek_discards_deliveries_and_delayed_copies(
    bench: Bench, driver: RedisDriver
) -> None:
    positions = await driver.publish(bench.records(6))
    source = await bench.join(driver)
    got = await take(source, 6)
    await source.nack([bench.nack(got[0]), bench.nack(got[1], 3600)])
    await source.ack(got[2:4])
    with pytest.raises(StateError, match="live members"):
        await driver.seek(bench.topic(), native(bench), "earliest")
    await source.aclose()
    for to, expected in (
        (str(positions[3]), [b"3", b"4", b"5"]),
        ("earliest", [b"%d" % n for n in range(6)]),
        ("latest", [b"new"]),
    ):
        await driver.seek(bench.topic(), native(bench), to)
        source = await bench.join(driver)
        if to == "latest":
            await driver.publish([bench.record(b"new")])
        back = await take(source, len(expected))
        assert bodies(back) == expected
        assert {item.redeliveries for item in back} == {0}
        assert await nothing(source)
        await source.aclose()
    with pytest.raises(NotFound):
        await driver.seek(bench.topic(), native(bench, "nobody"), "earliest")


async def test_seek_of_an_ordered_group(bench: Bench, driver: RedisDriver) -> None:
    positions = await driver.publish(bench.records(6))
    source = await ordered(bench, driver)
    await source.ack(await take(source, 6))
    with pytest.raises(StateError):
        await driver.seek(bench.topic(), native(bench), "earliest")
    await source.aclose()
    await driver.seek(bench.topic(), native(bench), str(positions[4]))
    again = await ordered(bench, driver)
    assert bodies(await take(again, 2)) == [b"4", b"5"]


async def test_browsing_ends_where_the_topic_ended_and_touches_nothing(
    bench: Bench, driver: RedisDriver
) -> None:
    source = await bench.join(driver)
    await driver.publish([*bench.records(10), later(bench, 3600)])
    seen: list[bytes] = []
    async for page in driver.browse(bench.topic()):
        seen += bodies(page)
        await driver.publish([bench.record(b"meanwhile")])
    assert seen == [b"%d" % n for n in range(10)]
    assert bodies(await browsed(bench, driver, "latest")) == []
    assert len(await take(source, 11)) == 11
    with pytest.raises(NotFound):
        async for _ in driver.browse(bench.topic(f"{bench.name}.missing")):
            pass


async def test_topics_are_listed_without_auxiliary_streams(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    empty, plain = f"{bench.name}.empty", f"{bench.name}.plain"
    await driver.declare(bench.topic(partitions=3))
    await driver.declare(bench.topic(empty))
    await driver.native.xadd(plain, {"data": "foreign"})
    source = await bench.join(driver)
    await driver.publish(bench.records(6))
    got = await take(source, 6)
    await source.nack([bench.nack(got[0]), bench.nack(got[1], 60)])
    mine = [name for name in await driver.topics() if name.startswith(bench.name)]
    assert mine == [bench.name, empty, plain]
    assert not [name for name in await driver.topics() if bench.name in name and "{" in name]


async def test_a_topic_is_described(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(partitions=2, retention=3600.0, retention_bytes=10**9)
    await driver.declare(topic)
    empty = await driver.describe_topic(topic)
    assert (empty.messages, empty.oldest, empty.delayed) == (0, None, 0)
    positions = await driver.publish([bench.record(b"x" * 1000, key="a") for _ in range(5)])
    await driver.publish([later(bench, 3600)])
    other = await bench.open()  # without that retention in its options
    info = await other.describe_topic(bench.topic())
    assert (info.messages, info.delayed, info.retention) == (5, 1, 3600.0)
    assert info.retention_bytes == 10**9
    assert info.bytes is not None
    assert info.bytes > 5000
    full = next(item for item in info.partitions if item.messages)
    assert (full.first, full.last, full.messages) == (positions[0], positions[-1], 5)
    assert info.oldest is not None
    assert abs((datetime.now(UTC) - info.oldest).total_seconds()) < 60
    with pytest.raises(NotFound):
        await driver.describe_topic(bench.topic(f"{bench.name}.missing"))


async def test_a_group_is_described(bench: Bench, driver: RedisDriver) -> None:
    source, other = await bench.join(driver), await bench.join(driver)
    await driver.publish(bench.records(5))
    got = await take(source, 4)
    await take(other, 1)
    await source.ack(got[:1])
    await source.nack([bench.nack(got[1], 3600), bench.nack(got[2])])
    (back,) = await take(source, 1)
    await source.nack([bench.nack(back)])
    await driver.publish(bench.records(5))
    info = await driver.describe_group(bench.topic(), native(bench))
    assert (info.lag, info.in_flight, info.waiting, info.ordered) == (9, 2, 2, False)
    assert info.lag_seconds is not None
    assert 0 <= info.lag_seconds < 60
    assert info.oldest_pending is not None
    assert 0 < info.oldest_pending < 60
    assert info.poison is not None
    assert (info.poison[0].position, len(info.poison)) == (got[2].position, 1)

    async def both_seen() -> bool:
        seen = await driver.describe_group(bench.topic(), native(bench))
        return sorted(item.in_flight or 0 for item in seen.members or ()) == [1, 1]

    await eventually(both_seen)
    await source.aclose()
    await other.aclose()
    info = await driver.describe_group(bench.topic(), native(bench))
    assert (info.members, info.in_flight, info.oldest_pending, info.lag) == ((), 0, 0.0, 9)
    with pytest.raises(NotFound):
        await driver.describe_group(bench.topic(), native(bench, "nobody"))


@pytest.mark.parametrize("start", ["earliest", "position", "latest"])
async def test_the_lag_of_a_new_group_is_known(
    bench: Bench, driver: RedisDriver, start: str
) -> None:
    positions = await driver.publish(bench.records(300))
    where = str(positions[100]) if start == "position" else start
    await bench.join(driver, start=where)
    await driver.publish(bench.records(3))
    info = await driver.describe_group(bench.topic(), native(bench))
    assert info.lag == {"earliest": 303, "position": 203, "latest": 3}[start]


async def test_an_ordered_group_is_described(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=2))
    source = await ordered(bench, driver)
    await driver.publish([bench.record(number, key="k") for number in range(10)])
    got = await take(source, 4)
    await source.ack([got[0], got[2]])
    info = await driver.describe_group(bench.topic(), native(bench))
    assert (info.lag, info.in_flight, info.waiting, info.ordered) == (8, 2, 0, True)
    assert info.members is not None
    assert [member.partitions for member in info.members] == [(0, 1)]
    assert info.partitions is not None
    assert sorted(item.lag or 0 for item in info.partitions) == [0, 8]
    assert await groups(bench, driver) == ["billing"]


async def keys_left(driver: RedisDriver, name: str) -> list[bytes]:
    keys: Any = await driver.native.keys(f"*{name}*")
    return [key for key in keys if b"._sent." not in key]


@pytest.mark.parametrize("kind", ["plain", "ordered"])
async def test_a_deleted_group_leaves_nothing(bench: Bench, kind: str) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=2))
    before = sorted(await keys_left(driver, bench.name))
    source = await (ordered(bench, driver) if kind == "ordered" else bench.join(driver))
    await driver.publish(bench.records(4))
    got = await take(source, 4)
    if kind == "plain":
        await source.nack([bench.nack(got[0]), bench.nack(got[1], 60)])
    with pytest.raises(StateError):
        await driver.delete_group(bench.topic(), native(bench))
    await source.aclose()
    await driver.delete_group(bench.topic(), native(bench))
    await driver.delete_group(bench.topic(), native(bench))
    assert await groups(bench, driver) == []
    streams = topic_keys(bench.name, 2).streams
    assert sorted(await keys_left(driver, bench.name)) == sorted({*before, *streams})
    # The group may be created again, also in the other mode.
    source = await (bench.join(driver) if kind == "ordered" else ordered(bench, driver))
    assert len(await take(source, 4)) == 4


async def test_a_deleted_topic_leaves_nothing(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=2))
    source, other = await bench.join(driver), await ordered(bench, driver, "ordered")
    await driver.publish([*bench.records(4), later(bench, 60)])
    got = await take(source, 4)
    await source.nack([bench.nack(got[0], 60)])
    await source.aclose()
    await other.aclose()
    await driver.delete_topic(bench.topic())
    await driver.delete_topic(bench.topic())
    assert await keys_left(driver, bench.name) == []
    await driver.declare(bench.topic(partitions=5))


async def test_purging_deletes_messages_for_everybody_and_leaves_the_groups(
    bench: Bench, driver: RedisDriver
) -> None:
    source, orderly = await bench.join(driver), await ordered(bench, driver, "ordered")
    await bench.join(driver, "idle")
    await driver.publish([*bench.records(6), later(bench, 0.5)])
    got = await take(source, 6)
    await source.nack([bench.nack(got[0]), bench.nack(got[1], 0.5)])
    held = await take(orderly, 2)
    await driver.purge(bench.topic())
    await source.ack(got[2:])
    await orderly.ack(held)
    info = await driver.describe_topic(bench.topic())
    assert (info.messages, info.delayed) == (0, 0)
    assert await groups(bench, driver) == ["billing", "idle", "ordered"]
    assert await nothing(source, 1.0)
    await driver.publish([bench.record(b"new")])
    assert bodies(await take(source, 1)) == [b"new"]
    assert b"new" in bodies(await take(orderly, 1)) + bodies(await orderly.receive(9, 0.2))
    for group in ("billing", "idle"):
        assert (await driver.describe_group(bench.topic(), native(bench, group))).lag == 1
