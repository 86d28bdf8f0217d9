"""The results of a run: the schema of `report.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from .accounting import Account
from .latencies import Percentiles, percentiles

SCHEMA = 1
"""Incremented when a field is removed or changes its meaning."""


class Sample(BaseModel):
    """One measurement: one contestant on one workload in one round."""

    round: int
    rate: float
    """Messages/s, as measured or, for latency, as offered."""
    messages: int
    busy: float = 0.0
    """Seconds of publishing and consuming together, whichever was timed."""
    account: Account | None = None
    """None for native tools, whose messages are not counted."""
    cpu: float | None = None
    """CPU seconds per million messages, of the timed processes."""
    server_cpu: float | None = None
    """CPU seconds of the server per million messages, for publishing and consuming."""
    rss_growth: int = 0
    """Bytes, from a tenth of the work to the peak."""
    rss_peak: int = 0
    latency: str | None = None
    """Encoded HdrHistogram in microseconds, from the intended send time to the handler."""
    confirm: str | None = None
    """The same, to the confirmation of the publish."""
    delay: str | None = None
    """The same, to the publish call."""
    void: str = ""
    """Reason why this sample does not count; empty if it does."""


class Cell(BaseModel):
    """One contestant on one workload of one backend, over all rounds."""

    backend: str
    workload: str
    contestant: str
    durability: str
    how: str
    load: float | None = None
    """Offered share of the capacity, in latency workloads."""
    samples: list[Sample] = []
    failures: list[str] = []

    @property
    def valid(self) -> list[Sample]:
        """Samples that count."""
        return [sample for sample in self.samples if not sample.void]

    @property
    def faults(self) -> list[str]:
        """Reasons of void samples and failed rounds."""
        return [sample.void for sample in self.samples if sample.void] + self.failures

    @property
    def cpu(self) -> float | None:
        """Median CPU seconds per million messages."""
        return median_of(sample.cpu for sample in self.valid)

    @property
    def server_cpu(self) -> float | None:
        """Median CPU seconds of the server per million messages."""
        return median_of(sample.server_cpu for sample in self.valid)

    @property
    def latency(self) -> Percentiles:
        """Latency from the intended send time to the handler, over all samples that count."""
        return percentiles(sample.latency for sample in self.valid if sample.latency)

    @property
    def confirm(self) -> Percentiles:
        """Latency to the confirmation of the publish."""
        return percentiles(sample.confirm for sample in self.valid if sample.confirm)

    @property
    def delay(self) -> Percentiles:
        """Latency to the publish call."""
        return percentiles(sample.delay for sample in self.valid if sample.delay)

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
        """Median messages/s."""
        return median(sample.rate for sample in self.valid) if self.valid else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """Lowest and highest messages/s."""
        rates = [sample.rate for sample in self.valid]
        return (min(rates), max(rates)) if rates else None


class Backend(BaseModel):
    """A measured backend, its server and its declared abilities."""

    name: str
    version: str
    where: str
    """Its URL, without password."""
    durability: str
    capabilities: dict[str, tuple[str, str]]
    """Level and note of each ability declared by anymq."""
    memory: int | None = None
    """Resident memory of the server's processes in bytes, after the run."""
    idle_memory: int | None = None
    """The same, before the first message."""


class Machine(BaseModel):
    """The machine and packages of a run."""

    system: str
    processor: str
    cores: int
    memory: int
    python: str
    loop: str
    load: float
    """Load average before the run, caused by other processes."""
    packages: dict[str, str]


class Microbenchmarks(BaseModel):
    """Medians of the microbenchmarks by name, and the reasons of those that failed."""

    values: dict[str, float] = {}
    missing: dict[str, str] = {}


class LeftOut(BaseModel):
    """An omitted measurement and the reason."""

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
    """Backends chosen for the run."""
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
        """Return one cell, or None if it was not measured."""
        for cell in self.cells:
            key = (cell.backend, cell.workload, cell.contestant, cell.load)
            if key == (backend, workload, contestant, load):
                return cell
        return None

    def against_raw(self, cell: Cell) -> float | None:
        """Return the ratio to the idiomatic raw client, or to the tuned one if only that exists."""
        for name in ("raw", "raw best"):
            if other := self.cell(cell.backend, cell.workload, name, cell.load):
                return ratio(cell, other)
        return None


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are not None."""
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
