"""The history of figures: one JSON line per run, appended to a file."""

from __future__ import annotations

import json
from pathlib import Path

from .goals import verdicts
from .results import Report


def append(report: Report, path: Path) -> None:
    """Append the line of `report` to the file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line(report), separators=(",", ":")) + "\n")


def line(report: Report) -> dict[str, object]:
    """Return the kept part of a report: median rates, figures of goals and the machine."""
    found = verdicts(report)
    return {
        "started": report.started,
        "mode": report.mode,
        "anymq": report.anymq,
        "commit": report.commit,
        "machine": f"{report.machine.processor}, {report.machine.cores} cores",
        "load": round(report.machine.load, 2),
        "rates": {
            "/".join((cell.backend, cell.workload, cell.contestant)): round(cell.rate)
            for cell in report.cells
            if cell.load is None and cell.rate is not None
        },
        "goals": {
            f"{one.goal.backend} {one.goal.name}".strip(): round(one.figure, 3)
            for one in found
            if one.figure is not None
        },
        "met": sum(one.met for one in found),
        "of": len(found),
    }
