"""Groups: sharing, leases, settlement, and the deliveries of members that died."""

from __future__ import annotations

import asyncio
import time

import pytest

from anymq.driver import Received, Source, SourceLost
from anymq.testing.samples import join
from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import Bench, nack, record, records, rejected, spec, topic
from tests.adapters.support import attempt, bodies, drain


async def take(source: Source, count: int) -> list[Received]:
    got = await drain(source, count)
    assert len(got) == count
    return got


async def nothing(source: Source) -> bool:
    return not await source.receive(100, 0.0)


async def pending(driver: SqliteDriver) -> int:
    count: int = await driver.native.read(
        lambda db: db.execute("SELECT count(*) FROM pending").fetchone()[0]
    )
    return count


async def test_members_share_and_groups_do_not(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    first, second = await join(one, spec()), await join(two, spec())
    other = await join(two, spec("audit"))
    await one.publish(records(10))
    half = await take(first, 5)
    assert bodies(half) + bodies(await take(second, 5)) == [b"%d" % n for n in range(10)]
    assert await nothing(first)
    assert len(await take(other, 10)) == 10
    for source in (first, second, other):
        await source.aclose()


async def test_start_is_where_a_new_group_begins(driver: SqliteDriver) -> None:
    await driver.publish(records(2))
    latest = await join(driver, spec("late", start="latest"))
    earliest = await join(driver, spec("early", start="earliest"))
    await driver.publish([record(b"new")])
    assert bodies(await drain(latest, 3, seconds=0.1)) == [b"new"]
    assert bodies(await take(earliest, 3)) == [b"0", b"1", b"new"]
    await latest.aclose()
    again = await join(driver, spec("late", start="earliest"))
    assert bodies(await drain(again, 2, seconds=0.1)) == [b"new"]
    await earliest.aclose()
    await again.aclose()


async def test_acked_out_of_order_then_reopened(bench: Bench) -> None:
    driver = await bench.open()
    source = await join(driver, spec())
    await driver.publish(records(5))
    got = await take(source, 5)
    await source.ack([got[4], got[1], got[1]])
    await bench.aclose()
    driver = await bench.open()
    await driver.native.write(lambda db: db.execute("UPDATE pending SET due = 0"))
    source = await join(driver, spec())
    again = await take(source, 3)
    assert bodies(again) == [b"0", b"2", b"3"]
    assert [attempt(item) for item in again] == [2, 2, 2]
    assert await nothing(source)
    await source.aclose()


async def test_acks_of_many_touch_no_others(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.publish(records(120))
    taken = [*await take(source, 50), *await take(source, 70)]
    assert [item.body for item in taken] == [b"%d" % number for number in range(120)]
    kept = {3, 49, 50, 77, 119}
    done = [item for number, item in enumerate(taken) if number not in kept]
    await source.ack([*reversed(done), *done[:5]])
    assert await pending(driver) == len(kept)
    await source.aclose()
    again = await join(driver, spec())
    assert {int(item.body) for item in await take(again, 5)} == kept
    await again.aclose()


async def test_a_silent_member_loses_its_lease(driver: SqliteDriver) -> None:
    dead = await join(driver, spec(lease=0.2))
    heir = await join(driver, spec())
    await driver.publish(records(1))
    begin = time.time()
    (stale,) = await take(dead, 1)
    (got,) = await heir.receive(1, 2.0)
    assert time.time() - begin >= 0.2
    assert attempt(got) == 2
    # Settlements of the late member are stale.
    await dead.ack([stale])
    await dead.nack([nack(stale)])
    await dead.release([nack(stale, counted=False)])
    await dead.extend([stale])
    await dead.reject([rejected(stale)], driver.publish)
    assert await pending(driver) == 1
    await heir.nack([nack(got)])
    (got,) = await take(heir, 1)
    assert attempt(got) == 3
    await heir.ack([got])
    assert await pending(driver) == 0
    await dead.aclose()
    await heir.aclose()


async def test_the_same_member_settles_only_its_last_take(driver: SqliteDriver) -> None:
    source = await join(driver, spec(lease=0.05))
    await driver.publish(records(1))
    (first,) = await take(source, 1)
    (second,) = await take(source, 1)
    await source.ack([first])
    assert await pending(driver) == 1
    await source.ack([second])
    assert await pending(driver) == 0
    await source.aclose()


async def test_a_late_ack_counts_while_nobody_else_has_it(driver: SqliteDriver) -> None:
    source = await join(driver, spec(lease=0.01))
    await driver.publish(records(1))
    (got,) = await take(source, 1)
    await asyncio.to_thread(time.sleep, 0.02)
    await source.ack([got])
    assert await pending(driver) == 0
    await source.aclose()


async def test_extend_keeps_the_lease(driver: SqliteDriver) -> None:
    source = await join(driver, spec(lease=0.4))
    other = await join(driver, spec())
    await driver.publish(records(1))
    (got,) = await take(source, 1)
    for _ in range(3):
        assert await other.receive(1, 0.2) == []
        await source.extend([got])
    await source.ack([got])
    assert await pending(driver) == 0
    await source.aclose()
    await other.aclose()


async def test_an_extension_does_not_undo_a_nack(driver: SqliteDriver) -> None:
    source = await join(driver, spec(lease=0.01))
    await driver.publish(records(1))
    (got,) = await take(source, 1)
    await source.nack([nack(got, 60.0)])
    await source.extend([got])
    assert await source.receive(1, 0.1) == []
    await source.aclose()


async def test_nack_comes_back_after_its_delay_and_blocks_nobody(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.publish(records(2))
    first, second = await take(source, 2)
    begin = time.time()
    await source.nack([nack(first, 0.3)])
    await source.nack([nack(first, 0.0)])  # repeated: already settled
    await source.ack([second])
    await driver.publish([record(b"next")])
    (following,) = await take(source, 1)
    assert following.body == b"next"
    (again,) = await source.receive(5, 2.0)
    assert time.time() - begin >= 0.3
    assert time.time() - begin < 10
    assert (again.body, attempt(again), again.position) == (b"0", 2, first.position)
    await source.aclose()


async def test_a_delay_survives_a_restart(bench: Bench) -> None:
    driver = await bench.open()
    source = await join(driver, spec())
    await driver.publish(records(1))
    (got,) = await take(source, 1)
    begin = time.time()
    await source.nack([nack(got, 0.5)])
    await source.aclose()
    await bench.aclose()
    driver = await bench.open()
    source = await join(driver, spec())
    (got,) = await take(source, 1)
    assert time.time() - begin >= 0.5
    assert attempt(got) == 2
    await source.aclose()


async def test_release_is_not_an_attempt_and_keeps_the_order(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.publish(records(4))
    got = await take(source, 3)
    await source.release([nack(item, counted=False) for item in reversed(got)])
    again = await take(source, 4)
    assert bodies(again) == [b"0", b"1", b"2", b"3"]
    assert [attempt(item) for item in again] == [1, 1, 1, 1]
    await source.nack([nack(again[0])])
    (third,) = await take(source, 1)
    assert attempt(third) == 2
    await source.release([nack(third, counted=False)])
    (third,) = await take(source, 1)
    assert attempt(third) == 2
    await source.aclose()


@pytest.mark.parametrize("wanted", [1, 2, 5, 6, 9])
async def test_the_next_delivery_shows_the_attempt_the_core_asks_for(
    driver: SqliteDriver, wanted: int
) -> None:
    source = await join(driver, spec())
    await driver.publish([record(b"x")])
    (got,) = await take(source, 1)
    back = nack(got)
    back.attempt = 5
    await source.nack([back])
    (got,) = await take(source, 1)
    assert attempt(got) == 5
    back = nack(got)
    back.attempt = wanted
    await source.nack([back])
    (got,) = await take(source, 1)
    assert attempt(got) == wanted
    assert got.redeliveries >= 0
    await source.aclose()


async def test_reject_stores_the_letter_and_settles_in_one(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    letters = await join(driver, spec("undertaker"))
    await driver.publish(records(2))
    first, second = await take(source, 2)
    with pytest.raises(Exception, match="does not exist"):
        await source.reject([rejected(first)], driver.publish)
    assert await pending(driver) == 2
    await driver.declare(topic("orders.billing.dlq"))
    letters = await join(driver, spec("undertaker", topic=topic("orders.billing.dlq")))
    buried = [rejected(first), rejected(second)]
    await source.reject(buried, driver.publish)
    await source.reject(buried, driver.publish)
    assert await pending(driver) == 0
    assert bodies(await drain(letters, 3, seconds=0.2)) == [b"0", b"1"]
    await source.aclose()
    await letters.aclose()


async def test_leaving_gives_back_at_once(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    leaver, stayer = await join(one, spec()), await join(two, spec())
    await one.publish(records(3))
    await take(leaver, 3)
    waiting = asyncio.create_task(stayer.receive(10, 2.0))
    await leaver.aclose()
    await leaver.aclose()
    assert bodies(await waiting) == [b"0", b"1", b"2"]
    await stayer.aclose()


async def test_messages_of_a_cancelled_receive_return_uncounted(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.publish(records(3))
    await take(source, 1)
    for _ in range(50):
        receiving = asyncio.create_task(source.receive(10, 0.0))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
    again = await take(source, 2)
    assert [attempt(item) for item in again] == [1, 1]
    await source.aclose()


async def test_a_deleted_group_is_lost(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.native.write(lambda db: db.execute("DELETE FROM groups"))
    with pytest.raises(SourceLost):
        await source.receive(1, 0.0)
    await source.aclose()


async def test_a_deleted_message_is_not_waited_for(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.publish(records(2))
    got = await take(source, 2)
    await source.nack([nack(item) for item in got])
    await driver.native.write(lambda db: db.execute("DELETE FROM messages WHERE seq = 1"))
    assert bodies(await drain(source, 2, seconds=0.1)) == [b"1"]
    assert await pending(driver) == 1
    await source.aclose()


async def test_large_messages_come_a_few_at_a_time(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    megabyte = b"x" * 1024 * 1024
    for _ in range(6):
        await driver.publish([record(megabyte)])
    first = await source.receive(100, 1.0)
    assert len(first) == 4
    await source.nack([nack(item) for item in first])
    assert len(await source.receive(100, 1.0)) == 4
    assert len(await source.receive(100, 1.0)) == 2
    await source.aclose()


async def test_no_credit_no_records(driver: SqliteDriver) -> None:
    source = await join(driver, spec())
    await driver.publish(records(1))
    assert await source.receive(0, 0.0) == []
    await source.aclose()
