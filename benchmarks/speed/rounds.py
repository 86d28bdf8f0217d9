"""The order of a run: warm-up, then rounds in which the contestants take turns."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .acts import Act, Entry, paired, size
from .contestant import Contestant
from .contestants import contestants
from .natives import ROUNDS as NATIVE_ROUNDS
from .natives import Tool, tools
from .natives import play as play_native
from .play import perform
from .results import Cell, LeftOut
from .stage import Stage, Turn
from .workers import JobFailed
from .workloads import DECIDING, Workload

NATIVE_SECONDS = 25.0
"""What all rounds of a native tool take, about."""
TOO_SHORT = 0.05
"""Seconds a warm-up must have taken at least to say how fast the contestant is."""
CAPACITY = 0.4
"""The same where that decides the load of others."""
LONG_ENOUGH = 0.5
"""Seconds after which a warm-up is not repeated with more messages."""
ENOUGH = 3
"""Rounds that mean something: once there are so many behind the warm-up, it does not count."""
PEER_ROUNDS = frozenset({1, ENOUGH + 1})
"""When those take part that are not asked for in every round."""
LATE = 2.5
"""How many times its time a backend may take, on a busy machine, to measure all of a priority."""
NO_TIME = "there was no time left"
SEED = 20261121

Tell = Callable[[str], None]
"""Says what is being done now."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured. `seconds` is for all backends together; `rounds` at the most.

    With `hasty` the warm-up is the first of the rounds; peers take part in some rounds alone;
    workers are forked; and what was made on servers of its own is left there.
    """

    name: str
    seconds: float
    rounds: int
    loads: int = 3
    hasty: bool = False
    imports: int = 9
    connects: int = 7
    publishes: int = 20_000
    """How often, how many: the small measurements."""


QUICK = Scale(
    name="quick",
    seconds=78.0,
    rounds=5,
    loads=1,
    hasty=True,
    imports=3,
    connects=3,
    publishes=3000,
)
FULL = Scale(name="full", seconds=1110.0, rounds=5)
FIRST = frozenset({"anymq", "raw", "raw best", "faststream"})
"""Who takes part where time is short."""
ONCE = {"redis": frozenset({"anymq+idempotency", "anymq+redis"})}
"""Who else does so, on one backend and for one round."""


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
        began = time.monotonic()
        if self.scale.hasty:
            self.tell("making topics and groups")
            await self.stage.prepare(self._all_turns(workloads))
        else:
            self.tell("the native tools")
            self._tools = await tools(self.stage, workloads, self.left_out)
            began = time.monotonic()  # installing them takes its time, once
        self._end = began + seconds
        self._late = began + LATE * seconds
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

    def _all_turns(self, workloads: Sequence[Workload]) -> list[Turn]:
        """Return who needs how many places, should there be time for most of the rounds."""
        return [
            (act.contestant, act.workload)
            for act in self._acts(workloads)
            for _ in range(len(act.rounds) if act.rounds <= PEER_ROUNDS else ENOUGH + 1)
        ]

    async def _group(self, workloads: Sequence[Workload], seconds: float) -> None:
        end = time.monotonic() + seconds
        acts = await self._warmed_up(self._acts(workloads))
        rounds = min(self.scale.rounds, max((one.rounds for one in workloads), default=0))
        natives = len(self._tools) * NATIVE_SECONDS if workloads[0].priority == 0 else 0.0
        # A warm-up at full speed says nothing of latencies.
        warm = self.scale.hasty and not workloads[0].loads
        made, last = 0, 0.0
        while made < rounds and not (made and self._must_end(made + warm, end, last)):
            round = made + 1
            began = time.monotonic()
            playing = [act for act in acts if round in act.rounds]
            if left := self._rounds_left(rounds, made):
                size(playing, (end - began - natives) / left)
            await self._round(playing, round)
            last = time.monotonic() - began
            if workloads[0].priority == 0 and made < NATIVE_ROUNDS:
                await self._native(acts, round)
                natives *= 1 - 1 / (NATIVE_ROUNDS - made)
            made += 1
        if made + warm < min(ENOUGH, rounds):
            what = ", ".join(workload.name for workload in workloads)
            self._leave_out(f"{what}: rounds from {made + 1} on", NO_TIME)
        if made >= ENOUGH:
            _without_warm_up(acts)
        self.cells += [entry.cell for act in acts for entry in act.entries]

    def _rounds_left(self, rounds: int, made: int) -> int:
        """Return among how many rounds the time is shared out; in haste, some more may fit."""
        return max(0, (min(ENOUGH, rounds) if self.scale.hasty else rounds) - made)

    def _must_end(self, made: int, end: float, last: float) -> bool:
        """Whether so many rounds must do; `last` is how long the last one took."""
        now = time.monotonic()
        if not self.scale.hasty:
            return now > end
        if made < ENOUGH:  # of these the warm-up is one
            return now > self._late
        return now + last > end

    def _acts(self, workloads: Sequence[Workload]) -> list[Act]:
        """Return whose turns there are, in which rounds."""
        entries = [
            (contestant, Entry(workload, self._cell(workload, contestant)))
            for workload in workloads
            for contestant in self._contestants(workload)
        ]
        acts = paired(entries)
        for act in acts:
            act.rounds = frozenset(range(1, 1 + max(one.workload.rounds for one in act.entries)))
            if self.scale.hasty:
                if act.contestant.name in ONCE.get(self.stage.target.backend, ()):
                    act.rounds &= {1}
                elif not any(_decides(act.contestant, one.workload) for one in act.entries):
                    act.rounds &= PEER_ROUNDS
        return acts

    async def _warmed_up(self, acts: Sequence[Act]) -> list[Act]:
        """Let everybody do it once, to know how fast each is. Peers in haste are not asked to."""
        found: list[Act] = []
        for act in acts:
            if self.scale.hasty and act.rounds <= PEER_ROUNDS:
                found.append(act)
                continue
            if time.monotonic() > self._late:
                self._leave_out(act.name.replace(": ", ", "), NO_TIME)
                continue
            self.tell(f"{act.name} warms up")
            try:
                await self._try(act)
            except JobFailed as error:
                self._leave_out(act.name.replace(": ", ", "), str(error))
                continue
            found.append(act)
        await self.stage.clear()
        return self._at_all_loads(found) if acts and acts[0].workload.loads else found

    async def _try(self, act: Act) -> None:
        """Find out how fast it is. In haste the first try counts as the first round."""
        workload = act.workload
        if workload.kind == "latency":
            workload = replace(workload, kind="flow")
        count = act.count
        while True:
            began = time.monotonic()
            done = asyncio.Event()
            playing = asyncio.create_task(
                perform(self.stage, workload, act.contestant, count=count, round=0, quiet=done.set)
            )
            taken = await self._quiet(playing, done, began)
            played = await playing
            if void := played.published.void or played.consumed.void:
                raise JobFailed(void)
            act.note(played, count, taken)
            wanted = CAPACITY if workload.loads else TOO_SHORT
            rate = max(entry.speed for entry in act.entries)
            short = count / rate < wanted and played.consumed.busy < LONG_ENOUGH
            if not short and self.scale.hasty and not workload.loads:
                for entry in act.entries:
                    entry.cell.samples.append(entry.sample_of(played))
            if not short or count == workload.most:
                return
            count = min(workload.most, max(2 * count, int(1.5 * wanted * rate)))

    async def _quiet(
        self, playing: asyncio.Task[object], done: asyncio.Event, began: float
    ) -> float:
        """Wait until nothing goes on but closing; return how long that took."""
        waiting = asyncio.create_task(done.wait())
        await asyncio.wait((playing, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.stage.target.shared:
            await asyncio.wait((playing,))
        return time.monotonic() - began

    def _at_all_loads(self, acts: Sequence[Act]) -> list[Act]:
        """The same rates for all: shares of what the slowest of them carries."""
        capacity = min((act.speed for act in acts), default=0.0)
        return [
            replace(
                act,
                offered=load * capacity,
                entries=[replace(entry, cell=_at(entry.cell, load)) for entry in act.entries],
            )
            for load in (acts[0].workload.loads[: self.scale.loads] if acts else ())
            for act in acts
        ]

    async def _round(self, acts: Sequence[Act], round: int) -> None:
        turns = list(acts)
        random.Random(SEED + round).shuffle(turns)
        # The same workload of all contestants as close together as can be.
        turns.sort(key=lambda act: (act.workload.name, act.load))
        turns = [act for act in turns if act.failed < 2]
        if not self.scale.hasty:
            await self.stage.prepare([(act.contestant, act.workload) for act in turns])
        closing: list[asyncio.Task[object]] = []
        for act in turns:
            self.tell(f"{act.name}, round {round}")
            done = asyncio.Event()
            playing = asyncio.create_task(self._play(act, round, done))
            closing.append(playing)
            await self._quiet(playing, done, 0.0)
        await asyncio.gather(*closing)
        await self.stage.clear()

    async def _play(self, act: Act, round: int, done: asyncio.Event) -> None:
        try:
            played = await perform(
                self.stage,
                act.workload,
                act.contestant,
                count=act.count,
                round=round,
                rate=act.offered,
                quiet=done.set,
            )
        except JobFailed as error:
            act.failed += 1
            for entry in act.entries:
                entry.cell.failures.append(str(error))
        else:
            for entry in act.entries:
                entry.cell.samples.append(entry.sample_of(played))
                entry.speed = entry.speed or entry.sample_of(played).rate

    async def _native(self, acts: Sequence[Act], round: int) -> None:
        for tool in self._tools:
            self.tell(f"the native tool, round {round}")
            tool.size(entry.speed for act in acts for entry in act.entries)
            await play_native(self.stage, tool, round)

    def _contestants(self, workload: Workload) -> list[type[Contestant]]:
        found: list[type[Contestant]] = []
        backend = self.stage.target.backend
        if workload.backends is not None and backend not in workload.backends:
            return found
        for one in contestants(backend):
            if one.name not in workload.contestants or workload.ability not in one.can:
                continue
            if self.scale.hasty and one.name not in FIRST | ONCE.get(backend, frozenset()):
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


def _at(cell: Cell, load: float) -> Cell:
    return cell.model_copy(update={"load": load, "samples": [], "failures": []})


def _without_warm_up(acts: Sequence[Act]) -> None:
    """Let the warm-up not count where there is something better."""
    for entry in (entry for act in acts for entry in act.entries):
        later = [sample for sample in entry.cell.samples if sample.round]
        entry.cell.samples = later or entry.cell.samples


def _decides(contestant: type[Contestant], workload: Workload) -> bool:
    return contestant.name in DECIDING.get(workload.name, workload.contestants)
