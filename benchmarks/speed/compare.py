"""Throughput of one anymq installation relative to another.

OLD and NEW are Python interpreters, each of a virtual environment with its own checkout of anymq.
Both run the workers of this checkout, on the same servers, with the same numbers of messages. Every
round measures both, one directly after the other, and the next round reverses their order.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from .cases import Case, OpenCell, merged
from .contestants import contestant
from .environment import Environment
from .formatting import count
from .measurement import measure_both
from .results import Cell, ratios
from .targets import Target, add_target_options, backends_of, targets
from .workers import ROOT, JobFailed
from .workloads import chosen

COMPARED = ("publish", "publish-many", "consume")
_DESCRIBE = "import anymq, benchmarks.speed.worker; print(anymq.__version__, anymq.__file__)"

Pair = tuple[Cell, Cell]  # the results of OLD and NEW on one workload


def add_to(commands: Any) -> None:
    """Add the command to the parsers of `python -m benchmarks`."""
    text = "compare two installations of anymq in alternating rounds"
    parser: argparse.ArgumentParser = commands.add_parser("compare", help=text, description=__doc__)
    parser.add_argument("old", metavar="OLD", help="interpreter with the old anymq")
    parser.add_argument("new", metavar="NEW", help="interpreter with the new anymq")
    add_target_options(parser)
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the warm-up (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a measurement (1)")
    parser.add_argument(
        "--limit", type=float, metavar="PERCENT", help="exit with code 1 if NEW is slower by more"
    )
    parser.set_defaults(run=main)


def main(options: argparse.Namespace) -> int:
    """Print a table of ratios; return 1 if a measurement failed or `--limit` is exceeded."""
    try:
        for name in ("old", "new"):
            print(f"{name}: {_describe(getattr(options, name))}", file=sys.stderr)
        pairs = _compare(options)
    except JobFailed as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    Console().print(_table(pairs))
    lowest = 0.0 if options.limit is None else 1 - options.limit / 100
    return int(any(median(ratios(new, old)) < lowest for old, new in pairs))


def _describe(python: str) -> str:
    """Return version and path of an interpreter's anymq; raise if it cannot run a worker."""
    command = [python, "-c", _DESCRIBE]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except OSError as error:
        raise JobFailed(f"{python} cannot be started: {error}") from error
    except subprocess.CalledProcessError as error:
        raise JobFailed(f"{python} cannot run a worker: {error.stderr.strip()[-300:]}") from error
    return done.stdout.strip()


def _compare(options: argparse.Namespace) -> list[Pair]:
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="anymq-bench-") as name:
        folder = Path(name)
        with targets(backends_of(options), options.url, folder) as (found, left_out):
            for one in left_out:
                print(f"{one.what} left out: {one.why}", file=sys.stderr)
            for target in found:
                pairs += asyncio.run(_compare_on(target, options, folder))
    return pairs


async def _compare_on(target: Target, options: argparse.Namespace, folder: Path) -> list[Pair]:
    sides: list[tuple[Environment, list[Case]]] = []
    async with AsyncExitStack() as stack:
        for name in ("old", "new"):
            logs = folder / f"{target.backend}-{name}"
            logs.mkdir()
            environment = Environment(target, logs, python=getattr(options, name))
            await stack.enter_async_context(environment)
            sides.append((environment, _cases(target.backend, options.seconds)))
        for round in range(options.rounds + 1):
            print(f"{target.backend}: round {round} of {options.rounds}", file=sys.stderr)
            await _round(sides if round % 2 else sides[::-1], round)
    old, new = ([cell.result for case in cases for cell in case.cells] for _, cases in sides)
    return list(zip(old, new, strict=True))


def _cases(backend: str, seconds: float) -> list[Case]:
    kind = contestant(backend, "anymq")
    workloads = [replace(workload, seconds=seconds) for workload in chosen(COMPARED)]
    return merged([(kind, OpenCell.of(workload, kind)) for workload in workloads])


async def _round(sides: Sequence[tuple[Environment, list[Case]]], round: int) -> None:
    """Measure each case on both sides; round 0 is the warm-up, which sets the message counts."""
    for pair in zip(*(cases for _, cases in sides), strict=True):
        for (environment, _), case in zip(sides, pair, strict=True):
            measured = await measure_both(
                environment, case.workload, case.contestant, count=case.count, round=round
            )
            if void := measured.published.void or measured.consumed.void:
                raise JobFailed(f"{environment.target.backend}: {case.name}: {void}")
            if round:
                case.add(measured)
            else:
                case.calibrate(measured, case.count, 0.0)
                case.set_count(1.0)
        fewest = min(case.count for case in pair)
        for case in pair:
            case.count = fewest
    for environment, _ in sides:
        await environment.clean_up()


def _table(pairs: Iterable[Pair]) -> Table:
    title = "messages/s, and new/old as the median and the range of all rounds"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("backend", "workload"):
        table.add_column(name, no_wrap=True)
    for name in ("old", "new", "new/old", "lowest", "highest", "CPU new/old"):
        table.add_column(name, justify="right", no_wrap=True)
    for old, new in pairs:
        found = ratios(new, old)
        cpu = median(ratios(new, old, value=lambda sample: sample.cpu))
        figures = (median(found), min(found), max(found), cpu)
        rates = (count(old.rate), count(new.rate))
        table.add_row(old.backend, old.workload, *rates, *(f"{one:.3f}" for one in figures))
    return table
