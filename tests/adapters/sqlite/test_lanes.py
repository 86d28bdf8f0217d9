"""Delays and ordered groups over several processes, some of which are killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from anymq.testing.samples import join, join_ordered, read
from tests.adapters.sqlite.support import Bench, record, spec
from tests.adapters.sqlite.test_processes import Other, check
from tests.adapters.support import bodies, eventually, take

COUNT, KEYS = 480, 16


async def test_a_delay_outlives_who_published_it(bench: Bench) -> None:
    with Other(bench, "delay", 2.0) as publisher:
        due = float(await publisher.line())
        publisher.send(signal.SIGKILL)
    driver = await bench.open()
    source = await join(driver, spec(start="latest"))
    reader = await read(driver, spec(None))
    assert (await driver.describe_topic(bench.topic())).delayed == 1
    for each in (source, reader):
        assert bodies(await take(each, 1)) == [b"late"]
        assert due <= time.time() < due + 1
        await each.aclose()


def first_deliveries(notes: Path) -> dict[str, list[int]]:
    """Return the handled bodies by key, in the order of their first attempts."""
    found: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for line in notes.read_text().splitlines():
        key, number = line.split()
        found[key][int(number)] = None
    return {key: list(numbers) for key, numbers in found.items()}


def count(notes: Path) -> int:
    return notes.read_text().count("\n") if notes.exists() else 0


async def test_order_is_kept_while_members_come_are_killed_and_leave(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    lanes = bench.topic("lanes", partitions=4)
    await driver.declare(lanes)
    notes = Path(f"{bench.path}.notes")

    async def handled(least: int) -> bool:
        return count(notes) >= least

    with ExitStack() as stack:
        members = [stack.enter_context(Other(bench, "order", 1.5, COUNT)) for _ in range(3)]
        for member in members:
            assert await member.line() == "ready"
        for part in range(4):
            numbers = range(part * COUNT // 4, (part + 1) * COUNT // 4)
            await driver.publish(
                [record(number, name="lanes", key=f"k{number % KEYS}") for number in numbers]
            )
            await eventually(partial(handled, COUNT // 4 * part + COUNT // 8))
            if part < 3:
                members.pop(0).send(signal.SIGKILL)
                members.append(stack.enter_context(Other(bench, "order", 1.5, COUNT)))
        for member in members:
            await member.lines()
    found = first_deliveries(notes)
    assert found == {f"k{key}": list(range(key, COUNT, KEYS)) for key in range(KEYS)}
    check(bench.path)


async def test_a_killed_member_holds_up_a_seek_no_longer_than_it_is_believed(
    bench: Bench,
) -> None:
    driver = await bench.open()
    name = f"{bench.name}.billing"
    with Other(bench, "take", 1.0) as member:
        assert await member.line() == "0"
        info = await driver.describe_group(bench.topic(), name)
        assert info.members is not None
        assert len(info.members) == 1
        member.send(signal.SIGKILL)
    age = "UPDATE members SET until = until - 15"
    await driver.native.write(lambda db: db.execute(age))
    assert (await driver.describe_group(bench.topic(), name)).members == ()
    await driver.seek(bench.topic(), name, "latest")


async def test_ordered_members_that_read_nothing_are_members_too(bench: Bench) -> None:
    driver = await bench.open()
    sources = [await join_ordered(driver, replace(spec("g"), ordered=True)) for _ in range(3)]
    info = await driver.describe_group(bench.topic(), f"{bench.name}.g")
    assert info.members is not None
    assert sorted(len(member.partitions or ()) for member in info.members) == [0, 0, 1]
    await asyncio.gather(*(source.aclose() for source in sources))
