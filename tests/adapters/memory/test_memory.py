"""The memory driver, and its timers with a virtual clock."""

from __future__ import annotations

from anymq.testing import VirtualClock
from tests.adapters.memory.embedded import HOUR, Embedded, browsed
from tests.adapters.memory.support import Bench
from tests.adapters.support import bodies, nothing, take


class TestMemory(Embedded):
    pass


async def test_a_week_passes_in_no_time(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    clock = driver.clock = VirtualClock()
    await driver.declare(bench.topic())
    source = await bench.join(driver)
    week = 7 * 24 * HOUR
    await driver.publish([bench.record(b"x", deliver_at=clock.now() + week)])
    await clock.advance(week - 1)
    assert await nothing(source)
    await clock.advance(1)
    assert bodies(await take(source, 1)) == [b"x"]


async def test_retention_by_age_keeps_what_a_group_has_not_been_given(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    clock = driver.clock = VirtualClock()
    topic = bench.topic(retention=HOUR)
    await driver.declare(topic)
    fast, slow = await bench.join(driver, "fast"), await bench.join(driver, "slow")
    await driver.publish(bench.records(4))
    await fast.ack(await take(fast, 4))
    (held,) = await take(slow, 1)
    await clock.advance(2 * HOUR)
    await driver.publish([bench.record(b"new")])
    assert bodies(await browsed(driver, topic)) == [b"1", b"2", b"3", b"new"]
    assert bodies(await take(slow, 5)) == [b"0", b"1", b"2", b"3", b"new"], held.position
    assert bodies(await browsed(driver, topic)) == [b"new"]
    assert bodies(await take(fast, 1)) == [b"new"]


async def test_retention_by_size(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    topic = bench.topic(retention_bytes=1000)
    await driver.declare(topic)
    for _ in range(3):
        await driver.publish([bench.record(b"x" * 100) for _ in range(8)])
    info = await driver.describe_topic(topic)
    assert (info.messages, info.bytes) == (10, 1000)
    reader = await bench.join(driver, None, start="earliest")
    assert [item.position for item in await take(reader, 10)] == [str(n) for n in range(15, 25)]
