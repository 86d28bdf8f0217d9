"""Versions of the tables, and files of other applications."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from anymq.errors import ConfigurationError
from anymq.testing.samples import join_ordered
from anymq_sqlite import Database
from anymq_sqlite.file.schema import APPLICATION_ID, FIRST, VERSION
from tests.adapters.sqlite.support import TOPIC, Bench, record, records, spec, topic
from tests.adapters.support import bodies, take


def change(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


async def test_a_file_says_whose_it_is(bench: Bench) -> None:
    driver = await bench.open()
    query = "SELECT * FROM pragma_application_id, pragma_user_version"
    found = await driver.native.read(lambda db: db.execute(query).fetchone())
    assert found == (APPLICATION_ID, VERSION)


async def test_a_newer_file_is_refused(bench: Bench) -> None:
    await bench.open()
    await bench.aclose()
    change(bench.path, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(ConfigurationError, match="upgrade anymq"):
        await bench.open()


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE users (id)", "PRAGMA user_version = 7", "PRAGMA application_id = 5"]
)
async def test_another_applications_file_is_left_alone(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "app.db"
    change(path, statement)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another application"):
        await Database.open(path)
    assert path.read_bytes() == before


async def test_tables_of_the_user_may_be_added(bench: Bench) -> None:
    driver = await bench.open()
    await driver.native.write(lambda db: db.execute("CREATE TABLE mine (id)"))
    await bench.aclose()
    await bench.open()


@pytest.fixture
def old(bench: Bench) -> sqlite3.Connection:
    """A program of the first version that uses the file."""
    db = sqlite3.connect(bench.path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(FIRST)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    db.execute("INSERT INTO topics (name, retention) VALUES (?, 3600)", (TOPIC,))
    db.execute("INSERT INTO groups (topic, name, cursor) VALUES (1, ?, 2)", (f"{TOPIC}.billing",))
    old_publish(db, 0, 1, 2)
    db.execute("INSERT INTO pending VALUES (1, 1, 0, NULL, 0, 3)")
    return db


def old_publish(db: sqlite3.Connection, *numbers: int) -> None:
    db.executemany(
        "INSERT INTO messages (topic, body) VALUES (1, ?)", [(b"%d" % n,) for n in numbers]
    )


async def test_a_file_of_the_first_version_goes_on(bench: Bench, old: sqlite3.Connection) -> None:
    driver = await bench.open()
    source = await bench.join(driver)
    got = await take(source, 2)
    assert [(item.body, item.redeliveries) for item in got] == [(b"0", 4), (b"2", 0)]
    await source.ack(got)
    # The old program does not use the new columns and tables.
    old_publish(old, 3)
    await driver.publish(records(1))
    assert bodies(await take(source, 2)) == [b"3", b"0"]
    info = await driver.describe_topic(topic())
    assert (info.messages, info.retention, len(info.partitions)) == (5, 3600, 1)
    assert old.execute("PRAGMA user_version").fetchone() == (VERSION,)
    old.close()


async def test_a_topic_of_the_first_version_has_one_partition(
    bench: Bench, old: sqlite3.Connection
) -> None:
    old.close()
    driver = await bench.open()
    with pytest.raises(ConfigurationError, match="1 partitions, not 4"):
        await driver.declare(topic(partitions=4))
    source = await join_ordered(driver, replace(spec("lanes"), ordered=True))
    await driver.publish([record(b"new", key="k")])
    assert bodies(await take(source, 4)) == [b"0", b"1", b"2", b"new"]
    await source.aclose()
