"""Settlement, leases, and crashed members."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.exceptions import RedisError

from anymq.driver import Begun, Record, Rejected
from anymq.errors import NotFound
from anymq.ids import new_id
from anymq.testing.samples import join
from anymq_redis import RedisDriver
from tests.adapters.redis.support import Bench, bodies_stored
from tests.adapters.support import attempt, bodies, eventually, nothing, take

pytestmark = pytest.mark.redis


async def pending(bench: Bench, driver: RedisDriver) -> int:
    retry = f"{{{bench.name}}}.billing._retry"
    counts = [await driver.native.xpending(key, "billing") for key in (bench.name, retry)]
    return sum(int(count["pending"]) for count in counts)


async def test_acked_records_are_not_redelivered(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver, lease=0.5)
    await driver.publish(bench.records(3))
    got = await take(source, 3)
    await source.ack([got[2], got[0]])
    await source.ack([got[0]])  # again
    await source.aclose()
    again = await bench.join(driver, lease=0.5)
    assert bodies(await take(again, 1)) == [b"1"]
    assert await nothing(again, 1.0)


async def test_a_crash_redelivers_exactly_the_unacked_records(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    dying = await join(one, bench.spec(lease=0.5))
    await one.publish(bench.records(5))
    got = await take(dying, 5)
    await dying.ack([got[4], got[1]])
    # A crash: it neither extends nor closes.
    source = await bench.join(two, lease=0.5)
    back = await take(source, 3)
    assert bodies(back) == [b"0", b"2", b"3"]
    assert [item.redeliveries for item in back] == [1, 1, 1]
    await dying.ack([got[0]])  # stale: another member owns it
    await source.ack(back[1:])
    assert await pending(bench, two) == 1
    await dying.aclose()
    assert await pending(bench, two) == 1


async def test_crashes_are_counted_one_by_one(bench: Bench, driver: RedisDriver) -> None:
    await driver.publish([bench.record()])
    for count in range(4):
        source = await bench.join(driver, lease=0.2)
        (item,) = await take(source, 1)
        assert item.redeliveries == count


async def test_our_own_lease_can_end_too(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver, lease=0.3)
    await driver.publish([bench.record()])
    (first,) = await take(source, 1)
    (second,) = await take(source, 1)
    assert second.redeliveries == 1
    await source.ack([first])  # stale
    assert await pending(bench, driver) == 1
    await source.ack([second])
    assert await pending(bench, driver) == 0


async def test_extending_beats_the_lease_and_takes_nothing_back(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    source, rival = await bench.join(one, lease=0.6), await bench.join(two, lease=0.6)
    await one.publish([bench.record()])
    held = await take(source, 1)
    for _ in range(5):
        await source.extend(held)
        assert await nothing(rival, 0.3)
    (taken,) = await take(rival, 1)
    assert taken.redeliveries == 1  # extending does not count
    await source.extend(held)
    await source.ack(held)
    assert await pending(bench, one) == 1
    await rival.ack([taken])
    assert await pending(bench, one) == 0


async def test_a_nack_is_redelivered_at_once_with_its_attempt(
    bench: Bench, driver: RedisDriver
) -> None:
    source, other = await bench.join(driver), await bench.join(driver, "audit")
    (position,) = await driver.publish([bench.record(b"x", headers={"x-kept": "ü"})])
    for count in range(1, 4):
        (item,) = await take(source, 1)
        assert (item.body, attempt(item), item.position) == (b"x", count, position)
        assert item.headers["x-kept"] == "ü"
        assert item.time == int(str(position).split("-")[0]) / 1000
        await source.nack([bench.nack(item)])
    assert len(await take(other, 1)) == 1
    assert await nothing(other, 0.2)  # the copies went to one group only
    assert await driver.native.xlen(bench.name) == 1


@pytest.mark.parametrize("delay", [0.05, 0.7, 2.5])
async def test_a_delayed_nack_is_never_early_and_hardly_late(
    bench: Bench, driver: RedisDriver, delay: float
) -> None:
    source, other = await bench.join(driver), await bench.join(driver)
    await driver.publish([bench.record(b"x" * 300_000)])
    (item,) = await take(source, 1)
    waiting = asyncio.create_task(take(other, 1))
    begun = time.monotonic()
    await source.nack([bench.nack(item, delay)])
    (back,) = await waiting
    took = time.monotonic() - begun
    assert delay <= took < delay + 1
    assert (len(back.body), attempt(back)) == (300_000, 2)
    await other.ack([back])
    for kind in ("_delayed", "_payloads"):
        assert not await driver.native.exists(f"{{{bench.name}}}.billing.{kind}")
    assert not await driver.native.xlen(f"{{{bench.name}}}.billing._retry")


async def test_a_delay_outlives_the_member_that_asked_for_it(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    source = await join(one, bench.spec())
    await one.publish([bench.record(b"x")])
    (item,) = await take(source, 1)
    await source.nack([bench.nack(item, 0.5)])
    await source.aclose()
    other = await bench.join(two)
    assert bodies(await take(other, 1)) == [b"x"]


async def test_settling_again_after_a_lost_answer_does_nothing(
    bench: Bench, driver: RedisDriver
) -> None:
    source = await bench.join(driver)
    await driver.publish(bench.records(3))
    first, second, third = await take(source, 3)
    nack, letter = bench.nack(first), bench.rejected(second)
    for _ in range(2):
        await source.nack([nack])
        await source.reject([letter], driver.publish)
        await source.release([bench.nack(third, counted=False)])
        # As after a lost reply: the source still holds the tokens.
        for item in (first, second, third):
            source._member.held[0][item.token.id] = item.token
    assert sorted(bodies(await take(source, 2))) == [b"0", b"2"]
    assert await nothing(source, 0.2)
    assert await driver.native.xlen(letter.letter.topic) == 1


async def test_a_release_wakes_another_member_and_counts_nothing(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    source = await bench.join(one)
    (position,) = await one.publish([bench.record(b"x")])
    (item,) = await take(source, 1)
    await source.nack([bench.nack(item)])
    (item,) = await take(source, 1)
    assert attempt(item) == 2
    other = await bench.join(two)
    for giver, taker in ((source, other), (other, source), (source, other)):
        waiting = asyncio.create_task(take(taker, 1))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await giver.release([bench.nack(item, counted=False)])
        (item,) = await waiting
        assert time.monotonic() - begun < 1
        assert (attempt(item), item.body, item.position) == (2, b"x", position)


async def test_a_release_keeps_the_count_of_crashes(bench: Bench, driver: RedisDriver) -> None:
    await driver.publish([bench.record()])
    await take(await bench.join(driver, lease=0.2), 1)
    source = await bench.join(driver, lease=0.2)
    (item,) = await take(source, 1)
    assert item.redeliveries == 1
    await source.release([bench.nack(item, counted=False)])
    (item,) = await take(source, 1)
    assert attempt(item) == 2


async def test_a_rejected_message_becomes_a_dead_letter_in_one_step(
    bench: Bench, driver: RedisDriver
) -> None:
    source = await bench.join(driver, lease=0.3)
    await driver.publish(bench.records(2))
    items = await take(source, 2)
    await source.reject([bench.rejected(item) for item in items], driver.publish)
    assert await pending(bench, driver) == 0
    assert await bodies_stored(driver, f"{bench.name}.billing.dlq") == [b"0", b"1"]
    assert await nothing(source, 0.6)


async def test_a_letter_that_cannot_be_stored_settles_nothing(
    bench: Bench, driver: RedisDriver
) -> None:
    wrong, missing = f"{bench.name}.string", f"{bench.name}.missing"
    await driver.native.set(wrong, "x")
    await driver.declare(bench.topic(missing, create=False))
    source = await bench.join(driver)
    await driver.publish(bench.records(3))
    first, second, third = await take(source, 3)
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await source.reject([bench.rejected(first, wrong), bench.rejected(second)], driver.publish)
    with pytest.raises(NotFound):
        await source.reject([bench.rejected(third, missing)], driver.publish)
    assert await pending(bench, driver) == 2
    await source.reject([bench.rejected(first), bench.rejected(second)], driver.publish)
    assert await driver.native.xlen(f"{bench.name}.billing.dlq") == 2
    await driver.native.delete(wrong)


async def test_a_stale_reject_writes_no_letter(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    source, rival = await bench.join(one, lease=0.3), await bench.join(two, lease=0.3)
    await one.publish([bench.record()])
    (stale,) = await take(source, 1)
    (item,) = await take(rival, 1)
    letter = Record(topic=f"{bench.name}.dlq", id=new_id(), unique=new_id(), body=b"")
    await source.reject([Rejected(stale, letter)], one.publish)
    await source.nack([bench.nack(stale)])
    await source.release([bench.nack(stale, counted=False)])
    assert not await one.native.exists(letter.topic)
    await rival.ack([item])
    assert await pending(bench, two) == 0
    assert await nothing(rival, 0.2)


async def test_leaving_returns_unsettled_entries_and_deletes_the_consumer(
    bench: Bench,
) -> None:
    one, two = await bench.open(), await bench.open()
    source, other = await bench.join(one), await bench.join(two)
    await one.publish(bench.records(250))
    got = await take(source, 250)
    await source.ack(got[:50])
    await source.begin([Begun(item, 2) for item in got[50:90]])
    begun = time.monotonic()
    await source.aclose()
    await source.aclose()
    back = await take(other, 200)
    assert time.monotonic() - begun < 10
    assert bodies(back) == bodies(got[50:])
    assert [attempt(item) for item in back] == [2] * 40 + [1] * 160
    assert {item.position for item in back} == {item.position for item in got[50:]}
    names = [info["name"] for info in await two.native.xinfo_consumers(bench.name, "billing")]
    assert source._member.name not in names


async def test_many_are_settled_in_one_call(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    for _ in range(5):
        await driver.publish(bench.records(500))
    got = await take(source, 2500)
    await source.extend(got)
    await source.nack([bench.nack(item) for item in got[:1100]])
    await source.release([bench.nack(item, counted=False) for item in got[1100:1300]])
    await source.ack(got[1300:])
    back = await take(source, 1300)
    assert sorted(bodies(back)) == sorted(bodies(got[:1300]))
    await source.ack(back)
    assert await pending(bench, driver) == 0


async def test_errors_of_the_server_are_raised(bench: Bench, driver: RedisDriver) -> None:
    source = await bench.join(driver)
    await driver.publish([bench.record()])
    got = await take(source, 1)
    await driver.native.set(bench.name, "a string now")
    for call in (source.ack(got), source.extend(got), source.nack([bench.nack(got[0])])):
        with pytest.raises(RedisError, match="WRONGTYPE"):
            await call
    await driver.native.delete(bench.name)


async def test_settling_survives_a_server_that_forgot_the_scripts(
    bench: Bench, driver: RedisDriver
) -> None:
    source = await bench.join(driver)
    await driver.publish([bench.record()])
    got = await take(source, 1)
    await driver.native.script_flush()
    await source.ack(got)

    async def settled() -> bool:
        return await pending(bench, driver) == 0

    await eventually(settled)
