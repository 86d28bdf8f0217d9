"""Measurements: workers publish and consume, every message is counted, topics are deleted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import anymq
from benchmarks.speed.contestants import contestant
from benchmarks.speed.environment import Environment
from benchmarks.speed.latencies import percentiles
from benchmarks.speed.measurement import measure
from benchmarks.speed.protocol import Job
from benchmarks.speed.rounds import BackendRun, Scale
from benchmarks.speed.targets import Target
from benchmarks.speed.workers import JobFailed
from benchmarks.speed.workloads import WORKLOADS, chosen

TINY = Scale(name="tiny", seconds=1.0, rounds=2, loads=1)
BY_NAME = {workload.name: workload for workload in WORKLOADS}


@pytest.fixture(params=["sqlite", "memory"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    backend: str = request.param
    url = f"sqlite:///{tmp_path}/bench.db" if backend == "sqlite" else "memory://bench"
    return Target(backend=backend, url=url)


@pytest.mark.parametrize("name", ["publish", "publish-many", "consume", "typed", "ordered"])
async def test_every_message_is_counted(target: Target, name: str, tmp_path: Path) -> None:
    async with Environment(target, tmp_path) as environment:
        anymq_here = contestant(target.backend, "anymq")
        sample = await measure(environment, BY_NAME[name], anymq_here, count=300, round=0)
    assert not sample.void
    assert sample.account is not None
    assert (sample.account.messages, sample.account.lost) == (300, 0)
    assert sample.rate > 0


async def test_latency_counts_from_the_intended_time(target: Target, tmp_path: Path) -> None:
    async with Environment(target, tmp_path) as environment:
        sample = await measure(
            environment,
            BY_NAME["latency"],
            contestant(target.backend, "anymq"),
            count=400,
            round=0,
            rate=800.0,
        )
    assert sample.account is not None
    assert sample.account.lost == 0
    for histogram in (sample.latency, sample.confirm, sample.delay):
        assert histogram is not None
        assert 300 < percentiles([histogram]).samples <= 400


async def test_a_topic_is_deleted_after_its_measurement(tmp_path: Path) -> None:
    target = Target(backend="sqlite", url=f"sqlite:///{tmp_path}/bench.db")
    async with Environment(target, tmp_path) as environment:
        await measure(
            environment, BY_NAME["consume"], contestant("sqlite", "anymq"), count=100, round=0
        )
    async with anymq.connect(target.url) as broker:
        assert await broker.admin.topics() == []


async def test_a_failed_job_reports_its_error(tmp_path: Path) -> None:
    target = Target(backend="sqlite", url=f"sqlite:///{tmp_path}/bench.db")
    async with Environment(target, tmp_path) as environment:
        anymq_here = contestant("sqlite", "anymq")
        topic = environment.new_topic(BY_NAME["publish"])
        broken = Job(
            task="prepare",
            backend="sqlite",
            contestant="anymq",
            topic=type(topic)(url="sqlite:////nowhere/at/all.db", name="orders"),
        )
        with pytest.raises(JobFailed, match="nowhere"):
            await environment.worker(anymq_here, "producer").run(broken)


async def test_rounds_fill_the_cells_of_all_contestants(tmp_path: Path) -> None:
    target = Target(backend="memory", url="memory://bench")
    said: list[str] = []
    async with Environment(target, tmp_path) as environment:
        backend_run = BackendRun(environment, TINY, said.append)
        short = [replace(one, seconds=0.1) for one in chosen(["consume", "latency"])]
        await backend_run.measure(short, 60.0)
    cells = {(cell.workload, cell.contestant, cell.load): cell for cell in backend_run.cells}
    assert set(cells) == {
        ("consume", "anymq", None),
        ("consume", "anymq+idempotency", None),
        ("latency", "anymq", 0.5),
    }
    assert all(cell.valid and not cell.failures for cell in cells.values())
    assert any("warms up" in line for line in said)


async def test_the_warm_up_of_a_quick_run_counts_until_three_rounds_follow(tmp_path: Path) -> None:
    target = Target(backend="sqlite", url=f"sqlite:///{tmp_path}/bench.db")
    short = [replace(one, seconds=0.1) for one in chosen(["publish-many", "consume"])]
    rounds: list[list[int]] = []
    for times in (1, 3):
        scale = replace(TINY, rounds=times, quick=True)
        async with Environment(target, tmp_path) as environment:
            backend_run = BackendRun(environment, scale, lambda text: None)
            await backend_run.measure(short, 120.0)
        ours = [cell for cell in backend_run.cells if cell.contestant == "anymq"]
        assert [cell.workload for cell in ours] == ["publish-many", "consume"]
        rounds += [[sample.round for sample in cell.valid] for cell in ours]
    assert rounds == [[0, 1], [0, 1], [1, 2, 3], [1, 2, 3]]


async def test_workloads_without_time_left_are_listed(tmp_path: Path) -> None:
    async with Environment(Target(backend="memory", url="memory://bench"), tmp_path) as environment:
        backend_run = BackendRun(environment, TINY, lambda text: None)
        await backend_run.measure(chosen(["consume", "typed"]), -1.0)
    assert backend_run.cells == []
    assert [one.what for one in backend_run.left_out] == ["memory: consume", "memory: typed"]
