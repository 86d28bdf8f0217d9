"""What takes its turn in a round: one contestant, with the cells that it fills at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from .contestant import Contestant
from .initial_count import initial_count
from .measurement import Measurement
from .results import Cell, Sample
from .workloads import Workload

MIN_SECONDS = 0.2
"""Seconds a measurement aims to take at the least."""
MIN_MESSAGES = 1000
"""Messages of a measurement, at the least."""
MIN_LATENCY_MESSAGES = 1250
"""The same where latencies are taken: their percentiles need so many."""
MAX_SECONDS = 3.0
"""Seconds that one measurement may take for publishing and consuming together, about."""


@dataclass
class OpenCell:
    """A cell in the making."""

    workload: Workload
    result: Cell
    rate: float = 0.0

    @classmethod
    def of(cls, workload: Workload, contestant: type[Contestant]) -> Self:
        """Return an empty cell for `contestant` on `workload`."""
        cell = Cell(
            backend=contestant.backend,
            workload=workload.name,
            contestant=contestant.name,
            durability=contestant.durability,
            how=contestant.how,
        )
        return cls(workload, cell)

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
    seconds_per_message: float = 0.0
    """Seconds a message, for publishing and consuming it."""
    overhead: float = 0.0
    offered_rate: float = 0.0
    """Messages a second, where that is fixed beforehand."""
    count: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        self.count = self.count or initial_count(
            self.contestant.backend, self.contestant.name, self.workload.max_messages
        )

    @property
    def name(self) -> str:
        """What is said of it while it plays."""
        return f"{'+'.join(one.workload.name for one in self.cells)}: {self.contestant.name}"

    @property
    def load(self) -> float:
        """The share of the capacity that is offered_rate to it; 0 for all there is."""
        return self.cells[0].result.load or 0.0

    @property
    def rate(self) -> float:
        """Messages a second that its measurements are sized by.

        Who publishes fast and consumes slowly gets fewer messages than fit the time.
        """
        if self.offered_rate:
            return self.offered_rate
        fastest = max(one.rate for one in self.cells)
        return (
            min(fastest, MAX_SECONDS / self.seconds_per_message)
            if self.seconds_per_message
            else fastest
        )

    def seconds(self, share: float) -> float:
        """Return about how long it takes with so much of the time that it aims at."""
        rate = self.rate
        return (
            rate * self.workload.seconds * share * max(self.seconds_per_message, 1 / rate)
            if rate
            else 0.0
        )

    def calibrate(self, measured: Measurement, count: int, taken: float) -> None:
        """Learn how fast it is, and how long a measurement takes beyond its messages."""
        for cell in self.cells:
            cell.rate = cell.sample_of(measured).rate
        busy = measured.consumed.busy
        self.seconds_per_message = busy / count
        self.overhead = max(0.0, taken - busy)

    def add(self, measured: Measurement) -> None:
        """Add the measurement to each of its cells."""
        for cell in self.cells:
            cell.result.samples.append(cell.sample_of(measured))

    def set_count(self, share: float) -> None:
        """Choose how many messages it takes with so much of the time that it aims at."""
        if self.rate:
            count = int(self.rate * max(MIN_SECONDS, self.workload.seconds * share))
            least = MIN_LATENCY_MESSAGES if self.offered_rate else MIN_MESSAGES
            self.count = min(max(count, least), self.workload.max_messages)


def merged(cells: Sequence[tuple[type[Contestant], OpenCell]]) -> list[Case]:
    """Put together what the same contestant can do with the same messages."""
    cases: list[Case] = []
    for contestant, cell in cells:
        for case in cases:
            if case.contestant.name == contestant.name and _share_messages(
                case.workload, cell.workload
            ):
                case.cells.append(cell)
                if cell.workload.kind == "consume":
                    case.workload = cell.workload
                break
        else:
            cases.append(Case(contestant, cell.workload, [cell]))
    return cases


def _share_messages(one: Workload, other: Workload) -> bool:
    """Whether one publishes what the other consumes."""
    if {one.kind, other.kind} != {"publish", "consume"}:
        return False
    return _messages_of(one) == _messages_of(other)


def _messages_of(workload: Workload) -> Workload:
    return replace(workload, name="", kind="consume", ability="", title="", weight=1.0)


def set_counts(cases: Iterable[Case], seconds: float) -> None:
    """Choose how many messages each takes, so that all together take so long."""
    chosen = list(cases)
    wanted = sum(case.seconds(1.0) for case in chosen)
    free = seconds - sum(case.overhead for case in chosen)
    share = min(1.0, max(0.0, free / wanted)) if wanted else 0.0
    for case in chosen:
        case.set_count(share)
