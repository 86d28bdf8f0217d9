"""What ordered groups stand on: logs that are read from any place, and cells."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace

import nats.errors
import pytest

from anymq.driver import Received, partition_of
from anymq.driver.ordered.log import Cell
from anymq_nats import NatsDriver
from anymq_nats.ordered import StreamLog
from anymq_nats.topology import find_stream, make_cells, make_marker
from tests.adapters.nats.support import Bench, Proxy, stored
from tests.adapters.support import bodies, eventually

pytestmark = pytest.mark.nats


async def opened(bench: Bench, driver: NatsDriver, partitions: int = 1) -> StreamLog:
    topic = bench.topic(partitions=partitions)
    await driver.declare(topic)
    stream = await find_stream(driver._connection, topic)
    marker = await make_marker(driver._connection, stream, replace(bench.spec(), ordered=True))
    await make_cells(driver._connection, stream, driver._options)
    return StreamLog(driver._connection, driver._publisher, marker)


async def read(
    log: StreamLog, behind: Mapping[int, str], count: int, *, limit: int = 1000
) -> list[Received]:
    """Read `count` records behind the places."""
    got: list[Received] = []
    places = dict(behind)

    async def all_there() -> bool:
        with contextlib.suppress(nats.errors.ConnectionReconnectingError):
            for record in await log.read(places, limit, 0.5):
                places[record.partition] = record.position
                got.append(record)
        return len(got) >= count

    await eventually(all_there)
    assert len(got) == count
    return got


async def test_partitions_are_read_in_their_order(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    log = await opened(bench, driver, 8)
    stored(await driver.publish([bench.record(n, key=f"k-{n % 20}") for n in range(400)]))
    start = {number: await log.cursor_at(number, "earliest") for number in range(8)}
    got = await read(log, start, 400, limit=37)
    for number in range(8):
        expected = [b"%d" % n for n in range(400) if partition_of(f"k-{n % 20}", 8) == number]
        assert bodies([record for record in got if record.partition == number]) == expected
    await log.aclose()


async def test_the_same_places_give_the_same_records(bench: Bench, driver: NatsDriver) -> None:
    log = await opened(bench, driver)
    positions = stored(await driver.publish(bench.records(20)))
    first = await read(log, {0: "0"}, 20)
    assert [record.position for record in first] == positions
    assert bodies(await read(log, {0: "0"}, 20)) == bodies(first)
    assert bodies(await read(log, {0: positions[14]}, 5)) == bodies(first)[15:]
    assert await log.read({0: positions[-1]}, 10, 0.1) == []
    await log.aclose()


async def test_a_full_partition_does_not_starve_the_others(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    log = await opened(bench, driver, 4)
    few = {partition_of(key, 4): key for key in map(str, range(50))}
    stored(await driver.publish([bench.record(key=few[0]) for _ in range(1000)]))
    stored(await driver.publish([bench.record(b"few", key=few[n]) for n in (1, 2, 3)]))
    places = dict.fromkeys(range(4), "0")
    seen = calls = 0
    while seen < 3:
        calls += 1
        for record in await log.read(places, 20, 1.0):
            places[record.partition] = record.position
            seen += record.body == b"few"
        assert calls < 15
    await log.aclose()


async def test_reading_waits_for_the_first_record_of_any_partition(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    log = await opened(bench, driver, 8)
    places = dict.fromkeys(range(8), "0")
    assert await log.read(places, 10, 0.2) == []
    stored(await driver.publish([bench.record(b"x", key="o-17")]))
    begun = time.monotonic()
    (record,) = await log.read(places, 10, 2.0)
    assert record.partition == partition_of("o-17", 8)
    assert time.monotonic() - begun < 1.0
    await log.aclose()


async def test_a_trimmed_place_goes_on_at_the_oldest(bench: Bench, driver: NatsDriver) -> None:
    log = await opened(bench, driver)
    stored(await driver.publish(bench.records(10)))
    await driver.native.jsm().purge_stream(bench.stream, seq=8)
    assert bodies(await read(log, {0: "2"}, 3)) == [b"7", b"8", b"9"]
    assert await log.cursor_at(0, "latest") == "10"
    await log.aclose()


async def test_nothing_is_skipped_when_the_connection_breaks(bench: Bench, server_url: str) -> None:
    async with Proxy(int(server_url.rpartition(":")[2])) as proxy, Bench(proxy.url) as other:
        driver = await other.open()
        log = await opened(other, driver)
        writer = await bench.open(declare=False)
        await writer.declare(other.topic())
        places = {0: "0"}
        seen: list[bytes] = []
        for round_ in range(5):
            stored(await writer.publish([other.record(round_ * 40 + n) for n in range(40)]))

            async def taken() -> bool:
                try:
                    got = await log.read(places, 30, 1.0)
                except Exception:
                    return False
                places[0] = got[-1].position if got else places[0]
                seen.extend(bodies(got))
                return bool(got)

            await eventually(taken)
            proxy.cut()
        seen += bodies(await read(log, places, 200 - len(seen)))
        assert seen == [b"%d" % number for number in range(200)]
        await log.aclose()


async def test_a_cell_is_written_by_who_saw_its_latest_state(
    bench: Bench, driver: NatsDriver
) -> None:
    log = await opened(bench, driver, 1)
    other = await opened(bench, await bench.open())
    assert await log.load() == {}
    (first,) = (await log.save({0: Cell("a", 0)})).values()
    assert first is not None
    # As after a lost answer, with what has happened since.
    (first,) = (await log.save({0: Cell("a2", 0)})).values()
    assert first is not None
    assert await other.save({0: Cell("a", 0)}) == {0: None}
    assert await other.load() == {0: Cell("a2", first)}
    (second,) = (await other.save({0: Cell("b", first)})).values()
    assert second is not None
    assert await log.save({0: Cell("c", first)}) == {0: None}
    assert await log.load() == {0: Cell("b", second)}
    await log.aclose()
    await other.aclose()


async def test_reading_is_fast(bench: Bench, driver: NatsDriver) -> None:
    log = await opened(bench, driver)
    for _ in range(10):
        stored(await driver.publish([bench.record(b"x" * 256) for _ in range(1000)]))
    begun = time.monotonic()
    assert len(await read(log, {0: "0"}, 10_000)) == 10_000
    print("records/s", 10_000 / (time.monotonic() - begun))
    assert time.monotonic() - begun < 30
    await log.aclose()
