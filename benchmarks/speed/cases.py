"""Cases of a round: one contestant on one workload, and the result cells this fills."""

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
"""Shortest duration in seconds that a measurement aims for."""
MIN_MESSAGES = 1000
"""Fewest messages of one measurement."""
MIN_LATENCY_MESSAGES = 1250
"""Fewest messages of a latency measurement; its percentiles need as many samples."""
MAX_SECONDS = 3.0
"""Approximate limit, in seconds, of publishing and consuming in one measurement."""


@dataclass
class OpenCell:
    """A result cell that is being filled, with the rate last measured."""

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
        """Return the sample of the side that the workload times."""
        return measured.published if self.workload.kind == "publish" else measured.consumed


@dataclass
class Case:
    """One contestant on one workload in each round.

    If publishing and consuming the same messages are two workloads, one case fills both cells.
    """

    contestant: type[Contestant]
    workload: Workload
    cells: list[OpenCell]
    rounds: frozenset[int] = frozenset()
    """Numbers of the rounds that include this case."""
    seconds_per_message: float = 0.0
    """For publishing and consuming together."""
    overhead: float = 0.0
    """Seconds of a measurement that do not depend on its message count."""
    offered_rate: float = 0.0
    """The fixed rate of a latency measurement, in messages/s; 0 for full speed."""
    count: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        self.count = self.count or initial_count(
            self.contestant.backend, self.contestant.name, self.workload.max_messages
        )

    @property
    def name(self) -> str:
        """The label shown as progress and in the list of omissions."""
        return f"{'+'.join(one.workload.name for one in self.cells)}: {self.contestant.name}"

    @property
    def load(self) -> float:
        """The offered share of the capacity; 0 for full speed."""
        return self.cells[0].result.load or 0.0

    @property
    def rate(self) -> float:
        """The rate, in messages/s, from which the message count is derived.

        A contestant that publishes fast and consumes slowly is limited by the slower side.
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
        """Return the estimated duration with a `share` of the seconds the workload aims for."""
        rate = self.rate
        return (
            rate * self.workload.seconds * share * max(self.seconds_per_message, 1 / rate)
            if rate
            else 0.0
        )

    def calibrate(self, measured: Measurement, count: int, taken: float) -> None:
        """Derive rates and overhead from a measurement of `count` messages in `taken` seconds."""
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
        """Choose the message count for a `share` of the seconds the workload aims for."""
        if self.rate:
            count = int(self.rate * max(MIN_SECONDS, self.workload.seconds * share))
            least = MIN_LATENCY_MESSAGES if self.offered_rate else MIN_MESSAGES
            self.count = min(max(count, least), self.workload.max_messages)


def merged(cells: Sequence[tuple[type[Contestant], OpenCell]]) -> list[Case]:
    """Return one case for each contestant and set of messages, merging cells that share both."""
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
    """Return whether one workload publishes the messages that the other consumes."""
    if {one.kind, other.kind} != {"publish", "consume"}:
        return False
    return _messages_of(one) == _messages_of(other)


def _messages_of(workload: Workload) -> Workload:
    return replace(workload, name="", kind="consume", ability="", title="", weight=1.0)


def set_counts(cases: Iterable[Case], seconds: float) -> None:
    """Choose the message counts of all cases so that together they take `seconds`."""
    chosen = list(cases)
    wanted = sum(case.seconds(1.0) for case in chosen)
    free = seconds - sum(case.overhead for case in chosen)
    share = min(1.0, max(0.0, free / wanted)) if wanted else 0.0
    for case in chosen:
        case.set_count(share)
