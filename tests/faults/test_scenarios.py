"""The short form of every scenario, on every backend that it fits.

What breaks a server has the backend's instance `faults` to itself, as the conformance suite's own
faults have; what only breaks producers and consumers runs beside everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from benchmarks.chaos.report import Outcome, table
from benchmarks.chaos.run import Run, Size
from benchmarks.chaos.scenarios import SCENARIOS, Scenario
from benchmarks.chaos.target import BACKENDS, Target, of_backend

pytestmark = pytest.mark.long

SHORT = Size(
    messages=3000,
    kills=3,
    rate=1000,
    outage=20,
    pauses=(5.0,),
    stall=3,
    backlog=10_000,
    patience=3.0,  # the rest of the suite runs beside it; the long form judges the figure itself
)
SHARED = {"consumer-kills", "ordered-churn", "poison", "backlog"}
"""Those that break no server."""


def cases() -> Iterator[ParameterSet]:
    for backend in BACKENDS:
        for scenario in SCENARIOS.values():
            if backend == "sqlite" and scenario.server:
                continue
            marks: list[pytest.MarkDecorator] = []
            if backend != "sqlite":
                marks.append(getattr(pytest.mark, backend))
                if scenario.name not in SHARED:
                    marks.append(pytest.mark.xdist_group(f"{backend}-faults"))
            yield pytest.param(backend, scenario, marks=marks, id=f"{backend}-{scenario.name}")


@pytest.mark.parametrize(("backend", "scenario"), list(cases()))
async def test_it_holds(backend: str, scenario: Scenario, tmp_path: Path) -> None:
    target = target_of(backend, scenario, tmp_path)
    if reason := await scenario.obstacle(target):
        pytest.skip(f"{backend}: {reason}")
    folder = tmp_path / "run"
    folder.mkdir()
    verdict, failures = await scenario.run(Run(target, folder, SHORT))
    outcome = Outcome(backend, target.version, scenario.name, SHORT, 0.0, verdict, failures)
    assert not failures, f"{table([outcome])}\njournals and logs: {folder}"
    assert verdict.queue.acknowledged > 0


def target_of(backend: str, scenario: Scenario, folder: Path) -> Target:
    instance = None if scenario.name in SHARED else "faults"
    target = of_backend(backend, folder, instance=instance)
    if target.server is not None:
        target.server.up()
    return target
