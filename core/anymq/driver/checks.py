"""`Check` and `Endpoint`: the diagnosis of a connection, and helpers for `Driver.checks`."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import AnymqError, ErrorTable, text_of, translate

CheckOutcome = Literal["ok", "warning", "failed", "unknown", "skipped"]
"""`unknown`: the server does not tell. `skipped`: not tried, because an earlier check failed."""

INSPECTION_SECONDS = 15.0
"""The most seconds of one inspection."""
MOST_CLOCK_DIFFERENCE = 1.0
"""The most seconds between two clocks without a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check.

    `name` is what was checked, `detail` what was found, and `fix` what to do about it. `fix` is
    empty where nothing has to be done.
    """

    name: str
    outcome: CheckOutcome
    detail: str = ""
    fix: str = ""

    @classmethod
    def ok(cls, name: str, detail: str = "") -> Check:
        """Return a check that found nothing wrong."""
        return cls(name=name, outcome="ok", detail=detail)

    @classmethod
    def warning(cls, name: str, detail: str, *, fix: str) -> Check:
        """Return a check that found a risk. The application works in spite of it."""
        return cls(name=name, outcome="warning", detail=detail, fix=fix)

    @classmethod
    def failed(cls, name: str, detail: str, *, fix: str) -> Check:
        """Return a check that found what keeps anymq from working, or from keeping messages."""
        return cls(name=name, outcome="failed", detail=detail, fix=fix)

    @classmethod
    def unknown(cls, name: str, detail: str, *, fix: str = "") -> Check:
        """Return a check for which the server gives no answer."""
        return cls(name=name, outcome="unknown", detail=detail, fix=fix)

    @classmethod
    def skipped(cls, name: str, detail: str) -> Check:
        """Return a check that was not tried, because an earlier one failed."""
        return cls(name=name, outcome="skipped", detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An address that a URL leads to.

    `context` is set if the connection is encrypted. `greets` is True if the server sends one line
    before the TLS handshake.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    greets: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Inspection = Callable[[], Awaitable[Sequence[Check]]]
"""A request to the server, and the checks that its answer allows."""


async def inspect(
    inspections: Mapping[str, Inspection],
    errors: ErrorTable,
    *,
    fixes: Mapping[str, str] | None = None,
) -> AsyncGenerator[Check, None]:
    """Run the inspections one after the other, and yield their checks.

    An inspection that raises an error of `errors`, or takes longer than 15 s, becomes a check of
    its own name with the outcome `unknown`, and the fix of that name. Other exceptions propagate.
    """
    for name, inspection in inspections.items():
        try:
            async with asyncio.timeout(INSPECTION_SECONDS):
                found = await inspection()
        except TimeoutError:
            found = [Check.unknown(name, f"no answer within {INSPECTION_SECONDS:g} s")]
        except Exception as raw:
            if not isinstance(translate(raw, errors, doing=name, where=""), AnymqError):
                raise
            found = [Check.unknown(name, text_of(raw), fix=(fixes or {}).get(name, ""))]
        for check in found:
            yield check


async def clock_check(server_time: Callable[[], Awaitable[float]]) -> Check:
    """Return the check "clock", of the time that the server tells in seconds since the epoch.

    The time between the question and the answer is not counted as a difference.
    """
    asked = time.time()
    told = await server_time()
    return clock_difference(told, asked, time.time())


def clock_difference(told: float, earliest: float, latest: float) -> Check:
    """Return the check "clock" for a time that was `told` between two moments of this machine."""
    ahead = max(told - latest, 0.0) or min(told - earliest, 0.0)
    seconds = f"{abs(ahead):.1f} s" if abs(ahead) < 100 else f"{abs(ahead):.0f} s"
    if abs(ahead) <= MOST_CLOCK_DIFFERENCE:
        return Check.ok("clock", "the server's clock agrees with this machine's")
    return Check.warning(
        "clock",
        f"the server's clock is {seconds} {'ahead of' if ahead > 0 else 'behind'} this machine's",
        fix="synchronise both clocks (NTP): delays, leases and start times depend on them",
    )
