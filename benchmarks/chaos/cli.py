"""Fault scenarios on a server started for them, or on an existing broker."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .journal import now
from .report import Outcome, from_json, markdown, table
from .run import Run, Size
from .scenarios import SCENARIOS, Scenario
from .target import BACKENDS, Target, of_backend, of_url

LONG = Size(
    messages=100_000, outage=600.0, pauses=(5.0, 45.0), stall=15.0, backlog=200_000, down=5.0
)
"""The size of reported runs."""


def add_to(commands: Any) -> None:
    """Add the command to the parsers of `python -m benchmarks`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "chaos",
        help="inject faults, and check that no message is lost",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = LONG
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--backend", choices=(*BACKENDS, "all"), help="backend to test on a server of its own"
    )
    where.add_argument(
        "--url", help="existing broker to test; only producers and consumers are killed"
    )
    where.add_argument(
        "--read", type=Path, nargs="+", help="run nothing; combine files printed by --json"
    )
    parser.add_argument(
        "--scenario", action="append", choices=sorted(SCENARIOS), help="repeatable; default: all"
    )
    parser.add_argument(
        "--messages", type=int, default=default.messages, help="messages to confirm"
    )
    parser.add_argument(
        "--kills", type=int, help="kills per scenario; default: the number of the scenario"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of all faults")
    parser.add_argument("--rate", type=float, default=default.rate, help="messages/s")
    parser.add_argument(
        "--outage", type=float, default=default.outage, help="seconds without server"
    )
    parser.add_argument(
        "--pauses", type=float, nargs="+", default=default.pauses, help="seconds of each SIGSTOP"
    )
    parser.add_argument(
        "--backlog", type=int, default=default.backlog, help="messages of the backlog"
    )
    parser.add_argument("--folder", type=Path, help="folder that keeps journals and logs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--report", type=Path, help="write a Markdown report to this file")
    parser.set_defaults(run=main)


def main(options: argparse.Namespace) -> int:
    """Run the scenarios; return 0 if every check held, 1 otherwise."""
    size = replace(
        LONG,
        messages=options.messages,
        seed=options.seed,
        rate=options.rate,
        outage=options.outage,
        pauses=tuple(options.pauses),
        backlog=options.backlog,
    )
    if options.read:
        outcomes = [one for file in options.read for one in from_json(file.read_bytes())]
    else:
        outcomes = _run_all(options, size)
    if options.json:
        print(json.dumps([outcome.as_json() for outcome in outcomes], indent=2))
    else:
        print(table(outcomes))
    if options.report:
        options.report.write_text(markdown(outcomes))
    return int(any(outcome.failures for outcome in outcomes))


def _run_all(options: argparse.Namespace, size: Size) -> list[Outcome]:
    names = options.scenario or list(SCENARIOS)
    backends = BACKENDS if options.backend == "all" else (options.backend,)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="anymq-chaos-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        for backend in backends:
            outcomes += _backend(backend, options, names, size, folder)
    return outcomes


def _backend(
    backend: str | None, options: argparse.Namespace, names: list[str], size: Size, folder: Path
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    folder /= backend or "url"
    folder.mkdir(parents=True, exist_ok=True)
    target = of_backend(backend, folder) if backend else of_url(options.url)
    try:
        if target.server is not None:
            target.server.reset()
        for name in names:
            if reason := asyncio.run(SCENARIOS[name].obstacle(target)):
                print(f"{target.name} {name}: skipped: {reason}", file=sys.stderr)
                continue
            print(f"{target.name} {name}: running", file=sys.stderr)
            kills = SCENARIOS[name].kills if options.kills is None else options.kills
            sized = replace(size, kills=kills)
            outcomes.append(run_scenario(SCENARIOS[name], target, folder / name, sized))
            print(table(outcomes[-1:]).partition("\n")[2], file=sys.stderr)
    finally:
        if target.server is not None:
            target.server.down()
    return outcomes


def run_scenario(scenario: Scenario, target: Target, folder: Path, size: Size) -> Outcome:
    """Run one scenario, with its journals in `folder`."""
    folder.mkdir(parents=True)
    started = now()
    verdict, failures = asyncio.run(scenario.run(Run(target, folder, size)))
    seconds = round(now() - started, 1)
    return Outcome(target.name, target.version, scenario.name, size, seconds, verdict, failures)
