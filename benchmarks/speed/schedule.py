"""The send times of an open-loop load, fixed in advance so that slow answers delay nothing."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

TICK = 0.001
"""Seconds between two send times. Timers of an event loop are no more precise, so a thread wakes
the loop, and each wake-up sends a small burst."""
START_DELAY = 0.05
"""Seconds."""
SWITCH_INTERVAL = 0.0002
"""Seconds between thread switches, shorter than `TICK` so that the loop is woken in time."""


def schedule(rate: float, count: int) -> Iterator[tuple[float, int]]:
    """Yield `(seconds from the start, messages due)` for `count` messages at `rate` messages/s."""
    sent = tick = 0
    while sent < count:
        due = min(count, int((tick + 1) * TICK * rate)) - sent
        if due > 0:
            yield tick * TICK, due
            sent += due
        tick += 1


class Ticker:
    """Yields `(intended time, messages due)` at each send time, in ns of the monotonic clock."""

    def __init__(self, rate: float, count: int) -> None:
        self._rate = rate
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
        self._thread = threading.Thread(target=self._tick, name="ticker", daemon=True)
        self._left = threading.Event()

    async def __aenter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left.set()
        sys.setswitchinterval(self._interval)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, int]:
        due = await self._due.get()
        if due is None:
            raise StopAsyncIteration
        return due

    def _tick(self) -> None:
        start = time.monotonic_ns() + int(START_DELAY * 1e9)
        for after, messages in schedule(self._rate, self._count):
            intended = start + int(after * 1e9)
            time.sleep(max(0.0, (intended - time.monotonic_ns()) / 1e9))
            if self._left.is_set():
                return
            self._loop.call_soon_threadsafe(self._due.put_nowait, (intended, messages))
        self._loop.call_soon_threadsafe(self._due.put_nowait, None)
