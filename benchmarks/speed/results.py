"""What was measured: the content of `report.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from .accounting import Account

SCHEMA = 1
"""Grows when a field changes its meaning or goes."""


class Sample(BaseModel):
    """One measurement: one contestant on one workload in one round."""

    round: int
    rate: float
    """Messages a second: what was timed, or the rate that was offered."""
    messages: int
    busy: float = 0.0
    """Seconds of publishing and of consuming, also of the one that was not timed."""
    account: Account | None = None
    """None where nobody could count."""
    cpu: float | None = None
    """CPU seconds a million messages, of the processes that were timed."""
    server_cpu: float | None = None
    """The same of the server, for publishing and consuming together."""
    rss_growth: int = 0
    """Bytes, from a tenth of the work on to the highest."""
    rss_peak: int = 0
    latency: str | None = None
    """HdrHistograms, encoded, in microseconds: from the intended time to the handler,"""
    confirm: str | None = None
    """to the confirmation of the publish,"""
    delay: str | None = None
    """and to its call."""
    void: str = ""
    """Why this does not count."""


class Cell(BaseModel):
    """One contestant on one workload of one backend, over all rounds."""

    backend: str
    workload: str
    contestant: str
    durability: str
    how: str
    load: float | None = None
    """The share of the capacity that was offered, in latency workloads."""
    samples: list[Sample] = []
    failures: list[str] = []

    @property
    def valid(self) -> list[Sample]:
        """The samples that count."""
        return [sample for sample in self.samples if not sample.void]

    @property
    def faults(self) -> list[str]:
        """Why rounds of it do not count, or came to no end."""
        return [sample.void for sample in self.samples if sample.void] + self.failures

    @property
    def cpu(self) -> float | None:
        """The median of the CPU seconds a million messages."""
        return median_of(sample.cpu for sample in self.valid)

    @property
    def server_cpu(self) -> float | None:
        """The same of the server."""
        return median_of(sample.server_cpu for sample in self.valid)

    @property
    def duplicates(self) -> int:
        """Over all rounds that count."""
        return sum(sample.account.duplicates for sample in self.valid if sample.account)

    @property
    def reorders(self) -> int:
        """Over all rounds that count."""
        return sum(sample.account.reorders for sample in self.valid if sample.account)

    @property
    def rate(self) -> float | None:
        """The median, messages a second."""
        return median(sample.rate for sample in self.valid) if self.valid else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest."""
        rates = [sample.rate for sample in self.valid]
        return (min(rates), max(rates)) if rates else None


class Backend(BaseModel):
    """A server, or what takes its place, and what it is good for."""

    name: str
    version: str
    where: str
    """Its URL, without password."""
    durability: str
    capabilities: dict[str, tuple[str, str]]
    """Level and note of each ability that anymq declares."""
    memory: int | None = None
    """Bytes of resident set of the server's processes when all was done."""
    idle_memory: int | None = None
    """The same before the first message."""


class Machine(BaseModel):
    """Where it ran."""

    system: str
    processor: str
    cores: int
    memory: int
    python: str
    loop: str
    load: float
    """The load average before the run began: what else was going on."""
    packages: dict[str, str]


class Microbenchmarks(BaseModel):
    """Small measurements that are no workload, by name; medians."""

    values: dict[str, float] = {}
    missing: dict[str, str] = {}


class LeftOut(BaseModel):
    """Something that was not measured, and why."""

    what: str
    why: str


class Report(BaseModel):
    """A whole run."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_version: int = SCHEMA
    started: str
    seconds: float
    command: str
    mode: str
    chosen: list[str]
    """The backends that were to be measured."""
    rounds: int
    anymq: str
    commit: str
    machine: Machine
    backends: list[Backend]
    cells: list[Cell]
    microbenchmarks: Microbenchmarks = Field(validation_alias="own", serialization_alias="own")
    left_out: list[LeftOut]

    def cell(
        self, backend: str, workload: str, contestant: str, load: float | None = None
    ) -> Cell | None:
        """Return one cell, or None where it was not measured."""
        for cell in self.cells:
            key = (cell.backend, cell.workload, cell.contestant, cell.load)
            if key == (backend, workload, contestant, load):
                return cell
        return None

    def against_raw(self, cell: Cell) -> float | None:
        """Return the ratio to the raw client as usual, or by its best technique where only that."""
        for name in ("raw", "raw best"):
            if other := self.cell(cell.backend, cell.workload, name, cell.load):
                return ratio(cell, other)
        return None


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of what is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def ratio(one: Cell | None, other: Cell | None) -> float | None:
    """Return the median of their `ratios`, or None if no round has both."""
    found = [] if one is None or other is None else ratios(one, other)
    return median(found) if found else None


def ratios(
    one: Cell, other: Cell, *, value: Callable[[Sample], float | None] = lambda sample: sample.rate
) -> list[float]:
    """Return `value` of `one` divided by that of `other`, for each round that has both."""
    others = {sample.round: value(sample) for sample in other.valid}
    return [
        mine / theirs
        for sample in one.valid
        if (mine := value(sample)) is not None and (theirs := others.get(sample.round))
    ]
