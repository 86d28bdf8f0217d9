"""Publishing: stored and refused records, and rows written by other programs."""

from __future__ import annotations

import sqlite3
import time

import pytest

from anymq.driver import Duplicate
from anymq.errors import MessageTooLarge, NotFound, translate
from anymq.testing.samples import join
from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import TOPIC, Bench, record, records, spec, topic
from tests.adapters.support import bodies, drain

ODD_HEADERS = {
    "ce-type": "täst ☃ 𝄞",
    "quotes": "\"'`;--",
    "x": "",
    "tab": "a\tb",
    "surrogate": "\udcff",
}


@pytest.mark.parametrize(
    "body", [b"", b"\x00\xff\x80", "søster".encode(), b"x" * 1024 * 1024], ids=len
)
async def test_comes_back_as_it_was_published(driver: SqliteDriver, body: bytes) -> None:
    sent = record(body, key="kæy", headers=ODD_HEADERS)
    source = await join(driver, spec())
    assert await driver.publish([sent]) == ["1"]
    (got,) = await drain(source, 1)
    assert (got.body, got.key, got.headers) == (body, "kæy", sent.headers)
    assert (got.position, got.native, got.redeliveries) == ("1", 1, 0)
    assert got.time is not None
    await source.aclose()


async def test_positions_follow_the_order_of_publishing(driver: SqliteDriver) -> None:
    outcomes = [*await driver.publish(records(3)), *await driver.publish(records(2))]
    assert [int(str(position)) for position in outcomes] == [1, 2, 3, 4, 5]


async def test_each_record_has_its_own_outcome(driver: SqliteDriver) -> None:
    bad_key = record(b"bad", key="\ud800")
    outcomes = await driver.publish([record(b"1"), record(name="nowhere"), bad_key, record(b"2")])
    assert isinstance(outcomes[0], str)
    assert isinstance(outcomes[1], NotFound)
    assert isinstance(outcomes[2], UnicodeEncodeError)
    assert isinstance(outcomes[3], str)
    source = await join(driver, spec())
    assert bodies(await drain(source, 2)) == [b"1", b"2"]
    await source.aclose()


async def test_a_body_over_sqlites_limit_harms_no_other(driver: SqliteDriver) -> None:
    await driver.native.read(lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000))
    outcomes = await driver.publish([record(b"1"), record(b"x" * 100_001), record(b"2")])
    assert isinstance(outcomes[1], sqlite3.DataError)
    error = translate(outcomes[1], driver.errors, doing="publish", where="here")
    assert isinstance(error, MessageTooLarge)
    source = await join(driver, spec())
    assert bodies(await drain(source, 2)) == [b"1", b"2"]
    await source.aclose()


async def test_a_repeated_publish_is_stored_once(driver: SqliteDriver) -> None:
    first, other = record(b"first"), record(b"other")
    again = record(b"again", unique=first.unique)
    elsewhere = record(b"elsewhere", name="payments", unique=first.unique)
    await driver.declare(topic("payments"))
    (position,) = await driver.publish([first])
    outcomes = await driver.publish([other, again, elsewhere, other])
    assert outcomes[1] == position
    assert outcomes[0] == outcomes[3] != position
    assert outcomes[2] not in (position, outcomes[0])
    source = await join(driver, spec())
    assert bodies(await drain(source, 3, seconds=0.1)) == [b"first", b"other"]
    await source.aclose()


async def test_a_delayed_one_is_stored_once(driver: SqliteDriver) -> None:
    delayed = record(b"x", deliver_at=time.time() + 0.2)
    outcomes = [(await driver.publish([delayed]))[0] for _ in range(2)]
    assert outcomes == [None, ""]
    assert isinstance(outcomes[1], Duplicate)
    source = await join(driver, spec())
    assert bodies(await drain(source, 1)) == [b"x"]
    (late,) = await driver.publish([delayed])
    assert isinstance(late, Duplicate)
    await source.aclose()


async def test_a_delayed_one_that_is_overtaken_by_its_like_is_kept(driver: SqliteDriver) -> None:
    delayed = record(b"delayed", deliver_at=time.time() + 0.2)
    assert await driver.publish([delayed]) == [None]
    await driver.publish([record(b"at once", unique=delayed.unique)])
    source = await join(driver, spec())
    assert bodies(await drain(source, 2)) == [b"at once", b"delayed"], "each receipt says: stored"
    await source.aclose()


async def test_a_repetition_among_many_moves_no_other(driver: SqliteDriver) -> None:
    many = records(120)
    (first,) = await driver.publish([many[70]])
    outcomes = [int(str(outcome)) for outcome in await driver.publish(many)]
    assert outcomes.pop(70) == int(str(first))
    assert outcomes == sorted(set(outcomes))
    source = await join(driver, spec())
    order = [70, *range(70), *range(71, 120)]
    assert bodies(await drain(source, 120)) == [b"%d" % number for number in order]
    await source.aclose()


async def test_plain_sql_publishes_and_subscribers_are_woken(bench: Bench) -> None:
    driver = await bench.open()
    source = await join(driver, spec())
    assert await source.receive(10, 0.0) == []
    with sqlite3.connect(bench.path) as db:
        db.execute(
            "INSERT INTO messages (topic, body) SELECT id, 'hello' FROM topics WHERE name = ?",
            (TOPIC,),
        )
    db.close()
    (got,) = await source.receive(10, 2.0)
    assert (got.body, got.key, got.headers, got.position) == (b"hello", None, {}, "1")
    assert got.time is not None
    assert got.time > 1_700_000_000
    await source.aclose()


@pytest.mark.parametrize(
    ("body", "headers", "expected_body", "expected_headers"),
    [
        (b"raw", "not json", b"raw", {}),
        ("text", "[1]", b"text", {}),
        (42, '{"n": 1, "s": "x"}', b"42", {"n": "1", "s": "x"}),
        (1.5, b"\xff\xfe", b"1.5", {}),
    ],
)
async def test_rows_of_any_shape_are_received(
    driver: SqliteDriver,
    body: object,
    headers: object,
    expected_body: bytes,
    expected_headers: dict[str, str],
) -> None:
    insert = "INSERT INTO messages (topic, key, body, headers, time) VALUES (1, ?, ?, ?, 'noon')"
    await driver.native.write(lambda db: db.execute(insert, (b"k\xff", body, headers)))
    source = await join(driver, spec())
    (got,) = await drain(source, 1)
    assert (got.body, got.headers, got.key) == (expected_body, expected_headers, "k\\xff")
    await source.aclose()


async def test_an_operators_topic_is_not_made(driver: SqliteDriver) -> None:
    await driver.declare(topic("theirs", create=False))
    (outcome,) = await driver.publish([record(name="theirs")])
    assert isinstance(outcome, NotFound)
    with pytest.raises(NotFound):
        await join(driver, spec(topic=topic("theirs")))


async def test_an_operators_group_is_not_made(driver: SqliteDriver) -> None:
    with pytest.raises(NotFound):
        await join(driver, spec(create=False))
    await (await join(driver, spec())).aclose()
    await (await join(driver, spec(create=False))).aclose()


async def test_a_mapped_topic_has_its_own_name_in_the_file(driver: SqliteDriver) -> None:
    mapped = topic("sales")
    await driver.declare(mapped)
    await driver.declare(type(mapped)(name="bought", native="sales", create=False))
    await driver.publish([record(b"1", name="bought")])
    source = await join(driver, spec(topic=topic("sales")))
    assert bodies(await drain(source, 1)) == [b"1"]
    await source.aclose()


async def test_names_in_the_file_are_the_users(driver: SqliteDriver) -> None:
    await (await join(driver, spec())).aclose()
    names = await driver.native.read(
        lambda db: db.execute(
            "SELECT topics.name, groups.name FROM topics JOIN groups ON topic = topics.id"
        ).fetchall()
    )
    assert names == [("orders", "orders.billing")]
