"""The plots of the report: bars of throughput and curves of latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import svg
from .formatting import count
from .latencies import curve
from .results import Cell, Report
from .workloads import WORKLOADS

COLOURS = {
    "anymq": "#0969da",
    "anymq+idempotency": "#54aeff",
    "anymq+redis": "#80ccff",
    "raw": "#6e7781",
    "raw best": "#424a53",
    "faststream": "#d4722a",
    "mq-bridge": "#2da44e",
    "native": "#8250df",
}
OTHER = "#afb8c1"
LABELS = 126.0
BAR, GAP = 15.0, 5.0


@dataclass(frozen=True, slots=True)
class Bar:
    """The median of one contestant, and its range."""

    name: str
    value: float
    low: float
    high: float


def bars_of(cells: Sequence[Cell]) -> list[Bar]:
    """Return a bar for each measured cell."""
    measured = [(cell, cell.rate, cell.spread) for cell in cells]
    return [
        Bar(cell.contestant, rate, *spread)
        for cell, rate, spread in measured
        if rate is not None and spread is not None
    ]


def panel(title: str, bars: Sequence[Bar], width: float) -> tuple[str, float]:
    """Return horizontal bars under a title, and their height."""
    longest = max((bar.high for bar in bars), default=1.0)
    room = width - LABELS - 62
    content = [svg.text(0, 12, title, size=12, weight="600")]
    y = 22.0
    for bar in bars:
        length = bar.value / longest * room
        colour = COLOURS.get(bar.name, OTHER)
        middle = y + BAR / 2
        content += [
            svg.text(LABELS - 6, y + 12, bar.name, size=11, anchor="end"),
            svg.box(LABELS, y, length, BAR, colour),
            svg.line(
                LABELS + bar.low / longest * room,
                middle,
                LABELS + bar.high / longest * room,
                middle,
                colour=svg.INK,
                width=1.2,
            ),
            svg.text(LABELS + bar.high / longest * room + 5, y + 12, count(bar.value), size=11),
        ]
        y += BAR + GAP
    return "".join(content), y


def throughput(report: Report, backend: str) -> str:
    """Return the bars of each measured workload of a backend, two panels per row."""
    drawn: list[tuple[str, float]] = []
    for workload in WORKLOADS:
        cells = [
            cell
            for cell in report.cells
            if (cell.backend, cell.workload, cell.load) == (backend, workload.name, None)
        ]
        if bars := bars_of(cells):
            drawn.append(panel(f"{workload.name}, messages/s", bars, 460))
    return _grid(drawn, 2, 480, f"{backend}: messages a second")


def overview(report: Report) -> str:
    """Return the overview for a README: publish and consume on each backend, side by side."""
    drawn: list[tuple[str, float]] = []
    for backend in report.backends:
        for workload in ("publish", "consume"):
            names = ("anymq", "raw", "faststream")
            found = [report.cell(backend.name, workload, name) for name in names]
            if bars := bars_of([cell for cell in found if cell is not None]):
                drawn.append(panel(f"{backend.name}: {workload}, messages/s", bars, 460))
    return _grid(drawn, 2, 480, "publish and consume, messages a second")


def _grid(drawn: Sequence[tuple[str, float]], columns: int, width: float, title: str) -> str:
    content: list[str] = []
    y = 4.0
    for start in range(0, len(drawn), columns):
        row = drawn[start : start + columns]
        content += [svg.group(8 + place * width, y, [one]) for place, (one, _) in enumerate(row)]
        y += max(height for _, height in row) + 12
    return svg.document(columns * width, y, content, title)


TICKS = ((math.log10(2), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"))


def latency(report: Report, backend: str) -> str:
    """Return a curve of latency by percentile for each contestant and load; empty if none."""
    lines: list[tuple[Cell, list[tuple[float, float]]]] = []
    for cell in report.cells:
        if cell.backend == backend and cell.load is not None:
            points = curve(one.latency for one in cell.valid if one.latency)
            if points:
                lines.append((cell, points))
    if not lines:
        return ""
    axes = _Axes(
        right=max(x for _, points in lines for x, _ in points),
        low=min(y for _, points in lines for _, y in points),
        high=max(y for _, points in lines for _, y in points),
    )
    content = axes.drawn()
    for number, (cell, points) in enumerate(lines):
        colour = COLOURS.get(cell.contestant, OTHER)
        dashes = {0.7: "6 3", 0.9: "2 3"}.get(cell.load or 0.0, "")
        content.append(
            svg.path([axes.at(*point) for point in points], colour=colour, dashes=dashes)
        )
        y = 26 + 18 * number
        words = f"{cell.contestant}, {cell.load:.0%} ({count(cell.rate)}/s)"
        content.append(svg.path([(706, y - 4), (736, y - 4)], colour=colour, dashes=dashes))
        content.append(svg.text(742, y, words, size=11))
    return svg.document(960, 320, content, f"{backend}: end-to-end latency by percentile")


@dataclass(frozen=True, slots=True)
class _Axes:
    """Logarithmic axes: percentiles by their nines to the right, milliseconds upwards."""

    right: float
    low: float
    high: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        bottom, top = self._decades()
        share = (math.log10(max(y, 1e-3)) - bottom) / (top - bottom)
        return 60 + x / max(self.right, 1.0) * 620, 280 - share * 255

    def drawn(self) -> list[str]:
        bottom, top = self._decades()
        content: list[str] = []
        for decade in range(bottom, top + 1):
            _, y = self.at(0, 10.0**decade)
            content.append(svg.line(60, y, 680, y))
            content.append(svg.text(52, y + 4, f"{10.0**decade:g} ms", size=11, anchor="end"))
        for place, words in TICKS:
            if place <= max(self.right, 1.0) + 0.01:
                x, _ = self.at(place, 1.0)
                content.append(svg.line(x, 25, x, 280))
                content.append(svg.text(x, 298, words, size=11, anchor="middle"))
        return content

    def _decades(self) -> tuple[int, int]:
        bottom = math.floor(math.log10(max(self.low, 1e-3)))
        return bottom, max(bottom + 1, math.ceil(math.log10(max(self.high, 1e-3))))
