"""Several processes on one file, some of which are stopped or killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from anymq.testing.samples import join
from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import Bench, record, records, spec
from tests.adapters.support import attempt, drain

OTHER = Path(__file__).with_name("other.py")


class Other:
    """Another process on the same file that runs one of the jobs of `other.py`."""

    def __init__(self, bench: Bench, job: str, *arguments: object) -> None:
        command = [sys.executable, str(OTHER), job, str(bench.path), *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    async def line(self) -> str:
        """Return the next line that it prints; empty if it has ended."""
        assert self.process.stdout is not None
        line: str = await asyncio.to_thread(self.process.stdout.readline)
        return line.strip()

    async def lines(self) -> list[str]:
        """Wait until it has ended without an error; return the rest of its output."""
        output: str = (await asyncio.to_thread(self.process.communicate))[0]
        assert self.process.returncode == 0
        return output.split()

    def send(self, number: int) -> None:
        self.process.send_signal(number)


def check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@contextmanager
def others(bench: Bench, *jobs: tuple[object, ...]) -> Iterator[list[Other]]:
    started = [Other(bench, str(job), *arguments) for job, *arguments in jobs]
    try:
        yield started
    finally:
        for other in started:
            other.__exit__()


async def test_a_new_file_is_made_by_several_at_once(bench: Bench) -> None:
    with others(bench, *[("publish", 1, 3)] * 5) as publishers:
        for publisher in publishers:
            assert len(await publisher.lines()) == 3
    driver = await bench.open()
    source = await join(driver, spec())
    assert len(await drain(source, 15)) == 15
    query = "SELECT (SELECT count(*) FROM topics), (SELECT count(*) FROM groups)"
    assert await driver.native.read(lambda db: db.execute(query).fetchone()) == (1, 1)
    await source.aclose()


async def test_members_in_several_processes_share(bench: Bench) -> None:
    await bench.open()
    jobs = [("publish", 20, 30)] * 2 + [("consume", 1200)] * 3
    with others(bench, *jobs) as (one, two, *consumers):
        published = [*await one.lines(), *await two.lines()]
        consumed = [line for consumer in consumers for line in await consumer.lines()]
    assert len(published) == 1200
    assert sorted(consumed) == sorted(published)
    check(bench.path)


async def test_confirmed_messages_survive_the_death_of_the_publisher(bench: Bench) -> None:
    driver = await bench.open()
    confirmed: list[str] = []
    for _ in range(5):
        with Other(bench, "publish", 7, 1_000_000) as publisher:
            confirmed += [await publisher.line() for _ in range(100)]
            publisher.send(signal.SIGKILL)
            while line := await publisher.line():
                confirmed.append(line)
    source = await join(driver, spec())
    found = {got.position for got in await drain(source, 1_000_000, seconds=1.0)}
    assert found.issuperset(confirmed)
    # Each call stores all of its records or none.
    assert len(found) % 7 == 0
    await source.aclose()
    await bench.aclose()
    check(bench.path)


async def test_a_transaction_dies_with_its_process(bench: Bench, driver: SqliteDriver) -> None:
    with Other(bench, "hold") as holder:
        assert await holder.line() == "holding"
        waiting = asyncio.create_task(driver.publish([record(b"mine")]))
        holder.send(signal.SIGKILL)
        assert await waiting == ["1"]
    source = await join(driver, spec())
    assert [got.body for got in await drain(source, 2, seconds=0.2)] == [b"mine"]
    await source.aclose()


async def test_a_process_that_hangs_in_a_transaction(bench: Bench) -> None:
    driver = await bench.open(busy_timeout=0.3)
    with Other(bench, "hold") as holder:
        assert await holder.line() == "holding"
        holder.send(signal.SIGSTOP)
        with pytest.raises((BlockingIOError, sqlite3.OperationalError)):
            await driver.publish([record(b"x")])
        await driver.ping()
        holder.send(signal.SIGKILL)
    assert await driver.publish([record(b"x")]) == ["1"]


async def test_messages_of_a_killed_consumer_are_redelivered(
    bench: Bench, driver: SqliteDriver
) -> None:
    source = await join(driver, spec())
    await driver.publish(records(10))
    begin = time.time()
    with Other(bench, "take", 0.5) as consumer:
        assert await consumer.line() == "10"
        consumer.send(signal.SIGKILL)
    got = await drain(source, 10)
    assert time.time() - begin >= 0.5
    assert [attempt(item) for item in got] == [2] * 10
    await source.aclose()


async def test_others_hear_of_a_publish_soon(bench: Bench, driver: SqliteDriver) -> None:
    with Other(bench, "echo") as echo:
        assert await echo.line() == "ready"
        delays: list[float] = []
        for number in range(20):
            begin = time.monotonic()
            await driver.publish([record(number)])
            assert await echo.line() == str(number)
            delays.append(time.monotonic() - begin)
    assert sorted(delays)[10] < 0.1


async def test_a_busy_process_leaves_room_for_others(bench: Bench, driver: SqliteDriver) -> None:
    with Other(bench, "publish", 200, 1_000_000, 10) as busy:
        assert await busy.line()
        reader = asyncio.create_task(asyncio.to_thread(busy.process.communicate))
        for number in range(20):
            begin = time.monotonic()
            assert isinstance((await driver.publish([record(number)]))[0], str)
            assert time.monotonic() - begin < 3.0
        busy.send(signal.SIGKILL)
        await reader


async def test_a_publish_that_is_killed_in_a_checkpoint(bench: Bench) -> None:
    """Bodies are large, so that checkpoints run all the time."""
    driver = await bench.open()
    confirmed: list[str] = []
    for _ in range(3):
        with Other(bench, "publish", 1, 1_000_000, 1, 300_000) as publisher:
            confirmed += [await publisher.line() for _ in range(40)]
            os.kill(publisher.process.pid, signal.SIGKILL)
    found = await driver.native.read(
        lambda db: {str(seq) for (seq,) in db.execute("SELECT seq FROM messages")}
    )
    assert found.issuperset(confirmed)
    await bench.aclose()
    check(bench.path)
