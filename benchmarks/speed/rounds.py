"""The rounds of a run on one backend: a warm-up, then interleaved measurements."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .cases import Case, OpenCell, merged, set_counts
from .contestant import Contestant
from .contestants import contestants
from .environment import Environment, Pairing
from .measurement import measure_both
from .native_tools import ROUNDS as NATIVE_ROUNDS
from .native_tools import Tool, tools
from .native_tools import measure as measure_native
from .results import Cell, LeftOut
from .workers import JobFailed
from .workloads import EVERY_ROUND, Workload

NATIVE_SECONDS = 25.0
"""Approximate duration of all rounds of one native tool."""
MIN_WARM_UP = 0.05
"""Shortest warm-up in seconds that estimates a contestant's rate."""
MIN_CAPACITY_WARM_UP = 0.4
"""Shortest warm-up in seconds that measures the capacity for latency workloads."""
MAX_WARM_UP = 0.5
"""Seconds of publishing and consuming after which a warm-up is never repeated."""
ENOUGH_ROUNDS = 3
"""Rounds needed for a median; once this many follow the warm-up, it no longer counts."""
PEER_ROUNDS = frozenset({1, ENOUGH_ROUNDS + 1})
"""Rounds of a quick run that include the peers."""
LATE_FACTOR = 2.5
"""A backend may exceed its time by this factor to complete a priority on a busy machine."""
NO_TIME = "no time left"
SEED = 20261121

Progress = Callable[[str], None]
"""Called with a text whenever the next step begins."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of a run: `seconds` for all backends together, and at most `rounds` rounds.

    `imports`, `connects` and `publishes` are the sizes of the microbenchmarks. With `quick`, the
    warm-up counts as the first round, peers are measured in `PEER_ROUNDS` only, workers are forked,
    and topics on servers of its own are not deleted.
    """

    name: str
    seconds: float
    rounds: int
    loads: int = 3
    quick: bool = False
    imports: int = 9
    connects: int = 7
    publishes: int = 20_000


QUICK = Scale(
    name="quick",
    seconds=78.0,
    rounds=5,
    loads=1,
    quick=True,
    imports=3,
    connects=3,
    publishes=3000,
)
FULL = Scale(name="full", seconds=1110.0, rounds=5)
QUICK_CONTESTANTS = frozenset({"anymq", "raw", "raw best", "faststream"})
"""Contestants of a quick run."""
QUICK_ONCE = {"redis": frozenset({"anymq+idempotency", "anymq+redis"})}
"""Further contestants of a quick run, by backend; they are measured in one round."""


@dataclass
class BackendRun:
    """The measurements of a run on one backend, and their results so far."""

    environment: Environment
    scale: Scale
    progress: Progress
    cells: list[Cell] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    _tools: list[Tool] = field(default_factory=list)
    _end: float = 0.0
    _late: float = 0.0

    async def start(self, workloads: Sequence[Workload]) -> None:
        """Start the workers of all priority-0 workloads concurrently."""
        workers = {
            id(worker): worker
            for workload in workloads
            if workload.priority == 0
            for contestant in self._contestants(workload)
            for worker in self.environment.workers(contestant, workload.consumers)
        }
        await asyncio.gather(*(worker.start() for worker in workers.values()))

    async def measure(self, workloads: Sequence[Workload], seconds: float) -> None:
        """Measure `workloads` in about `seconds`, one priority after the other."""
        began = time.monotonic()
        if self.scale.quick:
            self.progress("creating topics and groups")
            await self.environment.prepare(self._planned_topics(workloads))
        else:
            self.progress("installing the native tools")
            self._tools = await tools(self.environment, workloads, self.left_out)
            began = time.monotonic()  # installing the tools is not part of the time
        self._end = began + seconds
        self._late = began + LATE_FACTOR * seconds
        ordered = sorted(workloads, key=lambda one: one.priority)
        groups = [list(group) for _, group in itertools.groupby(ordered, lambda w: w.priority)]
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

    def _planned_topics(self, workloads: Sequence[Workload]) -> list[Pairing]:
        """Return a pairing for each topic that `ENOUGH_ROUNDS` rounds need."""
        return [
            (case.contestant, case.workload)
            for case in self._cases(workloads)
            for _ in range(len(case.rounds) if case.rounds <= PEER_ROUNDS else ENOUGH_ROUNDS + 1)
        ]

    async def _group(self, workloads: Sequence[Workload], seconds: float) -> None:
        end = time.monotonic() + seconds
        cases = await self._warmed_up(self._cases(workloads))
        rounds = min(self.scale.rounds, max((one.rounds for one in workloads), default=0))
        natives = len(self._tools) * NATIVE_SECONDS if workloads[0].priority == 0 else 0.0
        # A warm-up runs at full speed, so it is no latency measurement.
        warm = self.scale.quick and not workloads[0].loads
        made, last = 0, 0.0
        while made < rounds and not (made and self._time_is_up(made + warm, end, last)):
            round = made + 1
            began = time.monotonic()
            measuring = [case for case in cases if round in case.rounds]
            if left := self._rounds_left(rounds, made):
                set_counts(measuring, (end - began - natives) / left)
            await self._round(measuring, round)
            last = time.monotonic() - began
            if workloads[0].priority == 0 and made < NATIVE_ROUNDS:
                await self._native(cases, round)
                natives *= 1 - 1 / (NATIVE_ROUNDS - made)
            made += 1
        if made + warm < min(ENOUGH_ROUNDS, rounds):
            what = ", ".join(workload.name for workload in workloads)
            self._leave_out(f"{what}: rounds from {made + 1} on", NO_TIME)
        if made >= ENOUGH_ROUNDS:
            _without_warm_up(cases)
        self.cells += [cell.result for case in cases for cell in case.cells]

    def _rounds_left(self, rounds: int, made: int) -> int:
        """Return how many rounds share the remaining time; a quick run may add more."""
        return max(0, (min(ENOUGH_ROUNDS, rounds) if self.scale.quick else rounds) - made)

    def _time_is_up(self, made: int, end: float, last: float) -> bool:
        """Return whether to stop after `made` rounds; the last one took `last` seconds."""
        now = time.monotonic()
        if not self.scale.quick:
            return now > end
        if made < ENOUGH_ROUNDS:  # including the warm-up
            return now > self._late
        return now + last > end

    def _cases(self, workloads: Sequence[Workload]) -> list[Case]:
        """Return the cases of `workloads`, with the rounds that include each."""
        cells = [
            (contestant, OpenCell.of(workload, contestant))
            for workload in workloads
            for contestant in self._contestants(workload)
        ]
        cases = merged(cells)
        for case in cases:
            case.rounds = frozenset(range(1, 1 + max(one.workload.rounds for one in case.cells)))
            if self.scale.quick:
                if case.contestant.name in QUICK_ONCE.get(self.environment.target.backend, ()):
                    case.rounds &= {1}
                elif not any(_in_every_round(case.contestant, one.workload) for one in case.cells):
                    case.rounds &= PEER_ROUNDS
        return cases

    async def _warmed_up(self, cases: Sequence[Case]) -> list[Case]:
        """Calibrate every case and return those that work; peers of a quick run are skipped."""
        found: list[Case] = []
        for case in cases:
            if self.scale.quick and case.rounds <= PEER_ROUNDS:
                found.append(case)
                continue
            if time.monotonic() > self._late:
                self._leave_out(case.name.replace(": ", ", "), NO_TIME)
                continue
            self.progress(f"{case.name} warms up")
            try:
                await self._calibrate(case)
            except JobFailed as error:
                self._leave_out(case.name.replace(": ", ", "), str(error))
                continue
            found.append(case)
        await self.environment.clean_up()
        return self._at_all_loads(found) if cases and cases[0].workload.loads else found

    async def _calibrate(self, case: Case) -> None:
        """Measure the rate of `case`; in a quick run this counts as round 0."""
        workload = case.workload
        if workload.kind == "latency":
            workload = replace(workload, kind="end_to_end")
        count = case.count
        while True:
            began = time.monotonic()
            done = asyncio.Event()
            measuring = asyncio.create_task(
                measure_both(
                    self.environment,
                    workload,
                    case.contestant,
                    count=count,
                    round=0,
                    on_handled=done.set,
                )
            )
            taken = await self._until_handled(measuring, done, began)
            measured = await measuring
            if void := measured.published.void or measured.consumed.void:
                raise JobFailed(void)
            case.calibrate(measured, count, taken)
            wanted = MIN_CAPACITY_WARM_UP if workload.loads else MIN_WARM_UP
            rate = max(cell.rate for cell in case.cells)
            short = count / rate < wanted and measured.consumed.busy < MAX_WARM_UP
            if not short and self.scale.quick and not workload.loads:
                case.add(measured)
            if not short or count == workload.max_messages:
                return
            count = min(workload.max_messages, max(2 * count, int(1.5 * wanted * rate)))

    async def _until_handled(
        self, measuring: asyncio.Task[object], done: asyncio.Event, began: float
    ) -> float:
        """Wait until all messages are handled; return the seconds since `began`.

        On a backend of one process, also wait for closing.
        """
        waiting = asyncio.create_task(done.wait())
        await asyncio.wait((measuring, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.environment.target.shared:
            await asyncio.wait((measuring,))
        return time.monotonic() - began

    def _at_all_loads(self, cases: Sequence[Case]) -> list[Case]:
        """Return each case at each load: a share of the rate of the slowest case."""
        capacity = min((case.rate for case in cases), default=0.0)
        return [
            replace(
                case,
                offered_rate=load * capacity,
                cells=[replace(cell, result=_at(cell.result, load)) for cell in case.cells],
            )
            for load in (cases[0].workload.loads[: self.scale.loads] if cases else ())
            for case in cases
        ]

    async def _round(self, cases: Sequence[Case], round: int) -> None:
        turns = list(cases)
        random.Random(SEED + round).shuffle(turns)
        # Keep the contestants of one workload together, so that they share conditions.
        turns.sort(key=lambda case: (case.workload.name, case.load))
        turns = [case for case in turns if case.failed < 2]
        if not self.scale.quick:
            await self.environment.prepare([(case.contestant, case.workload) for case in turns])
        closing: list[asyncio.Task[object]] = []
        for case in turns:
            self.progress(f"{case.name}, round {round}")
            done = asyncio.Event()
            measuring = asyncio.create_task(self._measure(case, round, done))
            closing.append(measuring)
            await self._until_handled(measuring, done, 0.0)
        await asyncio.gather(*closing)
        await self.environment.clean_up()

    async def _measure(self, case: Case, round: int, done: asyncio.Event) -> None:
        try:
            measured = await measure_both(
                self.environment,
                case.workload,
                case.contestant,
                count=case.count,
                round=round,
                rate=case.offered_rate,
                on_handled=done.set,
            )
        except JobFailed as error:
            case.failed += 1
            for cell in case.cells:
                cell.result.failures.append(str(error))
        else:
            case.add(measured)
            for cell in case.cells:
                cell.rate = cell.rate or cell.sample_of(measured).rate

    async def _native(self, cases: Sequence[Case], round: int) -> None:
        for tool in self._tools:
            self.progress(f"native tool, round {round}")
            tool.size(cell.rate for case in cases for cell in case.cells)
            await measure_native(self.environment, tool, round)

    def _contestants(self, workload: Workload) -> list[type[Contestant]]:
        found: list[type[Contestant]] = []
        backend = self.environment.target.backend
        if workload.backends is not None and backend not in workload.backends:
            return found
        for one in contestants(backend):
            if one.name not in workload.contestants or workload.ability not in one.can:
                continue
            if self.scale.quick and one.name not in QUICK_CONTESTANTS | QUICK_ONCE.get(
                backend, frozenset()
            ):
                continue
            if missing := one.missing():
                self._leave_out(f"{workload.name}, {one.name}", f"needs {missing}")
                continue
            found.append(one)
        return found

    def _leave_out(self, what: str, why: str) -> None:
        one = LeftOut(what=f"{self.environment.target.backend}: {what}", why=why)
        if one not in self.left_out:
            self.left_out.append(one)


def _at(cell: Cell, load: float) -> Cell:
    return cell.model_copy(update={"load": load, "samples": [], "failures": []})


def _without_warm_up(cases: Sequence[Case]) -> None:
    """Drop the sample of the warm-up from each cell that has later ones."""
    for cell in (cell for case in cases for cell in case.cells):
        later = [sample for sample in cell.result.samples if sample.round]
        cell.result.samples = later or cell.result.samples


def _in_every_round(contestant: type[Contestant], workload: Workload) -> bool:
    return contestant.name in EVERY_ROUND.get(workload.name, workload.contestants)
