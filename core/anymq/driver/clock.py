"""`Clock`: the source of time for the core, real or advanced by a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Wall-clock time, monotonic time and sleeping. Tests use `anymq.testing.VirtualClock`."""

    poll = 0.5
    """Seconds that a read may wait for a message. A close is noticed within this time."""

    def now(self) -> float:
        """Return the wall-clock time, in seconds since the epoch."""
        return time.time()

    monotonic: Callable[[], float] = staticmethod(time.monotonic)
    """Return seconds that never go back, and that advance while the process is stopped.

    Called for every message, so it is the C function itself.
    """

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait until `event` is set, at most `seconds`; return whether it is."""
        if event.is_set():
            return True
        waiter = asyncio.ensure_future(event.wait())
        sleeper = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait((waiter, sleeper), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            sleeper.cancel()
        return event.is_set()


class _RealClock(Clock):
    """The real clock, with a `wait` that needs no tasks."""

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if not event.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await event.wait()
            except TimeoutError:
                pass
        return event.is_set()


REAL = _RealClock()


def utc(timestamp: float) -> datetime:
    """Return `timestamp`, seconds since the epoch, as an aware datetime."""
    return datetime.fromtimestamp(timestamp, UTC)


def aware(time: datetime) -> datetime:
    """Return `time` with a zone, UTC if it has none: any program may have written it."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def moment(timestamp: float | None) -> datetime | None:
    """Return `timestamp` as an aware UTC datetime; None without one, or if it is out of range.

    For timestamps from brokers and foreign publishers, which may use other units or other values.
    """
    if timestamp is None:
        return None
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (ValueError, OverflowError, OSError):
        return None
