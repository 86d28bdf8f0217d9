"""`Upkeep`: what somebody has to do now and then, so that nothing is late and nothing grows."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError, ResponseError

from anymq.driver import logger, supervise

from ..connection import Commands
from . import Call, Script

log = logger("anymq.redis")

_MOST = 50


@dataclass(slots=True, eq=False, kw_only=True)
class Chore:
    """A script to run again and again.

    Every `interval` seconds or so, or when `next`, asked with the script's reply, says to. `due` is
    the monotonic time of the next run.
    """

    script: Script
    keys: Sequence[bytes]
    args: Sequence[bytes] | Callable[[], Sequence[bytes]]
    interval: float
    next: Callable[[Any], float] | None = None
    due: float = 0.0

    def call(self) -> Call:
        """Return what to run now."""
        return self.script.call(self.keys, self.args() if callable(self.args) else self.args)

    def done(self, reply: Any) -> None:
        """It has been run."""
        wait = self.interval * random.uniform(0.8, 1.2)
        if isinstance(reply, ResponseError):
            log.debug("upkeep of %s failed, trying again: %s", self.keys[0].decode(), reply)
        elif self.next is not None:
            wait = min(wait, self.next(reply))
        self.due = min(self.due, time.monotonic() + wait)


class Upkeep:
    """One task in every process that uses a topic: no leader, so none can be missing.

    Chores that are due together go to the server together. While it does not answer, they wait.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._chores: set[Chore] = set()
        self._changed = asyncio.Event()
        self._working = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def add(self, *chores: Chore) -> None:
        """Do these from now on."""
        self._chores.update(chores)
        self._changed.set()
        if self._task is None:
            self._task = supervise(self._run(), name="anymq-redis-upkeep")

    def discard(self, *chores: Chore) -> None:
        """Do these no more, once they are done if they are being done."""
        self._chores.difference_update(chores)

    async def drop(self, *chores: Chore) -> None:
        """Leave these to others. On return none of them is being done."""
        self.discard(*chores)
        async with self._working:
            pass

    def hurry(self, chore: Chore, delay: float) -> None:
        """Do `chore` in `delay` seconds at the latest."""
        due = time.monotonic() + delay
        if due < chore.due:
            chore.due = due
            self._changed.set()

    async def aclose(self) -> None:
        """Stop; other processes go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            now = time.monotonic()
            if ready := [chore for chore in self._chores if chore.due <= now]:
                async with self._working:
                    await self._work(ready[:_MOST])
                continue
            try:
                async with asyncio.timeout(min((c.due for c in self._chores), default=1e9) - now):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _work(self, chores: Sequence[Chore]) -> None:
        # What is hurried meanwhile must not be put off again.
        for chore in chores:
            chore.due = math.inf
        replies: Sequence[Any]
        try:
            replies = await self._commands.evals([chore.call() for chore in chores])
        except (RedisError, OSError) as error:
            replies = [ResponseError(f"no answer: {error}")] * len(chores)
        for chore, reply in zip(chores, replies, strict=True):
            chore.done(reply)
