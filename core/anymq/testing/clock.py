"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from ..consuming.delivery import current
from ..driver.clock import Clock

TURNS = 40


class VirtualClock(Clock):
    """Time that passes only in `advance`. Sleepers wake in order, each at its own moment.

    For the memory backend: backoff, delays and leases then take no real time.
    """

    poll = 600.0
    """Idle readers look up rarely: an hour then costs six turns, not thousands."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = count()
        self.sleeping = 0
        """How many deliveries' handlers sleep, waiting for `advance`."""

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
        in_handler = current.get() is not None
        self.sleeping += in_handler
        try:
            await future
        finally:
            self.sleeping -= in_handler

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and everything that wakes meanwhile run until it waits again."""
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
        """Let every task that is ready run, and those it makes ready."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
