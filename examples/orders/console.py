"""Terminal output: progress and notes on standard error, the table on standard output."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .figures import Figures
from .view import Progress

EVERY = 2.0
CLEAR = "\r\033[K"


class Console:
    """Shows progress: on a terminal as one updated line, elsewhere as a line every 2 s."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._started = time.monotonic()
        self._due = 0.0

    def progress(self, now: Progress) -> None:
        """Show the progress of the run."""
        elapsed = time.monotonic() - self._started
        done = now.settled == now.expected
        if self._quiet or (elapsed < self._due and not done):
            return
        text = (
            f"{elapsed:5.1f} s  {now.settled:,} of {now.expected:,} invoices settled: "
            f"{now.shipped:,} shipped, {now.rejected:,} rejected ({now.expired:,} expired), "
            f"{now.cancelled:,} cancelled"
        )
        if self._live:
            print(CLEAR + text, end="\n" if done else "", file=sys.stderr, flush=True)
        else:
            self._due = elapsed + EVERY
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a note."""
        print((CLEAR if self._live else "") + text, file=sys.stderr, flush=True)


def table(figures: Figures) -> str:
    """Return the figures as a table."""
    rows = [(name.replace("_", " "), _grouped(value)) for name, value in figures.shown().items()]
    rows += [("", ""), ("revenue by country", "")]
    rows += [
        (f"  {_printable(name)}", _grouped(amount))
        for name, amount in figures.countries_shown().items()
    ]
    left = max(len(name) for name, _ in rows)
    right = max(len(value) for _, value in rows)
    return "\n".join(f"{name:<{left}}  {value:>{right}}".rstrip() for name, value in rows)


def verdict(differences: list[str], file: Path) -> str:
    """Return whether ledger and file agree, and their differences."""
    if not differences:
        return f"reconciled: the ledger agrees with {file}"
    return "\n".join(
        [
            f"NOT reconciled: the ledger differs from {file}",
            *(f"  {line}" for line in differences),
        ]
    )


def _grouped(value: int | str) -> str:
    """Return a number with thousands separators."""
    whole, point, pence = str(value).partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(digits):,}{point}{pence}"


def _printable(name: str) -> str:
    return name if name and name.isprintable() else repr(name)
