"""`VirtualClock`: time that passes only when a test advances it."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from ..consuming.delivery import current_delivery
from ..driver.clock import Clock

SETTLE_TURNS = 40
"""Turns of the event loop after which every ready task is considered to have run."""


class VirtualClock(Clock):
    """A clock on which time passes only in `advance`. Sleepers wake in the order of their times.

    It serves the memory backend, where backoff, delays and leases then take no real time.
    """

    poll = 600.0
    """Seconds between two polls of an idle reader, so that a virtual hour costs six of them."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = count()
        self.sleeping = 0
        """The number of handlers that sleep until `advance` wakes them."""

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._serial), future))
        in_handler = current_delivery() is not None
        self.sleeping += in_handler
        try:
            await future
        finally:
            self.sleeping -= in_handler

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Tasks that wake meanwhile run until they wait again."""
        until = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self._now = max(self._now, self._sleepers[0][0])
            while self._sleepers and self._sleepers[0][0] <= self._now:
                _, _, future = heapq.heappop(self._sleepers)
                if not future.done():
                    future.set_result(None)
            await self.settle()
        self._now = until
        await self.settle()

    async def settle(self) -> None:
        """Run every ready task, and those that become ready meanwhile."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
