"""The command line: run the system, print the figures, reconcile them with the file."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from anymq import AnymqError

from .console import Console, table, verdict
from .figures import Figures
from .invoices import BadFile, read_invoices
from .processes import Processes, ServiceFailed
from .reconcile import figures_of_file
from .stderr import complain, show_warnings
from .system import Observe, Outcome, run_orders
from .view import Progress

DATA = Path(__file__).parent / "data" / "lines.csv"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.orders",
        description="Run the order system on a broker, then reconcile its ledger with the file.",
        epilog="Exit code: 0 if they agree, 1 if they differ, 2 if the run failed.",
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("ANYMQ_URL", "memory://"),
        help="URL of the broker (ANYMQ_URL, otherwise memory://)",
    )
    parser.add_argument("--data", type=Path, default=DATA, help="CSV file of order lines")
    parser.add_argument("--limit", type=natural, help="process only the first LIMIT invoices")
    parser.add_argument("--processes", action="store_true", help="run each service as a process")
    parser.add_argument(
        "--mend", action="store_true", help="edit and redrive orders without a customer"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as a JSON object")
    return parser


def natural(text: str) -> int:
    """Return a non-negative integer."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def main(arguments: argparse.Namespace, intervene: Observe | None = None) -> int:
    """Execute the command line and return the exit code.

    `intervene` is called with progress and processes; the demo uses it to kill a process.
    """
    show_warnings("orders")
    try:
        return asyncio.run(_main(arguments, intervene))
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except asyncio.CancelledError:
        status = 128 + signal.SIGTERM
    print("\norders: interrupted", file=sys.stderr)
    return status


async def _main(arguments: argparse.Namespace, intervene: Observe | None) -> int:
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # not supported on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    outcome: Outcome | None = None
    try:
        outcome = await _run(arguments, intervene)
    except* (AnymqError, BadFile, ServiceFailed) as errors:
        complain("orders", errors)
    return 2 if outcome is None else _report(arguments, outcome)


async def _run(arguments: argparse.Namespace, intervene: Observe | None) -> Outcome:
    invoices = read_invoices(arguments.data, arguments.limit)
    console = Console(quiet=arguments.json)

    def observe(progress: Progress, processes: Processes | None) -> None:
        console.progress(progress)
        if intervene is not None:
            intervene(progress, processes)

    return await run_orders(
        arguments.url,
        invoices,
        processes=arguments.processes,
        mend=arguments.mend,
        observe=observe,
        note=console.note,
    )


def _report(arguments: argparse.Namespace, outcome: Outcome) -> int:
    figures = outcome.figures
    differences = figures.differences(
        figures_of_file(arguments.data, arguments.limit, mended=arguments.mend)
    )
    if outcome.missing is not None:
        print(f"orders: {outcome.missing}", file=sys.stderr)
    judgement = verdict(differences, arguments.data)
    if arguments.json:
        print(json.dumps(_object(figures, reconciled=not differences)))
        if differences:
            print(judgement, file=sys.stderr)
    else:
        print(f"\n{table(figures)}\n\n{judgement}")
    return 1 if differences else 0


def _object(figures: Figures, *, reconciled: bool) -> dict[str, Any]:
    by_country = figures.countries_shown()
    return figures.shown() | {"revenue_by_country": by_country, "reconciled": reconciled}
