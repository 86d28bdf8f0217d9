"""Broadcast readers."""

from __future__ import annotations

import sqlite3

import pytest

from anymq.driver import SourceLost
from anymq.testing.samples import read
from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import Bench, record, records, spec
from tests.adapters.support import bodies, drain


async def test_every_reader_gets_everything_from_its_place_on(bench: Bench) -> None:
    one, two = await bench.open(), await bench.open()
    await one.publish(records(2))
    latest = await read(one, spec(None, start="latest"))
    earliest = await read(two, spec(None, start="earliest"))
    await two.publish([record(b"new")])
    assert bodies(await drain(latest, 2, seconds=0.2)) == [b"new"]
    assert bodies(await drain(earliest, 4, seconds=0.2)) == [b"0", b"1", b"new"]
    await latest.aclose()
    await earliest.aclose()


async def test_a_reader_leaves_nothing_in_the_file(driver: SqliteDriver) -> None:
    reader = await read(driver, spec(None))
    await driver.publish(records(3))
    assert len(await drain(reader, 3)) == 3
    await reader.aclose()
    query = "SELECT (SELECT count(*) FROM groups) + (SELECT count(*) FROM pending)"
    assert await driver.native.read(lambda db: db.execute(query).fetchone()) == (0,)


async def test_a_log_that_went_back_is_noticed(driver: SqliteDriver) -> None:
    await driver.publish(records(3))
    reader = await read(driver, spec(None, start="latest"))

    def restore(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM messages")
        db.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'messages'")

    await driver.native.write(restore)
    with pytest.raises(SourceLost):
        await reader.receive(1, 0.0)
    await reader.aclose()


async def test_a_deleted_topic_is_noticed(driver: SqliteDriver) -> None:
    reader = await read(driver, spec(None))
    await driver.native.write(lambda db: db.execute("DELETE FROM topics"))
    with pytest.raises(SourceLost):
        await reader.receive(1, 0.0)
    await reader.aclose()
