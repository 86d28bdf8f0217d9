"""Measure brokers and clients, and write a report."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from anymq import URL

from .goals import faults, verdicts
from .history import append
from .html import page
from .plots import overview
from .results import Report
from .rounds import FULL, QUICK
from .run import Plan, run, seconds_of
from .targets import add_target_options, backends_of
from .terminal import print_goals, print_report, progress_display
from .workloads import NAMES, QUICK_WORKLOADS, chosen

HISTORY = "history.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to `parser`."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run for two minutes instead of twenty, with fewer rounds and peers",
    )
    add_target_options(parser)
    parser.add_argument(
        "--workload", action="append", choices=NAMES, help="workload to measure; repeatable (all)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/benchmarks"),
        metavar="FOLDER",
        help="folder of report.html, report.json, overview.svg, history.jsonl (build/benchmarks)",
    )
    parser.add_argument(
        "--goals", action="store_true", help="print the goals; exit with code 1 if one is missed"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="measure nothing; show an earlier report.json",
    )
    parser.set_defaults(run=main)


def add_to(commands: Any) -> None:
    """Add the command to the parsers of `python -m benchmarks`."""
    text = "measure brokers and clients, and write a report (the default command)"
    add_options(commands.add_parser("speed", help=text, description=__doc__))


def main(options: argparse.Namespace) -> int:
    """Measure, print and write the report; return 1 if `--goals` is given and one is missed."""
    console = Console()
    if options.source is not None:
        report = Report.model_validate_json(options.source.read_text())
    else:
        report = _measured(options)
    _write(report, options.output, history=options.source is None)
    if options.json:
        print(report.model_dump_json(indent=2))
    else:
        print_report(report, console)
    found = verdicts(report)
    if options.goals:
        print_goals(found, Console(stderr=options.json))
    for fault in faults(report):
        print(fault, file=sys.stderr)
    print(f"report: {options.output / 'report.html'}", file=sys.stderr)
    passed = all(one.passed for one in found) and not faults(report)
    return int(options.goals and not passed)


def _measured(options: argparse.Namespace) -> Report:
    scale = QUICK if options.quick else FULL
    names = options.workload or (QUICK_WORKLOADS if options.quick else NAMES)
    with tempfile.TemporaryDirectory(prefix="anymq-bench-") as folder:
        plan = Plan(
            backends=backends_of(options),
            urls=options.url,
            workloads=chosen(names),
            scale=scale,
            folder=Path(folder),
            command=_command(options),
        )
        with progress_display(seconds_of(plan)) as display:
            return run(plan, display.update)


def _command(options: argparse.Namespace) -> str:
    """Return the command line of this run, without passwords."""
    words = ["python -m benchmarks", *(["--quick"] if options.quick else [])]
    words += [f"--backend {name}" for name in options.backend or ()]
    words += [f"--url {URL.parse(url)}" for url in options.url]
    words += [f"--workload {name}" for name in options.workload or ()]
    return " ".join(words)


def _write(report: Report, folder: Path, *, history: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n")
    (folder / "report.html").write_text(page(report))
    (folder / "overview.svg").write_text(overview(report))
    if history:
        append(report, folder / HISTORY)
