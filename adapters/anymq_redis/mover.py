"""Moves copies that were delayed to the group's retry stream when they are due."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time

from redis.exceptions import RedisError

from .connection import Commands
from .keys import GroupKeys
from .scripts import MOVE

log = logging.getLogger("anymq.redis")

# The longest between two looks, in seconds: how late a copy comes whose member has died.
_INTERVAL = 1.0
_LIMIT = 100


class Mover:
    """One task, in every member: no leader, so none can be missing. An XADD wakes all readers."""

    def __init__(self, commands: Commands, keys: GroupKeys) -> None:
        self._commands = commands
        self._keys = [keys.retry, keys.delayed, keys.payloads]
        self._due = 0.0
        self._sooner = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="anymq-redis-mover")

    def expect(self, delay: float) -> None:
        """A copy was stored that is due in `delay` seconds."""
        due = time.monotonic() + delay
        if due < self._due:
            self._due = due
            self._sooner.set()

    async def aclose(self) -> None:
        """Stop. Other members go on."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            wait = self._due - time.monotonic()
            self._sooner.clear()
            if wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._sooner.wait()
                except TimeoutError:
                    pass
                else:
                    continue
            self._due = math.inf
            self._due = min(self._due, time.monotonic() + await self._move())

    async def _move(self) -> float:
        """Move what is due; return the seconds until it is worth looking again."""
        longest = _INTERVAL * random.uniform(0.8, 1.2)
        try:
            moved, next_due = await self._commands.eval(MOVE, self._keys, [b"%d" % _LIMIT])
        except (RedisError, OSError) as error:
            log.debug("moving delayed messages failed, trying again: %s", error)
            return longest
        if moved == _LIMIT:
            return 0.0
        return longest if next_due < 0 else min(longest, next_due / 1000)
