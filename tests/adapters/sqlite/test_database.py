"""Opening, sharing, losing and closing the file; transactions shared by jobs."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from anymq.driver import SourceLost
from anymq.errors import Closed, ConfigurationError, NotFound
from anymq.testing.samples import join
from anymq_sqlite import Database, SqliteDriver
from anymq_sqlite.file import connection as connection_module
from anymq_sqlite.file.connection import WriteLock
from anymq_sqlite.file.notifications import WriteNotifier
from tests.adapters.sqlite.support import Bench, nack, record, records, spec, topic
from tests.adapters.support import bodies, drain


def insert(db: sqlite3.Connection, name: str) -> None:
    db.execute("INSERT INTO topics (name) VALUES (?)", (name,))


def names(db: sqlite3.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM topics ORDER BY id")]


async def test_only_the_owner_may_read_the_files(bench: Bench) -> None:
    before = os.umask(0)
    try:
        driver = await bench.open()
        await driver.publish(records(1))
    finally:
        os.umask(before)
    files = sorted(bench.path.parent.iterdir())
    assert [file.name for file in files] == [
        "broker.db", "broker.db-lock", "broker.db-shm", "broker.db-turn", "broker.db-wal"
    ]  # fmt: skip
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_commit_is_forced_to_disk_unless_told_otherwise(bench: Bench) -> None:
    cases: list[tuple[dict[str, Any], int]] = [({}, 2), ({"synchronous": "normal"}, 1)]
    for options, level in cases:
        driver = await bench.open(**options)
        assert await driver.native.read(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (
            level,
        )


async def test_takes_and_acks_alone_do_not_wait_for_the_disk(
    bench: Bench, driver: SqliteDriver
) -> None:
    async def level() -> int:
        query = "PRAGMA synchronous"
        (found,) = await driver.native.read(lambda db: db.execute(query).fetchone())
        return int(found)

    source = await join(driver, spec())
    await driver.publish(records(2))
    assert await level() == 2
    first, second = await source.receive(2, 1.0)
    assert await level() == 1
    await source.nack([nack(first)])
    assert await level() == 2
    await source.extend([second])
    await source.ack([second])
    assert await level() == 1
    await driver.publish(records(1))
    assert await level() == 2
    await source.aclose()


async def test_a_durable_job_starts_its_own_transaction(driver: SqliteDriver) -> None:
    database = driver.native
    said: list[str] = []
    held = threading.Event()
    first = database.submit(lambda db: held.wait(10), writes=True, durable=False)
    tracing = database.submit(lambda db: db.set_trace_callback(said.append), writes=False)
    rest = [
        database.submit(lambda db, n=n: insert(db, f"t{n}"), writes=True, durable=n == 1)  # type: ignore[misc]
        for n in range(3)
    ]
    held.set()
    await asyncio.gather(first, tracing, *rest)
    await database.read(lambda db: db.set_trace_callback(None))
    assert await database.read(names) == ["orders", "t0", "t1", "t2"]
    forced = said.index("PRAGMA synchronous = FULL")
    assert sum("INSERT" in statement for statement in said[:forced]) == 1
    assert sum("INSERT" in statement for statement in said[forced:]) == 2


async def test_a_job_with_nothing_to_write_takes_no_turn(driver: SqliteDriver) -> None:
    database = driver.native
    other = WriteLock(database.path)
    other.acquire()
    idle: asyncio.Future[str] = database.submit(
        lambda db: "written", writes=True, unless=lambda db: "idle"
    )
    assert await idle == "idle"
    other.close()
    written = database.submit(lambda db: "written", writes=True, unless=lambda db: None)
    assert await written == "written"


async def test_a_failing_job_harms_no_other(bench: Bench, driver: SqliteDriver) -> None:
    def fail(db: sqlite3.Connection) -> None:
        insert(db, "half")
        raise LookupError("mine")

    def stop(db: sqlite3.Connection) -> None:
        raise StopIteration

    database = driver.native
    results = await asyncio.gather(
        database.write(lambda db: insert(db, "a")),
        database.write(fail),
        database.write(lambda db: insert(db, "a")),
        database.write(stop),
        database.read(names),
        database.write(lambda db: insert(db, "b")),
        return_exceptions=True,
    )
    kinds = [type(result) for result in results]
    assert kinds == [
        type(None), LookupError, sqlite3.IntegrityError, RuntimeError, list, type(None)
    ]  # fmt: skip
    assert await database.read(names) == ["orders", "a", "b"]


async def test_jobs_queued_together_share_a_transaction(driver: SqliteDriver) -> None:
    database = driver.native
    begun = 0

    def trace(statement: str) -> None:
        nonlocal begun
        begun += statement.startswith("BEGIN")

    held = threading.Event()
    first = database.submit(lambda db: held.wait(10), writes=True)
    tracing = database.submit(lambda db: db.set_trace_callback(trace), writes=False)
    rest = [
        database.submit(lambda db, n=n: insert(db, f"t{n}"), writes=True)  # type: ignore[misc]
        for n in range(50)
    ]
    held.set()
    await asyncio.gather(first, tracing, *rest)
    await database.read(lambda db: db.set_trace_callback(None))
    assert len(await database.read(names)) == 51
    assert begun < 10


async def test_a_busy_file_is_waited_for_and_given_up_in_time(bench: Bench) -> None:
    driver = await bench.open(busy_timeout=0.5)
    other = sqlite3.connect(bench.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    calls = [driver.publish([record(b"x")]) for _ in range(10)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {sqlite3.OperationalError}
    assert 0.5 <= time.monotonic() - begin < 4.0  # all at once, not one after the other
    waiting = asyncio.create_task(driver.publish([record(b"late")]))
    await driver.ping()  # reading needs no lock
    other.execute("ROLLBACK")
    assert isinstance((await waiting)[0], str)
    other.close()


async def test_one_writer_at_a_time_with_its_checkpoint(bench: Bench) -> None:
    driver = await bench.open(busy_timeout=0.2)
    other = WriteLock(bench.path)
    other.acquire()
    with pytest.raises(BlockingIOError):
        await driver.publish([record(b"x")])
    waiting = asyncio.create_task(driver.publish([record(b"x")]))
    await driver.ping()
    other.release()
    assert await waiting == ["1"]
    other.close()


def test_a_lock_that_was_taken_reserves_the_next_turn(tmp_path: Path) -> None:
    first, second, third = (WriteLock(tmp_path / "broker.db") for _ in range(3))
    first.acquire()
    with pytest.raises(BlockingIOError):
        second.acquire()
    first.release()
    for other in (first, third):
        with pytest.raises(BlockingIOError):
            other.acquire()
    second.acquire()
    second.release()
    first.acquire()
    with pytest.raises(BlockingIOError):
        second.acquire()
    second.cancel()
    first.release()
    third.acquire()
    for one in (first, second, third):
        one.close()


def test_the_next_is_not_waited_for_if_it_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = WriteLock(tmp_path / "broker.db"), WriteLock(tmp_path / "broker.db")
    first.acquire()
    with pytest.raises(BlockingIOError):
        second.acquire()
    first.release()
    monkeypatch.setattr(connection_module, "TURN_SECONDS", 0.0)
    first.acquire()
    first.release()
    first.close()
    second.close()


async def test_closing_does_not_wait_for_a_busy_file(bench: Bench) -> None:
    driver = await bench.open(busy_timeout=60.0)
    source = await join(driver, spec())
    other = sqlite3.connect(bench.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    stuck = asyncio.create_task(driver.publish([record(b"x")]))
    leaving = asyncio.create_task(source.aclose())
    await asyncio.sleep(0)
    begin = time.monotonic()
    await driver.aclose()
    assert time.monotonic() - begin < 10
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await stuck
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await leaving
    other.close()


async def test_nothing_is_left_after_closing(bench: Bench) -> None:
    threads = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    driver = await bench.open()
    source = await join(driver, spec())
    await source.aclose()
    await driver.aclose()
    await driver.aclose()
    with pytest.raises(Closed):
        await driver.ping()
    deadline = time.monotonic() + 5
    while threading.active_count() > threads:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == descriptors
    assert len(asyncio.all_tasks()) == 1


async def test_a_deleted_file_is_noticed_and_made_anew(bench: Bench) -> None:
    driver = await bench.open()
    source = await join(driver, spec())
    await driver.publish(records(3))
    got = await drain(source, 3)
    for file in bench.path.parent.iterdir():
        file.unlink()
    (outcome,) = await driver.publish([record(b"into the void")])
    assert isinstance(outcome, NotFound)
    with pytest.raises(SourceLost):
        await source.receive(1, 0.0)
    await driver.declare(topic())
    fresh = await join(driver, spec())
    await driver.publish(records(3))
    taken = await drain(fresh, 3)
    await source.ack(got)  # of the old file: the same seq and group, and yet another delivery
    await fresh.ack(taken[:1])
    left = await driver.native.read(
        lambda db: db.execute("SELECT count(*) FROM pending").fetchone()
    )
    assert left == (2,)
    await source.aclose()
    await fresh.aclose()


async def test_wake_ups_survive_a_new_connection(bench: Bench) -> None:
    driver, other = await bench.open(), await bench.open()
    source = await join(driver, spec())
    # As after a disk error: the next call opens the file again.
    await driver.native.read(lambda _: driver.native.connection.drop())
    await driver.ping()
    begin = time.monotonic()
    receiving = asyncio.create_task(source.receive(1, 2.0))
    await other.publish([record(b"x")])
    assert bodies(await receiving) == [b"x"]
    assert time.monotonic() - begin < 1.0
    await source.aclose()


async def test_commits_of_others_are_noticed_without_the_kernels_help(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(self: WriteNotifier, path: Path) -> None:
        raise OSError("too many watches")

    monkeypatch.setattr(WriteNotifier, "__init__", unavailable)
    driver, other = await bench.open(), await bench.open()
    source = await join(driver, spec())
    for number in range(20):
        begin = time.monotonic()
        receiving = asyncio.create_task(source.receive(1, 2.0))
        await other.publish([record(number)])
        assert bodies(await receiving) == [b"%d" % number]
        assert time.monotonic() - begin < 1.0
    await source.aclose()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.parent.rmdir()])
async def test_a_path_that_cannot_be_opened(tmp_path: Path, make: object) -> None:
    path = tmp_path / "sub" / "x.db"
    path.parent.mkdir()
    make(path)  # type: ignore[operator]
    with pytest.raises((OSError, sqlite3.OperationalError)):
        await Database.open(path)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        await Database.open(path)
    assert path.read_bytes().startswith(b"not a database")


async def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "OLDEST_SQLITE", (99, 0, 0))
    with pytest.raises(ConfigurationError, match=r"99\.0\.0"):
        await Database.open(tmp_path / "x.db")
