"""A benchmark run: start the servers, measure each backend, describe the machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anymq

from .environment import Environment
from .fork_server import ForkServer
from .machine import commit, machine
from .microbench import connect_time, fairness, import_time
from .results import Backend, LeftOut, Machine, Microbenchmarks, Report
from .rounds import BackendRun, Scale
from .targets import Target, backend_of, targets
from .workers import ROOT, JobFailed
from .workloads import Workload

SHARES = {"kafka": 1.0, "rabbitmq": 1.0, "nats": 1.0, "redis": 1.0, "sqlite": 0.5, "memory": 0.3}
"""Relative time of each backend; those without peers need less."""

MIN_SHARE = 0.6
"""Part of its share that a backend gets even if earlier ones exceeded theirs."""

Progress = Callable[[float, str], None]
"""Called with the seconds since the start and the current step."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The backends, workloads and scale of a run, and the folder of its logs."""

    backends: Sequence[str]
    urls: Sequence[str]
    workloads: Sequence[Workload]
    scale: Scale
    folder: Path
    command: str


def seconds_of(plan: Plan) -> float:
    """Return the estimated duration of `plan`, in proportion to the shares of its backends."""
    backends = [*plan.backends, *map(backend_of, plan.urls)]
    share = sum(SHARES[name] for name in backends) / sum(SHARES.values())
    return plan.scale.seconds * min(1.0, share)


class Run:
    """The execution of a `Plan`."""

    def __init__(
        self, plan: Plan, progress: Progress, fork_server: ForkServer | None = None
    ) -> None:
        self._plan = plan
        self._fork_server = fork_server
        self._progress = progress
        self._began = time.monotonic()
        self._microbenchmarks = Microbenchmarks()
        self._backends: list[Backend] = []
        self._backend_runs: list[BackendRun] = []

    @property
    def seconds(self) -> float:
        """Seconds since the run was created."""
        return time.monotonic() - self._began

    async def measure(self, found: Sequence[Target]) -> None:
        """Measure all targets within the time of the plan."""
        self._microbenchmarks.values["import anymq"] = import_time(self._plan.scale.imports)
        shares = [SHARES[target.backend] for target in found]
        whole = seconds_of(self._plan)
        end = time.monotonic() + whole
        for number, target in enumerate(found):
            left = (end - time.monotonic()) * shares[number] / sum(shares[number:])
            least = MIN_SHARE * whole * shares[number] / sum(shares)
            try:
                await self._backend(target, max(left, least))
            except (anymq.AnymqError, JobFailed, OSError) as error:
                self._microbenchmarks.missing[target.backend] = str(error)

    async def _backend(self, target: Target, seconds: float) -> None:
        end = time.monotonic() + seconds
        described = target.described()

        def report(text: str) -> None:
            self._progress(self.seconds, f"{target.backend}: {text}")

        scale, folder = self._plan.scale, self._plan.folder
        deletes = not scale.quick or target.server is None
        async with Environment(
            target, folder, fork_server=self._fork_server, deletes=deletes
        ) as environment:
            backend_run = BackendRun(environment, scale, report)
            self._backend_runs.append(backend_run)
            report("connecting")
            await backend_run.start(self._plan.workloads)
            await connect_time(environment, self._microbenchmarks, scale.connects)
            if target.backend == "sqlite":
                report("two concurrent publishers")
                await fairness(environment, self._microbenchmarks, scale.publishes)
            await backend_run.measure(self._plan.workloads, end - time.monotonic())
        self._backends.append(described.model_copy(update={"memory": target.memory()}))

    def report(self, where: Machine, started: datetime, left_out: Sequence[LeftOut]) -> Report:
        """Return the report of the run."""
        plan = self._plan
        failed = [
            LeftOut(what=name, why=why) for name, why in self._microbenchmarks.missing.items()
        ]
        return Report(
            started=started.isoformat(timespec="seconds"),
            seconds=self.seconds,
            command=plan.command,
            mode=plan.scale.name,
            chosen=list(dict.fromkeys([*plan.backends, *(one.name for one in self._backends)])),
            rounds=plan.scale.rounds,
            anymq=anymq.__version__,
            commit=commit(ROOT),
            machine=where,
            backends=self._backends,
            cells=[cell for backend_run in self._backend_runs for cell in backend_run.cells],
            microbenchmarks=self._microbenchmarks,
            left_out=[
                *left_out,
                *(one for backend_run in self._backend_runs for one in backend_run.left_out),
                *failed,
            ],
        )


def run(plan: Plan, progress: Progress) -> Report:
    """Execute `plan` and return its report; start a server for each backend it names."""
    where, started = machine(), datetime.now(UTC)
    with ExitStack() as stack:
        # Imports the libraries while the servers start.
        fork_server = stack.enter_context(ForkServer()) if plan.scale.quick else None
        whole = Run(plan, progress, fork_server)
        progress(0.0, "starting the servers")
        found, left_out = stack.enter_context(targets(plan.backends, plan.urls, plan.folder))
        asyncio.run(whole.measure(found))
        progress(whole.seconds, "stopping the servers")
    return whole.report(where, started, left_out)
