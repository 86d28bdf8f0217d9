"""`report.html`: the report as one self-contained file, for screen and paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from .broker_comparison import comparison
from .formatting import count, figure, limit, mebibytes, milliseconds, spread
from .goals import Verdict, verdicts
from .machine import CAVEATS
from .method import METHOD
from .plots import latency, overview, throughput
from .results import Cell, Report
from .style import STYLE
from .summary import summary
from .workloads import WORKLOADS


def page(report: Report) -> str:
    """Return the whole page."""
    sections = [
        _section("Summary", _list(summary(report)) + overview(report)),
        _section("Which broker for me?", _comparison(report), "page wide"),
        *(_section(one.name, _backend(report, one.name), "page") for one in report.backends),
        _section("Goals", _goals(verdicts(report)), "page"),
        _section("Method", _list(METHOD) + _workloads(), "page"),
        _section("Machine and caveats", _machine(report) + _list(CAVEATS)),
        _section("Not measured", _list(f"{one.what}: {one.why}" for one in report.left_out)),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>anymq {escape(report.anymq)}: benchmark</title><style>{STYLE}</style></head>"
        f"<body><h1>anymq {escape(report.anymq)}: benchmark</h1>{_head(report)}"
        f"{''.join(sections)}</body></html>\n"
    )


def _head(report: Report) -> str:
    minutes = f"{report.seconds / 60:.0f} min" if report.seconds > 90 else f"{report.seconds:.0f} s"
    parts = [report.started, f"{report.mode} run", minutes, report.command]
    if report.commit:
        parts.insert(1, f"commit {report.commit}")
    return f"<p class='faint'>{escape(' · '.join(parts))}</p>"


def _section(title: str, content: str, kind: str = "") -> str:
    return f"<section class='{kind}'><h2>{escape(title)}</h2>{content}</section>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], *, text: int) -> str:
    """Return a table of HTML cells; the first `text` columns are text, the others numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        marked = (
            f"<{tag} class='{'words' if place < text else 'number'}'>{cell}</{tag}>"
            for place, cell in enumerate(cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return (
        f"<div class='scroll'><table><thead>{row(names, 'th')}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _comparison(report: Report) -> str:
    lines = comparison(report)
    rows = [
        [
            escape(line.name),
            *(
                f"<span class='{'best' if place in line.best else ''}'>{escape(text)}</span>"
                + (f"<small>{escape(note)}</small>" if note else "")
                for place, (text, note) in enumerate(zip(line.texts, line.notes, strict=True))
            ),
        ]
        for line in lines
    ]
    notes = [
        [escape(line.name), *(f"<small>{_prose(note)}</small>" for note in line.behind)]
        for line in lines
        if any(line.behind)
    ]
    names = ["", *(escape(f"{one.name} {one.version}".strip()) for one in report.backends)]
    words = (
        "<p>Figures of anymq on each backend in this run, and the abilities it declares: "
        "<i>native</i>, provided by the broker; <i>emulated</i>, added by anymq; <i>no</i>, "
        "unsupported. The highest rates and lowest latencies of backends that survive a restart "
        "are bold. Durabilities differ: compare speed only if either durability suffices.</p>"
    )
    table = words + _table(names, rows, text=len(names))
    return table + "<h3>Notes on the abilities</h3>" + _table(names, notes, text=len(names))


def _prose(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _backend(report: Report, backend: str) -> str:
    cells = [cell for cell in report.cells if cell.backend == backend]
    hows = {cell.contestant: f"{cell.how}. Durability: {cell.durability}" for cell in cells}
    return (
        throughput(report, backend)
        + _rates(report, [cell for cell in cells if cell.load is None])
        + (f"<h3>Latency</h3>{latency(report, backend)}" if any(c.load for c in cells) else "")
        + _latencies([cell for cell in cells if cell.load is not None])
        + "<h3>Contestants</h3>"
        + _table(
            ["contestant", "how"],
            ([escape(name), escape(how)] for name, how in hows.items()),
            text=2,
        )
    )


def _rates(report: Report, cells: Sequence[Cell]) -> str:
    names = ["workload", "contestant", "durability", "messages/s", "lowest to highest", "rounds of"]
    names += ["to raw", "CPU s", "server CPU s", "peak memory", "duplicates", "reordered", "void"]
    words = "<p class='faint'>Medians of the rounds. CPU seconds are per million messages.</p>"
    return _table(names, (_row(report, cell) for cell in cells), text=3) + words


def _row(report: Report, cell: Cell) -> list[str]:
    valid = cell.valid
    void = cell.faults
    shown = [
        cell.workload,
        cell.contestant,
        cell.durability,
        count(cell.rate),
        spread(cell.spread),
        f"{len(valid)} x {valid[0].messages:,}" if valid else "",
        figure(report.against_raw(cell), "x"),
        figure(cell.cpu, ""),
        figure(cell.server_cpu, ""),
        mebibytes(max((one.rss_peak for one in valid), default=0) or None),
        str(cell.duplicates),
        str(cell.reorders),
        "; ".join(void),
    ]
    return [escape(one) for one in shown]


def _latencies(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    names = ["contestant", "load", "messages/s", "p50 ms", "p90", "p99", "p99.9", "highest"]
    names += ["samples", "send delay p50", "p99", "confirmed p50", "p99"]
    return _table(names, (_latency_row(cell) for cell in cells if cell.valid), text=1)


def _latency_row(cell: Cell) -> list[str]:
    whole, late, confirmed = cell.latency, cell.delay, cell.confirm
    figures = (whole.p50, whole.p90, whole.p99, whole.p999, whole.highest)
    more = (late.p50, late.p99, confirmed.p50, confirmed.p99)
    return [
        escape(cell.contestant),
        f"{cell.load:.0%}",
        count(cell.rate),
        *map(milliseconds, figures),
        f"{whole.samples:,}",
        *map(milliseconds, more),
    ]


def _goals(found: Sequence[Verdict]) -> str:
    rows = (
        [
            escape(one.goal.backend),
            escape(one.goal.name),
            escape(limit(one.goal)),
            escape(figure(one.figure, one.goal.unit)),
            f"<span class='{_kind(one)}'>{one.text}</span>",
        ]
        for one in found
    )
    return _table(["backend", "goal", "limit", "figure", "verdict"], rows, text=2)


def _kind(one: Verdict) -> str:
    return "met" if one.met else "faint" if one.passed else "missed"


def _workloads() -> str:
    rows = ([escape(one.name), escape(one.title), f"{one.size:,}"] for one in WORKLOADS)
    return _table(["workload", "description", "bytes per body"], rows, text=2)


def _machine(report: Report) -> str:
    where = report.machine
    facts = {
        "system": where.system,
        "processor": f"{where.processor}, {where.cores} cores",
        "memory": mebibytes(where.memory),
        "Python": f"{where.python}, {where.loop}",
        "load average before the run": f"{where.load:.2f}",
        "packages": ", ".join(f"{name} {number}" for name, number in where.packages.items()),
        **{one.name: f"{one.version} at {one.where}" for one in report.backends},
        **{
            name: f"{value:.2f}" if name.startswith("fairness") else f"{value:.1f} ms"
            for name, value in report.microbenchmarks.values.items()
        },
    }
    return _table(["", ""], ([escape(name), escape(text)] for name, text in facts.items()), text=2)
