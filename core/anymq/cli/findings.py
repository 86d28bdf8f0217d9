"""`Finding`: what a check found, as the line and exit code that monitoring systems read.

The form is that of Nagios plugins: `LAG WARNING - text | label=value;warn;crit`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from ..errors import text_of
from ..logs import shown
from .failures import EXIT_UNKNOWN, CommandError
from .output import Output, duration
from .process import CLEANUP_SECONDS, leave
from .values import duration_of

Threshold = float | timedelta


class Status(IntEnum):
    """The state of what is checked; its number is the exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = EXIT_UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number with its thresholds, for graphs."""

    label: str
    value: float
    unit: str = ""
    warn: float | None = None
    crit: float | None = None

    def __str__(self) -> str:
        parts = (f"{self.value:g}{self.unit}", _number(self.warn), _number(self.crit))
        return f"{self.label}={';'.join(parts).rstrip(';')}"


@dataclass(frozen=True)
class Finding:
    """The status, and a text that says why."""

    status: Status
    text: str
    measures: tuple[Measure, ...] = ()

    def line(self, name: str) -> str:
        """Return the line for the check `name`."""
        # A bar separates the text from the numbers.
        text = shown(" ".join(self.text.replace("|", "/").split()))
        graphs = f" | {' '.join(map(str, self.measures))}" if self.measures else ""
        return f"{name.upper()} {self.status.name} - {text}{graphs}"

    @classmethod
    def worst(cls, findings: Iterable[Finding]) -> Finding:
        """Return one finding with the texts of the worst status, and all numbers.

        Unknown is worse than OK only, so that it hides no warning.
        """
        everything = list(findings)
        rank = (Status.CRITICAL, Status.WARNING, Status.UNKNOWN, Status.OK)
        status = min((each.status for each in everything), key=rank.index)
        texts = [each.text for each in everything if each.status == status]
        more = f"; and {len(texts) - 3} more" if len(texts) > 3 else ""
        measures = tuple(measure for each in everything for measure in each.measures)
        return cls(status, "; ".join(texts[:3]) + more, measures)


@dataclass(frozen=True)
class Limits:
    """The thresholds of one check. A value that reaches one is a warning, or critical."""

    warn: float | None = None
    crit: float | None = None
    age: bool = False
    """Whether they are seconds."""

    @classmethod
    def of(cls, warn: Threshold | None, crit: Threshold | None) -> Limits:
        """Return the limits; raises `CommandError` if they do not fit together."""
        kinds = {isinstance(each, timedelta) for each in (warn, crit) if each is not None}
        if len(kinds) == 2:
            raise _usage("--warn and --crit are both numbers, or both durations such as 5m")
        low, high = _plain(warn), _plain(crit)
        if low is not None and high is not None and low > high:
            raise _usage("--warn is more than --crit; it is at most as much")
        return cls(low, high, age=kinds == {True})

    @property
    def given(self) -> bool:
        """Whether there is a threshold."""
        return self.warn is not None or self.crit is not None

    def status(self, value: float) -> Status:
        """Return the status of a value."""
        if self.crit is not None and value >= self.crit:
            return Status.CRITICAL
        return Status.WARNING if self.warn is not None and value >= self.warn else Status.OK

    def finding(self, label: str, value: float, text: str) -> Finding:
        """Return what `value` means."""
        unit = "s" if self.age else ""
        measure = Measure(label=label, value=value, unit=unit, warn=self.warn, crit=self.crit)
        return Finding(self.status(value), text, (measure,))


def threshold_of(text: str) -> Threshold:
    """Return a threshold: a number, or a duration such as `5m`."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return duration_of(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no threshold; write a number, or an age: 30s 5m 2h"
        ) from None


async def run_check(
    name: str,
    work: Callable[[], Awaitable[Finding]],
    *,
    timeout: timedelta,
    output: Output,
    late: Status = Status.UNKNOWN,
) -> int:
    """Write what `work` finds, and return the exit code.

    An error of `work` is unknown. If it takes longer than `timeout`, the status is `late`, and the
    process ends although it may still be connected.
    """
    limit = timeout.total_seconds()
    running = asyncio.ensure_future(_found(work))
    try:
        await asyncio.wait({running}, timeout=limit)
    except asyncio.CancelledError:
        running.cancel()
        raise
    if running.done():
        return _write(name, running.result(), output)
    running.cancel()
    code = _write(name, Finding(late, f"no answer within {duration(limit)}"), output)
    sys.stdout.flush()
    # Even name resolution, in a thread that nothing cancels, must not delay the exit.
    overdue = threading.Timer(CLEANUP_SECONDS, leave, (code,))
    overdue.daemon = True
    overdue.start()
    return code


async def _found(work: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await work()
    except Exception as error:
        return Finding(Status.UNKNOWN, text_of(error))


def _write(name: str, found: Finding, output: Output) -> int:
    data = {
        "check": name,
        "status": found.status.name.lower(),
        "text": found.text,
        "measures": {
            each.label: {"value": each.value, "warn": each.warn, "crit": each.crit}
            for each in found.measures
        },
        "exit": int(found.status),
    }
    output.result("check", data, found.line(name))
    return int(found.status)


def _plain(threshold: Threshold | None) -> float | None:
    return threshold.total_seconds() if isinstance(threshold, timedelta) else threshold


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _usage(text: str) -> CommandError:
    return CommandError(text, code=EXIT_UNKNOWN)
