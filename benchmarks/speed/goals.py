"""Performance goals, and how their figures derive from a report. Ratios compare within one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from .latencies import percentiles
from .results import Cell, Report, ratio

Figure = Callable[[Report], float | None]

FULL = "full"
"""The mode of a run that measures everything."""
FLAT = 16.0
"""Allowed growth in MiB from a tenth of a long backlog to its end: caches and fragmentation."""
LONG = 50_000
"""Fewest messages of a long backlog; it has a million if time permits."""
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One performance goal: a lower limit of `figure`, or with `at_most` an upper one.

    `backend` is empty for a goal that does not depend on one. An `optional` goal may stay
    unmeasured. A quick run measures only goals marked `in_quick_runs`.
    """

    name: str
    backend: str
    limit: float
    figure: Figure
    at_most: bool = False
    unit: str = "x"
    optional: bool = False
    in_quick_runs: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one goal in a run of that mode; `figure` is None if it was not measured."""

    goal: Goal
    figure: float | None
    mode: str = FULL

    @property
    def met(self) -> bool:
        """Whether the goal was measured and reached."""
        if self.figure is None:
            return False
        if self.goal.at_most:
            return self.figure <= self.goal.limit
        return self.figure >= self.goal.limit

    @property
    def passed(self) -> bool:
        """Whether the goal was met, or may be left unmeasured and was."""
        may_be_unmeasured = self.goal.optional or self.mode != FULL
        return self.met or (may_be_unmeasured and self.figure is None)

    @property
    def text(self) -> str:
        """The verdict as shown in the table."""
        if self.figure is None:
            later = self.mode != FULL and not self.goal.in_quick_runs
            return "full run only" if later else "not measured"
        return "met" if self.met else "missed"


def faults(report: Report) -> list[str]:
    """Return the failed and void rounds of anymq's own contestants."""
    return [
        f"{cell.backend}: {cell.workload}: {cell.contestant}: {fault}"
        for cell in report.cells
        if cell.contestant.startswith("anymq")
        for fault in cell.faults
    ]


def _against(workload: str, other: str, backend: str, one: str = "anymq") -> Figure:
    def figure(report: Report) -> float | None:
        return ratio(report.cell(backend, workload, one), report.cell(backend, workload, other))

    return figure


def _rate(workload: str, backend: str) -> Figure:
    def figure(report: Report) -> float | None:
        cell = report.cell(backend, workload, "anymq")
        return None if cell is None else cell.rate

    return figure


def _microbenchmark(name: str) -> Figure:
    return lambda report: report.microbenchmarks.values.get(name)


def _latency(backend: str, percent: str) -> Figure:
    def figure(report: Report) -> float | None:
        cells = [report.cell(backend, "latency", name, 0.5) for name in ("anymq", "raw")]
        one, other = (None if cell is None else _each_round(cell, percent) for cell in cells)
        if not one or not other:
            return None
        ratios = [one[round] / other[round] for round in one if other.get(round)]
        return median(ratios) if ratios else None

    return figure


def _each_round(cell: Cell, percent: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for sample in cell.valid:
        if sample.latency is not None:
            value = getattr(percentiles([sample.latency]), percent)
            if value is not None:
                found[sample.round] = value
    return found


def _growth(backend: str) -> Figure:
    def figure(report: Report) -> float | None:
        cell = report.cell(backend, "backlog", "anymq")
        long = [] if cell is None else [one for one in cell.valid if one.messages >= LONG]
        return max(one.rss_growth for one in long) / MEBIBYTE if long else None

    return figure


def _publish() -> Iterator[Goal]:
    raw = {"kafka": 1.2, "rabbitmq": 1.2, "nats": 1.3, "redis": 2.0}
    for backend, limit in raw.items():
        name = "publish, against the raw client as usual"
        yield Goal(
            name=name, backend=backend, limit=limit, figure=_against("publish", "raw", backend)
        )
    best = {"kafka": 0.7, "rabbitmq": 0.9, "nats": 0.9, "redis": 0.9}
    for backend, limit in best.items():
        figure = _against("publish-many", "raw best", backend)
        name = "publish_many, against the raw client's best"
        yield Goal(name=name, backend=backend, limit=limit, figure=figure)


def _consume() -> Iterator[Goal]:
    raw = {"kafka": 1.0, "rabbitmq": 2.0, "nats": 1.0, "redis": 5.0}
    for backend, limit in raw.items():
        name = "consume, against the raw client as usual"
        yield Goal(
            name=name, backend=backend, limit=limit, figure=_against("consume", "raw", backend)
        )
    for backend in (*raw, "sqlite"):
        for contestant, store, limit in (
            ("anymq+idempotency", "memory", 0.9),
            ("anymq+redis", "redis", 0.6),
        ):
            if (backend, store) == ("sqlite", "redis"):
                continue
            figure = _against("consume", "anymq", backend, contestant)
            name = f"idempotency with a {store} store, against the default chain"
            in_quick_runs = backend == "redis"
            yield Goal(
                name=name, backend=backend, limit=limit, figure=figure, in_quick_runs=in_quick_runs
            )


def _faststream() -> Iterator[Goal]:
    limits = {"kafka": (8, 30), "rabbitmq": (1.5, 2.5), "nats": (2, 4), "redis": (3, 10)}
    for backend, pair in limits.items():
        for workload, limit in zip(("publish", "consume"), pair, strict=True):
            figure = _against(workload, "faststream", backend)
            name = f"{workload}, against FastStream"
            yield Goal(name=name, backend=backend, limit=limit, figure=figure)


def _native() -> Iterator[Goal]:
    for backend in ("kafka", "rabbitmq", "nats", "redis"):
        for workload, compared, limit in (
            ("publish", "publish-many", 0.5),
            ("consume", "consume", 0.25),
        ):
            figure = _against(compared, "native", backend)
            yield Goal(
                name=f"{workload}, against the native tool",
                backend=backend,
                limit=limit,
                figure=figure,
                optional=True,
                in_quick_runs=False,
            )


def _latencies() -> Iterator[Goal]:
    for backend in ("kafka", "rabbitmq", "nats", "redis"):
        for percent, limit in (("p50", 1.2), ("p99", 1.5)):
            name = f"end to end at 50 % load, {percent}, against the raw client"
            figure = _latency(backend, percent)
            yield Goal(name=name, backend=backend, limit=limit, at_most=True, figure=figure)


def _absolute() -> Iterator[Goal]:
    def rate(name: str, backend: str, workload: str, limit: float) -> Goal:
        figure = _rate(workload, backend)
        return Goal(name=name, backend=backend, limit=limit, figure=figure, unit="/s")

    yield rate("durable publishes in batches", "sqlite", "publish-many", 30_000)
    yield rate("consumed and acked", "sqlite", "consume", 20_000)
    yield Goal(
        name="the slower of two publishing processes, when the faster one is done",
        backend="sqlite",
        limit=0.5,
        figure=_microbenchmark("fairness sqlite"),
    )
    yield rate("publish to handler", "memory", "through", 300_000)


def _footprint() -> Iterator[Goal]:
    for backend in ("kafka", "rabbitmq", "nats", "redis", "sqlite"):
        name = "resident memory gained over a long backlog"
        figure = _growth(backend)
        yield Goal(
            name=name,
            backend=backend,
            limit=FLAT,
            at_most=True,
            unit="MiB",
            figure=figure,
            in_quick_runs=False,
        )
    yield Goal(
        name="import anymq",
        backend="",
        limit=150.0,
        at_most=True,
        unit="ms",
        figure=_microbenchmark("import anymq"),
    )
    for backend in ("kafka", "rabbitmq", "nats", "redis"):
        name = "connect, beyond the raw client"
        figure = _microbenchmark(f"connect {backend}")
        yield Goal(name=name, backend=backend, limit=20.0, at_most=True, unit="ms", figure=figure)


GOALS: tuple[Goal, ...] = (
    *_publish(),
    *_consume(),
    *_faststream(),
    *_native(),
    *_latencies(),
    *_absolute(),
    *_footprint(),
)


def verdicts(report: Report, goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """Return the verdicts on the goals of the backends chosen for the run."""
    chosen = {"", *report.chosen}
    return [
        Verdict(goal=goal, figure=goal.figure(report), mode=report.mode)
        for goal in goals
        if goal.backend in chosen
    ]
