"""What some member of a group has to do now and then, so that nothing grows for ever."""

from __future__ import annotations

import logging
import random
import time

from redis.exceptions import RedisError

from .connection import Commands
from .keys import GroupKeys
from .scripts import SWEEP, TRIM

log = logging.getLogger("anymq.redis")

_INTERVAL = 60.0
_LIMIT = 10_000
# How long a consumer without pending entries may be silent before it is forgotten, in seconds.
_SILENT = 3600.0


class Janitor:
    """Trims the topic to its retention, and forgets consumers that are long gone."""

    def __init__(self, commands: Commands, keys: GroupKeys, retention: float | None) -> None:
        self._commands = commands
        self._keys = keys
        self._retention = retention
        self._interval = min(_INTERVAL, (retention or _INTERVAL) / 2)
        self._next = time.monotonic() + self._interval * random.uniform(0, 1)

    async def work(self) -> None:
        """Do what is due; a failure is left for the next time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._interval * random.uniform(0.8, 1.2)
        try:
            if self._retention is not None:
                await self._trim(self._retention)
            await self._sweep()
        except (RedisError, OSError) as error:
            log.debug("cleaning up %s failed: %s", self._keys.stream.decode(), error)

    async def _trim(self, retention: float) -> None:
        args = [b"%d" % max(1, round(retention * 1000)), b"%d" % _LIMIT]
        if await self._commands.eval(TRIM, [self._keys.stream], args):
            self._next = time.monotonic()  # there may be more

    async def _sweep(self) -> None:
        args = [self._keys.group, b"%d" % (_SILENT * 1000)]
        for stream in (self._keys.stream, self._keys.retry):
            await self._commands.eval(SWEEP, [stream], args)
