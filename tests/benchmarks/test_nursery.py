"""Workers that are forked do what those do that are started, and end like them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.speed.contestants import contestant
from benchmarks.speed.crew import JobFailed, WorkerProcess
from benchmarks.speed.job import Job
from benchmarks.speed.nursery import Nursery
from benchmarks.speed.play import play
from benchmarks.speed.servers import Target
from benchmarks.speed.stage import Stage
from benchmarks.speed.workloads import chosen


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as found:
        yield found


def target(folder: Path) -> Target:
    return Target(backend="sqlite", url=f"sqlite:///{folder}/bench.db")


async def test_forked_workers_publish_and_consume(nursery: Nursery, tmp_path: Path) -> None:
    (workload,) = chosen(["consume"])
    async with Stage(target(tmp_path), tmp_path, nursery=nursery) as stage:
        for round in range(2):
            anymq = contestant("sqlite", "anymq")
            sample = await play(stage, workload, anymq, count=300, round=round)
            assert not sample.void
    assert (tmp_path / "sqlite-anymq-producer.log").exists()


async def test_a_worker_that_is_killed_is_followed_by_another(
    nursery: Nursery, tmp_path: Path
) -> None:
    async with Stage(target(tmp_path), tmp_path, nursery=nursery) as stage:
        place = stage.place(chosen(["consume"])[0])
        waits = Job(task="publish", backend="sqlite", contestant="anymq", place=place, count=10)
        worker = WorkerProcess("killed", tmp_path, nursery=nursery)
        given = await worker.give(waits)
        await given.ready
        await worker.kill()
        with pytest.raises(JobFailed, match="died"):
            await given.done
        await worker.do(waits)
        await worker.aclose()


async def test_no_worker_outlives_the_nursery(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with Nursery() as nursery:
        worker = WorkerProcess("short-lived", tmp_path, nursery=nursery)
        try:
            await worker.start()
            mine = set(psutil.Process().children(recursive=True)) - before
        finally:
            await worker.aclose()
    assert len(mine) == 2
    _, alive = psutil.wait_procs(mine, timeout=60)
    assert not alive
