"""Terminal output of a run: progress, tables of results, goals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .formatting import count, deviation, figure, limit, milliseconds
from .goals import Verdict
from .results import Cell, Report
from .workloads import WORKLOADS


class ProgressDisplay:
    """The progress of a run: a bar in a terminal, plain lines otherwise."""

    def __init__(self, console: Console, progress: Progress | None, seconds: float) -> None:
        self._console = console
        self._progress = progress
        self._task = None if progress is None else progress.add_task("starting", total=seconds)

    def update(self, seconds: float, text: str) -> None:
        """Show the current step, `seconds` after the start."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=seconds, description=escape(text))
        else:
            self._console.print(f"{seconds:5.0f} s  {escape(text)}", highlight=False)


@contextmanager
def progress_display(seconds: float) -> Iterator[ProgressDisplay]:
    """Show progress on standard error for a run of about `seconds`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressDisplay(console, None, seconds)
        return
    columns = (SpinnerColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield ProgressDisplay(console, progress, seconds)


def print_report(report: Report, console: Console) -> None:
    """Print one table per backend, and the omitted measurements."""
    for backend in report.backends:
        title = f"{backend.name} {backend.version}".strip()
        here = [cell for cell in report.cells if cell.backend == backend.name]
        if any(cell.load is None for cell in here):
            console.print(_rates(report, backend.name, title))
        if any(cell.load is not None for cell in here):
            console.print(_latencies(report, backend.name))
    console.print("messages/s: medians of the rounds; CPU s: per million messages")
    reasons: dict[str, list[str]] = {}
    for one in report.left_out:
        reasons.setdefault(one.why, []).append(one.what)
    for why, what in reasons.items():
        console.print(f"not measured: {'; '.join(what)}: {why}", style="yellow", markup=False)


def _rates(report: Report, backend: str, title: str) -> Table:
    here = [cell for cell in report.cells if cell.backend == backend and cell.load is None]
    durability, others = _durabilities(here)
    table = Table(title=f"{title}: {durability}", title_justify="left", caption_justify="left")
    table.caption = "".join(f"{name}: {words}\n" for name, words in others.items()).rstrip()
    for name in ("workload", "contestant"):
        table.add_column(name, no_wrap=True)
    for name in ("messages/s", "spread", "to raw", "CPU s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for workload in WORKLOADS:
        cells = [cell for cell in here if cell.workload == workload.name]
        for cell in cells:
            table.add_row(*_row(report, cell))
        if cells:
            table.add_section()
    return table


def _durabilities(cells: Sequence[Cell]) -> tuple[str, dict[str, str]]:
    """Return the most common durability, and the others by contestant."""
    found = {cell.contestant: cell.durability for cell in cells}
    usual = Counter(found.values()).most_common(1)[0][0] if found else ""
    return usual, {name: words for name, words in found.items() if words != usual}


def _row(report: Report, cell: Cell) -> tuple[str, ...]:
    notes = cell.faults
    notes += [f"{cell.duplicates} duplicates"] if cell.duplicates else []
    return (
        cell.workload,
        cell.contestant,
        count(cell.rate),
        deviation(cell.rate, cell.spread),
        figure(report.against_raw(cell), "x"),
        figure(cell.cpu, ""),
        escape("; ".join(notes)),
    )


def _latencies(report: Report, backend: str) -> Table:
    table = Table(title=f"{backend}: end to end from the intended send time, in ms")
    for name in ("load", "messages/s", "contestant"):
        table.add_column(name, no_wrap=True)
    for name in ("p50", "p90", "p99", "p99.9", "send delay, p99", "confirmed, p99"):
        table.add_column(name, justify="right")
    for cell in report.cells:
        if cell.backend != backend or cell.load is None or not cell.valid:
            continue
        whole, late, confirmed = cell.latency, cell.delay, cell.confirm
        shown = (whole.p50, whole.p90, whole.p99, whole.p999, late.p99, confirmed.p99)
        figures = [milliseconds(value) for value in shown]
        table.add_row(f"{cell.load:.0%}", count(cell.rate), cell.contestant, *figures)
    return table


def print_goals(found: Sequence[Verdict], console: Console) -> None:
    """Print each goal with its limit, figure and verdict."""
    table = Table(title="goals")
    for name in ("backend", "goal"):
        table.add_column(name)
    for name in ("limit", "figure", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        style = "green" if one.met else "yellow" if one.passed else "red"
        table.add_row(
            one.goal.backend,
            one.goal.name,
            limit(one.goal),
            figure(one.figure, one.goal.unit),
            f"[{style}]{one.text}[/]",
        )
    console.print(table)
