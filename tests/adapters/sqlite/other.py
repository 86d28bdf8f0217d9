"""The other process of `test_processes.py`: `other.py JOB FILE ARGUMENTS…`. Results are printed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from anymq.testing.samples import join, join_ordered

sys.path.insert(0, str(Path(__file__).parents[3]))

from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import Bench, record, records, spec


def say(*lines: object) -> None:
    print(*lines, sep="\n", flush=True)


async def publish(
    bench: Bench, size: int, times: int, callers: int = 1, body_size: int = 10
) -> None:
    """Publish `times` calls of `size` records in each of `callers` tasks; print the positions."""
    driver = await bench.open()

    async def call() -> None:
        for _ in range(times):
            batch = [record(b"x" * body_size) for _ in range(size)]
            say(*await driver.publish(batch))

    await asyncio.gather(*(call() for _ in range(callers)))


async def consume(bench: Bench, total: int) -> None:
    """Ack messages and print their positions until the group has settled `total` of them."""
    driver = await bench.open()
    source = await join(driver, spec())
    query = "SELECT cursor - (SELECT count(*) FROM pending) FROM groups"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        got = await source.receive(20, 0.1)
        await source.ack(got)
        if got:
            say(*(item.position for item in got))
        elif await driver.native.read(lambda db: db.execute(query).fetchone()[0]) >= total:
            break
    await source.aclose()


async def take(bench: Bench, lease: float) -> None:
    """Receive the available messages, print their number, and hang."""
    driver = await bench.open()
    source = await join(driver, spec(lease=lease))
    say(len(await source.receive(100, 1.0)))
    await asyncio.Event().wait()


async def echo(bench: Bench) -> None:
    """Print the bodies of received messages."""
    driver = await bench.open()
    source = await join(driver, spec())
    say("ready")
    while True:
        for got in await source.receive(100, 1.0):
            say(got.body.decode())


async def delay(bench: Bench, seconds: float) -> None:
    """Publish one delayed record, print its due time, and hang."""
    driver = await bench.open()
    due = time.time() + seconds
    assert await driver.publish([record(b"late", deliver_at=due)]) == [None]
    say(due)
    await asyncio.Event().wait()


async def order(bench: Bench, lease: float, total: int) -> None:
    """Append key and body of each ordered message to a file, until `total` are settled."""
    driver = await bench.open(declare=False)
    topic = bench.topic("lanes", partitions=4)
    await driver.declare(topic)
    source = await join_ordered(driver, replace(spec("g", topic=topic, lease=lease), ordered=True))
    say("ready")
    notes = os.open(f"{bench.path}.notes", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    while (await driver.describe_group(topic, "lanes.g")).lag or total > await seen(driver):
        for got in await source.receive(5, 0.2):
            os.write(notes, f"{got.key} {got.body.decode()}\n".encode())
            await asyncio.sleep(0.002)
            await source.ack([got])
    await source.aclose()


async def seen(driver: SqliteDriver) -> int:
    """Return the number of records that were ever stored."""
    query = "SELECT count(*) FROM messages"
    count: int = await driver.native.read(lambda db: db.execute(query).fetchone()[0])
    return count


async def hold(bench: Bench) -> None:
    """Begin a transaction that never ends."""
    driver = await bench.open()
    await driver.publish(records(0))

    def forever(db: sqlite3.Connection) -> NoReturn:
        db.execute("INSERT INTO messages (topic, body) VALUES (1, 'half')")
        say("holding")
        while True:
            time.sleep(1)

    await driver.native.write(forever)


JOBS = {
    "publish": publish,
    "consume": consume,
    "take": take,
    "echo": echo,
    "delay": delay,
    "order": order,
    "hold": hold,
}


async def main(job: str, path: str, *arguments: str) -> None:
    numbers = [float(text) if "." in text else int(text) for text in arguments]
    async with Bench(Path(path)) as made:
        await JOBS[job](made, *numbers)  # type: ignore[operator]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
