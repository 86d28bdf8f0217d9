"""A full disk: a clear error, no lost message, and recovery once there is space again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anymq.errors import TransientError, translate
from anymq.testing.samples import join, join_ordered
from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import Bench, record, spec
from tests.adapters.support import drain, eventually, nothing, take


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    """A file system of 4 MiB (True); where none may be mounted, a directory (False)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    mounted = os.name == "posix" and not subprocess.call(mount, stderr=subprocess.DEVNULL)
    yield disk, mounted
    if mounted:
        subprocess.check_call(["umount", "-l", str(disk)])


async def fill(driver: SqliteDriver, **values: Any) -> tuple[list[str], BaseException]:
    """Publish until a call fails; return the confirmed positions, and the error."""
    confirmed: list[str] = []
    while True:
        try:
            (outcome,) = await driver.publish([record(b"x" * 50_000, **values)])
        except Exception as error:
            return confirmed, error
        assert not isinstance(outcome, BaseException)
        confirmed.append(outcome or "")
        assert len(confirmed) < 1000


def is_transient(error: BaseException) -> bool:
    translated = translate(error, SqliteDriver.errors, doing="publish", where="here")
    return isinstance(translated, TransientError)


async def recovers(driver: SqliteDriver, make_room: Callable[[], None]) -> None:
    source = await join(driver, spec())
    confirmed, error = await fill(driver)
    assert is_transient(error)
    assert confirmed
    again, error = await fill(driver)
    assert is_transient(error)
    make_room()
    (last,) = await driver.publish([record(b"room")])
    got = await drain(source, len(confirmed) + len(again) + 1)
    assert [item.position for item in got] == [*confirmed, *again, last]
    await source.ack(got)
    assert await source.receive(1, 0.0) == []
    await source.aclose()
    ok = await driver.native.read(lambda db: db.execute("PRAGMA integrity_check").fetchall())
    assert ok == [("ok",)]


async def limit(driver: SqliteDriver, pages: int) -> Callable[[], None]:
    """Limit the file to `pages`; return a function that removes the limit."""

    def set_to(db: sqlite3.Connection, pages: int) -> None:
        db.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await driver.native.read(lambda db: set_to(db, pages))
    return lambda: driver.native.post(lambda db: set_to(db, 100 * pages), writes=False)


async def test_a_full_disk(small_disk: tuple[Path, bool]) -> None:
    disk, is_small = small_disk
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 2_000_000)
    async with Bench(disk / "broker.db") as made:
        driver = await made.open()
        if is_small:
            await recovers(driver, ballast.unlink)
        else:
            await recovers(driver, await limit(driver, 500))


async def test_a_file_at_its_largest(bench: Bench) -> None:
    driver = await bench.open()
    await recovers(driver, await limit(driver, 500))


async def test_delayed_messages_wait_for_room_too(bench: Bench) -> None:
    driver = await bench.open()
    source = await join(driver, spec())
    make_room = await limit(driver, 300)
    confirmed, error = await fill(driver, deliver_at=time.time() + 1.0)
    assert is_transient(error)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await take(source, 1)
    make_room()
    assert len(await take(source, len(confirmed))) == len(confirmed)
    assert await nothing(source)
    await source.aclose()


async def test_an_ordered_group_goes_on_where_it_was(small_disk: tuple[Path, bool]) -> None:
    disk, is_small = small_disk
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 2_000_000)
    async with Bench(disk / "broker.db") as made:
        driver = await made.open()
        source = await join_ordered(driver, replace(spec("g", lease=1.0), ordered=True))
        make_room = ballast.unlink if is_small else await limit(driver, 300)
        confirmed, _ = await fill(driver, key="k")
        seen: dict[str, None] = {}

        async def all_seen() -> bool:
            with contextlib.suppress(sqlite3.OperationalError, TransientError):
                got = await source.receive(10, 0.2)
                seen.update(dict.fromkeys(item.position for item in got))
                await source.ack(got)
            return len(seen) >= len(confirmed)

        await asyncio.sleep(1.5)  # longer than the lease lasts without a write
        make_room()
        await eventually(all_seen)
        assert list(seen) == confirmed
        await source.aclose()
