"""Comparison of the brokers: measured figures and declared abilities, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .formatting import count, figure, mebibytes, milliseconds
from .results import Backend, Cell, Report


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the comparison: a text per backend, and the indices of the best ones.

    `notes` are shown beside the texts; `behind` are the caveats, shown in a table of their own.
    """

    name: str
    texts: tuple[str, ...]
    notes: tuple[str, ...]
    best: frozenset[int] = frozenset()
    behind: tuple[str, ...] = ()


ABILITIES = {
    "persistent": "survives a restart",
    "processes": "shared by processes",
    "ordered": "per-key order over all consumers",
    "replay": "replay and seek",
    "retention": "retention by age and size",
    "delayed_publish": "delayed messages",
    "delayed_nack": "retry after a delay",
    "attempt_count": "counts attempts, including crashed ones",
    "dead_letters": "dead letters without a loss window",
    "publish_dedup": "deduplicates repeated publishes",
}


def comparison(report: Report) -> list[Line]:
    """Return the lines in the order of the page."""
    lines = [
        _rates(report, "publish one by one, messages/s", "publish"),
        _rates(report, "publish in batches, messages/s", "publish-many"),
        _rates(report, "consume and ack, messages/s", "consume"),
        _latency(report, "p50"),
        _latency(report, "p99"),
        _words("durability of a confirmed publish", report, lambda one: one.durability),
    ]
    lines += [_ability(report, *item) for item in ABILITIES.items()]
    return [*lines, *_cost(report)]


def _rates(report: Report, name: str, workload: str) -> Line:
    cells = [report.cell(one.name, workload, "anymq") for one in report.backends]
    values = [None if cell is None else cell.rate for cell in cells]
    return Line(name, tuple(map(count, values)), _blank(report), _highest(report, values))


def _latency(report: Report, percent: str) -> Line:
    values: list[float | None] = []
    notes: list[str] = []
    for backend in report.backends:
        cell = report.cell(backend.name, "latency", "anymq", 0.5)
        values.append(_percentile(cell, percent))
        notes.append("" if cell is None else f"at {count(cell.rate)} messages/s")
    texts = tuple(map(milliseconds, values))
    lowest = _highest(report, [None if value is None else -value for value in values])
    return Line(f"end to end at 50 % load, {percent}, ms", texts, tuple(notes), lowest)


def _percentile(cell: Cell | None, percent: str) -> float | None:
    if cell is None or not cell.valid:
        return None
    value: float | None = getattr(cell.latency, percent)
    return value


def _ability(report: Report, key: str, name: str) -> Line:
    found = [one.capabilities.get(key, ("", "")) for one in report.backends]
    words = {"unsupported": "no"}
    texts = tuple(words.get(level, level) for level, _ in found)
    return Line(name, texts, _blank(report), behind=tuple(note for _, note in found))


def _words(name: str, report: Report, text: Callable[[Backend], str]) -> Line:
    return Line(name, tuple(map(text, report.backends)), _blank(report))


def _cost(report: Report) -> list[Line]:
    """Return the lines on operating cost: processes, memory, CPU time."""
    embedded = ("sqlite", "memory")
    runs = ["nothing" if one.name in embedded else "a server" for one in report.backends]
    idle = [one.idle_memory for one in report.backends]
    after = [one.memory for one in report.backends]
    server = [_cpu(report, one.name, server=True) for one in report.backends]
    client = [_cpu(report, one.name, server=False) for one in report.backends]
    blank = _blank(report)
    return [
        Line("runs beside the application", tuple(runs), blank),
        Line("memory of the server, idle", tuple(map(mebibytes, idle)), blank),
        Line("memory of the server, after the run", tuple(map(mebibytes, after)), blank),
        Line("CPU seconds of the server per million messages", _seconds(server), blank),
        Line("CPU seconds of a consumer per million messages", _seconds(client), blank),
    ]


def _cpu(report: Report, backend: str, *, server: bool) -> float | None:
    cell = report.cell(backend, "consume", "anymq")
    if cell is None:
        return None
    return cell.server_cpu if server else cell.cpu


def _seconds(values: list[float | None]) -> tuple[str, ...]:
    return tuple(figure(value, "s") for value in values)


def _blank(report: Report) -> tuple[str, ...]:
    return ("",) * len(report.backends)


def _highest(report: Report, values: list[float | None]) -> frozenset[int]:
    """Return the indices of the highest value among backends that survive a restart."""
    lasting = [one.capabilities["persistent"][0] != "unsupported" for one in report.backends]
    known = {
        place: value
        for place, (value, lasts) in enumerate(zip(values, lasting, strict=True))
        if lasts and value is not None
    }
    return frozenset(place for place, value in known.items() if value == max(known.values()))
