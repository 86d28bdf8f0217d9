"""What takes its turn in a round: one contestant, with the cells that it fills at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .contestant import Contestant
from .initial_count import initial_count
from .measurement import Measurement
from .results import Cell, Sample
from .workloads import Workload

SHORTEST = 0.2
"""Seconds a measurement aims to take at the least."""
LEAST = 1000
"""Messages of a measurement, at the least."""
TIMED = 1250
"""The same where latencies are taken: their percentiles need so many."""
LONGER = 3.0
"""Seconds that one measurement may take for publishing and consuming together, about."""


@dataclass
class OpenCell:
    """A cell in the making."""

    workload: Workload
    result: Cell
    speed: float = 0.0

    def sample_of(self, measured: Measurement) -> Sample:
        """Return the side that its workload asks for."""
        return measured.published if self.workload.kind == "publish" else measured.consumed


@dataclass
class Case:
    """One contestant's turn. Publishing and consuming the same messages fills two cells."""

    contestant: type[Contestant]
    workload: Workload
    cells: list[OpenCell]
    rounds: frozenset[int] = frozenset()
    """Those in which it takes part."""
    unit: float = 0.0
    """Seconds a message, for publishing and consuming it."""
    overhead: float = 0.0
    offered: float = 0.0
    """Messages a second, where that is fixed beforehand."""
    count: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        self.count = self.count or initial_count(
            self.contestant.backend, self.contestant.name, self.workload.most
        )

    @property
    def name(self) -> str:
        """What is said of it while it plays."""
        return f"{'+'.join(one.workload.name for one in self.cells)}: {self.contestant.name}"

    @property
    def load(self) -> float:
        """The share of the capacity that is offered to it; 0 for all there is."""
        return self.cells[0].result.load or 0.0

    @property
    def speed(self) -> float:
        """Messages a second that its measurements are sized by.

        Who publishes fast and consumes slowly gets fewer messages than fit the time.
        """
        if self.offered:
            return self.offered
        fastest = max(one.speed for one in self.cells)
        return min(fastest, LONGER / self.unit) if self.unit else fastest

    def seconds(self, share: float) -> float:
        """Return about how long it takes with so much of the time that it aims at."""
        speed = self.speed
        return speed * self.workload.seconds * share * max(self.unit, 1 / speed) if speed else 0.0

    def note(self, measured: Measurement, count: int, taken: float) -> None:
        """Learn how fast it is, and how long a measurement takes beyond its messages."""
        for cell in self.cells:
            cell.speed = cell.sample_of(measured).rate
        busy = measured.consumed.busy
        self.unit = busy / count
        self.overhead = max(0.0, taken - busy)

    def size(self, share: float) -> None:
        """Choose how many messages it takes with so much of the time that it aims at."""
        if self.speed:
            count = int(self.speed * max(SHORTEST, self.workload.seconds * share))
            least = TIMED if self.offered else LEAST
            self.count = min(max(count, least), self.workload.most)


def paired(cells: Sequence[tuple[type[Contestant], OpenCell]]) -> list[Case]:
    """Put together what the same contestant can do with the same messages."""
    cases: list[Case] = []
    for contestant, cell in cells:
        for case in cases:
            if case.contestant.name == contestant.name and _same(case.workload, cell.workload):
                case.cells.append(cell)
                if cell.workload.kind == "drain":
                    case.workload = cell.workload
                break
        else:
            cases.append(Case(contestant, cell.workload, [cell]))
    return cases


def _same(one: Workload, other: Workload) -> bool:
    """Whether one publishes what the other consumes."""
    if {one.kind, other.kind} != {"publish", "drain"}:
        return False
    return _nameless(one) == _nameless(other)


def _nameless(workload: Workload) -> Workload:
    return replace(workload, name="", kind="drain", ability="", title="", weight=1.0)


def size(cases: Iterable[Case], seconds: float) -> None:
    """Choose how many messages each takes, so that all together take so long."""
    chosen = list(cases)
    wanted = sum(case.seconds(1.0) for case in chosen)
    free = seconds - sum(case.overhead for case in chosen)
    share = min(1.0, max(0.0, free / wanted)) if wanted else 0.0
    for case in chosen:
        case.size(share)
