"""Time, as the engine sees it: the real one, or one that a test moves by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Wall-clock seconds and sleeping. `anymq.testing.VirtualClock` is the other one."""

    poll = 0.5
    """How many seconds a read may wait for a message: how soon a close is noticed."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    monotonic: Callable[[], float] = staticmethod(time.monotonic)
    """Seconds that never go back, and go on while the process is stopped. Asked of every message:
    nothing stands between."""

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
    """The same, with fewer tasks."""

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


def moment(timestamp: float | None) -> datetime | None:
    """Return the aware UTC time of `timestamp`; None if there is none, or no datetime can say it.

    For what brokers and foreign publishers say: they count in microseconds, too, and in ids.
    """
    if timestamp is None:
        return None
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (ValueError, OverflowError, OSError):
        return None
