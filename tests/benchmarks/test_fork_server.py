"""Forked workers behave and end like workers that are started separately."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.speed.contestants import contestant
from benchmarks.speed.environment import Environment
from benchmarks.speed.fork_server import ForkServer
from benchmarks.speed.measurement import measure
from benchmarks.speed.protocol import Job
from benchmarks.speed.targets import Target
from benchmarks.speed.workers import JobFailed, WorkerProcess
from benchmarks.speed.workloads import chosen


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    with ForkServer() as found:
        yield found


def target(folder: Path) -> Target:
    return Target(backend="sqlite", url=f"sqlite:///{folder}/bench.db")


async def test_forked_workers_publish_and_consume(fork_server: ForkServer, tmp_path: Path) -> None:
    (workload,) = chosen(["consume"])
    async with Environment(target(tmp_path), tmp_path, fork_server=fork_server) as environment:
        for round in range(2):
            anymq = contestant("sqlite", "anymq")
            sample = await measure(environment, workload, anymq, count=300, round=round)
            assert not sample.void
    assert (tmp_path / "sqlite-anymq-producer.log").exists()


async def test_a_killed_worker_is_replaced_by_the_next_job(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    async with Environment(target(tmp_path), tmp_path, fork_server=fork_server) as environment:
        topic = environment.new_topic(chosen(["consume"])[0])
        waits = Job(task="publish", backend="sqlite", contestant="anymq", topic=topic, count=10)
        worker = WorkerProcess("killed", tmp_path, fork_server=fork_server)
        given = await worker.submit(waits)
        await given.ready
        await worker.kill()
        with pytest.raises(JobFailed, match="died"):
            await given.done
        await worker.run(waits)
        await worker.aclose()


async def test_no_worker_outlives_the_fork_server(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with ForkServer() as fork_server:
        worker = WorkerProcess("short-lived", tmp_path, fork_server=fork_server)
        try:
            await worker.start()
            mine = set(psutil.Process().children(recursive=True)) - before
        finally:
            await worker.aclose()
    assert len(mine) == 2
    _, alive = psutil.wait_procs(mine, timeout=60)
    assert not alive
