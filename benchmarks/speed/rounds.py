"""The order of a run: warm-up, then rounds in which the contestants take turns."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .contestant import Contestant
from .contestants import contestants
from .crew import JobFailed
from .natives import ROUNDS as NATIVE_ROUNDS
from .natives import Tool, tools
from .natives import play as play_native
from .play import play
from .results import Cell, LeftOut, Sample
from .stage import Stage
from .workloads import Workload

NATIVE_SECONDS = 25.0
"""What all rounds of a native tool take, about."""
PROBE = 1000
"""Messages of a first warm-up."""
TOO_SHORT = 0.05
"""Seconds a warm-up must have taken at least to say how fast the contestant is."""
CAPACITY = 0.4
"""The same where that decides the load of others."""
LONG_ENOUGH = 0.5
"""Seconds after which a warm-up is not repeated with more messages."""
SHORTEST = 0.2
"""Seconds a measurement aims to take at the least."""
LEAST = 1000
"""Messages of a measurement, at the least."""
TIMED = 1500
"""The same where latencies are taken: their percentiles need so many."""
LATE = 2.5
"""How many times its time a backend may take, on a busy machine, to measure all of a priority."""
NO_TIME = "there was no time left"
SEED = 20261121

Tell = Callable[[str], None]
"""Says what is being done now."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured. `seconds` is for all backends together; `rounds` at the most."""

    name: str
    seconds: float
    rounds: int
    loads: int = 3
    everybody: bool = True
    imports: int = 9
    connects: int = 7
    publishes: int = 20_000
    """How often, how many: the small measurements."""


QUICK = Scale(
    name="quick",
    seconds=80.0,
    rounds=3,
    loads=1,
    everybody=False,
    imports=3,
    connects=3,
    publishes=3000,
)
FULL = Scale(name="full", seconds=1110.0, rounds=5)
FIRST = frozenset({"anymq", "raw", "raw best", "faststream"})
"""Who takes part where time is short."""


@dataclass
class Entry:
    """A cell in the making: who does what, with how many messages, at what rate if any."""

    workload: Workload
    contestant: type[Contestant]
    cell: Cell
    speed: float = 0.0
    unit: float = 0.0
    """Seconds a message, for publishing and consuming it."""
    overhead: float = 0.0
    offered: float = 0.0
    count: int = 0
    failed: int = 0


@dataclass
class Session:
    """What has been measured on one backend so far."""

    stage: Stage
    scale: Scale
    tell: Tell
    cells: list[Cell] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    _tools: list[Tool] = field(default_factory=list)
    _end: float = 0.0
    _late: float = 0.0

    async def start(self, workloads: Sequence[Workload]) -> None:
        """Start all processes of the most important ones side by side."""
        workers = {
            id(worker): worker
            for workload in workloads
            if workload.priority == 0
            for contestant in self._contestants(workload)
            for worker in self.stage.workers(contestant, workload.consumers)
        }
        await asyncio.gather(*(worker.start() for worker in workers.values()))

    async def measure(self, workloads: Sequence[Workload], seconds: float) -> None:
        """Measure these within about so many seconds, those of one priority together."""
        ordered = sorted(workloads, key=lambda one: one.priority)
        if self.scale.everybody:
            self.tell("the native tools")
            self._tools = await tools(self.stage, workloads, self.left_out)
        groups = [list(group) for _, group in itertools.groupby(ordered, lambda w: w.priority)]
        self._end = time.monotonic() + seconds
        self._late = time.monotonic() + LATE * seconds
        for number, group in enumerate(groups):
            weights = [sum(one.weight for one in each) for each in groups[number:]]
            remaining = self._end - time.monotonic()
            late = time.monotonic() > self._late
            if late or (remaining < 0 and group[0].priority > 1):
                self._leave_out(", ".join(one.name for one in group), NO_TIME)
                continue
            await self._group(group, remaining * weights[0] / sum(weights))
        natives = [cell for tool in self._tools for cell in tool.cells.values()]
        self.cells += [cell for cell in natives if cell.samples or cell.failures]

    async def _group(self, workloads: Sequence[Workload], seconds: float) -> None:
        end = time.monotonic() + seconds
        entries: list[Entry] = []
        for workload in workloads:
            entries += await self._warmed_up(workload)
        rounds = min(self.scale.rounds, max((one.rounds for one in workloads), default=0))
        natives = len(self._tools) * NATIVE_SECONDS if workloads[0].priority == 0 else 0.0
        self._size(entries, (end - time.monotonic() - natives) / max(1, rounds))
        for round in range(rounds):
            if round and time.monotonic() > end:
                what = ", ".join(workload.name for workload in workloads)
                self._leave_out(f"{what}: rounds from {round + 1} on", NO_TIME)
                break
            await self._round([one for one in entries if round < one.workload.rounds], round)
            if workloads[0].priority == 0 and round < NATIVE_ROUNDS:
                await self._native(entries, round)
        self.cells += [entry.cell for entry in entries]

    async def _warmed_up(self, workload: Workload) -> list[Entry]:
        """Let everybody do it once, to know how fast each is; nothing of it is kept."""
        entries: list[Entry] = []
        for contestant in self._contestants(workload):
            if time.monotonic() > self._late:
                self._leave_out(f"{workload.name}, {contestant.name}", NO_TIME)
                continue
            entry = Entry(workload, contestant, self._cell(workload, contestant))
            self.tell(f"{workload.name}: {contestant.name} warms up")
            try:
                await self._try(entry)
            except JobFailed as error:
                self._leave_out(f"{workload.name}, {contestant.name}", str(error))
                continue
            entries.append(entry)
        return self._at_all_loads(entries) if workload.kind == "latency" else entries

    async def _try(self, entry: Entry) -> None:
        """Find out how fast it is, and how long a measurement takes beyond its messages."""
        workload = entry.workload
        if workload.kind == "latency":
            workload = replace(workload, kind="flow")
        count = min(PROBE, workload.most)
        while True:
            began = time.monotonic()
            sample = await self._play(entry, workload, count)
            if sample.void:
                raise JobFailed(sample.void)
            taken = time.monotonic() - began
            entry.speed = sample.rate
            entry.unit = sample.busy / count
            entry.overhead = max(0.0, taken - sample.busy)
            wanted = CAPACITY if entry.workload.loads else TOO_SHORT
            short = count / sample.rate < wanted and sample.busy < LONG_ENOUGH
            if not short or count == workload.most:
                return
            count = min(workload.most, max(2 * count, int(1.5 * wanted * sample.rate)))

    def _at_all_loads(self, entries: Sequence[Entry]) -> list[Entry]:
        """The same rates for all: shares of what the slowest of them carries."""
        capacity = min((entry.speed for entry in entries), default=0.0)
        return [
            replace(
                entry,
                offered=load * capacity,
                cell=entry.cell.model_copy(update={"load": load, "samples": [], "failures": []}),
            )
            for load in (entries[0].workload.loads[: self.scale.loads] if entries else ())
            for entry in entries
        ]

    def _size(self, entries: Sequence[Entry], seconds: float) -> None:
        """Choose how many messages each measurement takes, so that a round takes so long."""
        # Who publishes fast and consumes slowly gets fewer messages than fit the time.
        speeds = [
            entry.offered or min(entry.speed, 3 / entry.unit if entry.unit else entry.speed)
            for entry in entries
        ]
        wanted = sum(
            speed * entry.workload.seconds * max(entry.unit, 1 / speed)
            for entry, speed in zip(entries, speeds, strict=True)
        )
        free = seconds - sum(entry.overhead for entry in entries)
        share = min(1.0, max(0.0, free / wanted)) if wanted else 0.0
        for entry, speed in zip(entries, speeds, strict=True):
            count = int(speed * max(SHORTEST, entry.workload.seconds * share))
            least = TIMED if entry.offered else LEAST
            entry.count = min(max(count, least), entry.workload.most)

    async def _round(self, entries: Sequence[Entry], round: int) -> None:
        turns = list(entries)
        random.Random(SEED + round).shuffle(turns)
        # The same workload of all contestants as close together as can be.
        turns.sort(key=lambda entry: (entry.workload.name, entry.cell.load or 0.0))
        for entry in turns:
            if entry.failed > 1:
                continue
            name = f"{entry.workload.name}: {entry.contestant.name}"
            self.tell(f"{name}, round {round + 1}")
            try:
                sample = await self._play(
                    entry, entry.workload, entry.count, round=round, rate=entry.offered
                )
            except JobFailed as error:
                entry.failed += 1
                entry.cell.failures.append(str(error))
            else:
                entry.cell.samples.append(sample)

    async def _native(self, entries: Sequence[Entry], round: int) -> None:
        for tool in self._tools:
            self.tell(f"the native tool, round {round + 1}")
            tool.size(entry.speed for entry in entries)
            await play_native(self.stage, tool, round)

    async def _play(
        self, entry: Entry, workload: Workload, count: int, round: int = -1, rate: float = 0.0
    ) -> Sample:
        return await play(
            self.stage, workload, entry.contestant, count=count, round=round, rate=rate
        )

    def _contestants(self, workload: Workload) -> list[type[Contestant]]:
        found: list[type[Contestant]] = []
        backend = self.stage.target.backend
        if workload.backends is not None and backend not in workload.backends:
            return found
        for one in contestants(backend):
            if one.name not in workload.contestants or workload.ability not in one.can:
                continue
            if not self.scale.everybody and one.name not in FIRST:
                continue
            if missing := one.missing():
                self._leave_out(f"{workload.name}, {one.name}", f"needs {missing}")
                continue
            found.append(one)
        return found

    def _cell(self, workload: Workload, contestant: type[Contestant]) -> Cell:
        return Cell(
            backend=self.stage.target.backend,
            workload=workload.name,
            contestant=contestant.name,
            durability=contestant.durability,
            how=contestant.how,
        )

    def _leave_out(self, what: str, why: str) -> None:
        one = LeftOut(what=f"{self.stage.target.backend}: {what}", why=why)
        if one not in self.left_out:
            self.left_out.append(one)
