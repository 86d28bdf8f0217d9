"""`Maintenance`: the scripts that every process runs periodically, so that no leader is needed."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError, ResponseError

from anymq.driver import SubscribeSpec, logger, supervise

from ..connection import Commands
from ..options import RedisOptions
from ..topology import RedisTopic, retention_arguments
from . import HEARTBEAT, SWEEP, TRIM, Call, Script
from .keys import GroupKeys

log = logger("anymq.redis")

ABSENT_SECONDS = 6.0
"""Seconds without a heartbeat after which a member counts as gone."""

_MAX_CALLS = 50
_INTERVAL_SECONDS = 60.0
_BYTES_INTERVAL_SECONDS = 2.0
"""Shorter for a bound in bytes, because it is not known how fast a topic grows."""
_MIN_TRIM_SECONDS = 0.1
_MAX_TRIMMED = 10_000
_HEARTBEAT_SECONDS = 2.0
_FORGET_SECONDS = 3600.0
"""Seconds without a sign of life after which a consumer without pending entries is deleted."""


@dataclass(slots=True, eq=False, kw_only=True)
class MaintenanceTask:
    """A script to run periodically.

    It runs about every `interval` seconds, or sooner where `next`, called with the script's reply,
    returns fewer seconds. `due` is the monotonic time of the next run.
    """

    script: Script
    keys: Sequence[bytes]
    args: Sequence[bytes] | Callable[[], Sequence[bytes]]
    interval: float
    next: Callable[[Any], float] | None = None
    due: float = 0.0

    def call(self) -> Call:
        """Return the call to run now."""
        return self.script.call(self.keys, self.args() if callable(self.args) else self.args)

    def completed(self, reply: Any) -> None:
        """Schedule the next run after a run with this reply."""
        wait = self.interval * random.uniform(0.8, 1.2)
        if isinstance(reply, ResponseError):
            log.debug("maintenance of %s failed: %s; retrying", self.keys[0].decode(), reply)
        elif self.next is not None:
            wait = min(wait, self.next(reply))
        self.due = min(self.due, time.monotonic() + wait)


class Maintenance:
    """Runs the maintenance tasks of one process.

    Tasks that are due together are sent in one exchange. While the server does not answer, they
    wait.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._tasks: set[MaintenanceTask] = set()
        self._changed = asyncio.Event()
        self._working = asyncio.Lock()
        self._runner: asyncio.Task[None] | None = None

    def add(self, *tasks: MaintenanceTask) -> None:
        """Run these tasks from now on."""
        self._tasks.update(tasks)
        self._changed.set()
        if self._runner is None:
            self._runner = supervise(self._run(), name="anymq-redis-maintenance")

    def discard(self, *tasks: MaintenanceTask) -> None:
        """Stop running these tasks; a run in progress is completed."""
        self._tasks.difference_update(tasks)

    async def stop(self, *tasks: MaintenanceTask) -> None:
        """Stop running these tasks. On return none of them is in progress."""
        self.discard(*tasks)
        async with self._working:
            pass

    def run_within(self, task: MaintenanceTask, delay: float) -> None:
        """Run `task` in `delay` seconds at the latest."""
        due = time.monotonic() + delay
        if due < task.due:
            task.due = due
            self._changed.set()

    async def aclose(self) -> None:
        """Stop all tasks; other processes continue theirs."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            now = time.monotonic()
            if due := [task for task in self._tasks if task.due <= now]:
                async with self._working:
                    await self._execute(due[:_MAX_CALLS])
                continue
            try:
                async with asyncio.timeout(min((t.due for t in self._tasks), default=1e9) - now):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _execute(self, tasks: Sequence[MaintenanceTask]) -> None:
        # A `run_within` during the calls must not be overridden by a later due time.
        for task in tasks:
            task.due = math.inf
        replies: Sequence[Any]
        try:
            replies = await self._commands.evals([task.call() for task in tasks])
        except (RedisError, OSError) as error:
            replies = [ResponseError(f"no answer: {error}")] * len(tasks)
        for task, reply in zip(tasks, replies, strict=True):
            task.completed(reply)


def trim_task(topic: RedisTopic, options: RedisOptions) -> MaintenanceTask:
    """Return the task that trims `topic` to its own retention, or to that of the options."""
    age, size = retention_arguments(options.retention, None)
    keys = topic.keys
    return MaintenanceTask(
        script=TRIM,
        keys=[keys.about, keys.cells, *keys.streams],
        args=[age, size, b"%d" % _MAX_TRIMMED],
        interval=_INTERVAL_SECONDS,
        next=_next_trim,
    )


def sweep_task(topic: RedisTopic, group: GroupKeys) -> MaintenanceTask:
    """Return the task that deletes consumers of `group` that have been gone for an hour."""
    return MaintenanceTask(
        script=SWEEP,
        keys=[group.members, group.retry, *topic.keys.streams],
        args=[group.group, b"%d" % (_FORGET_SECONDS * 1000)],
        interval=_INTERVAL_SECONDS,
        due=time.monotonic() + random.uniform(0, _INTERVAL_SECONDS),
    )


def heartbeat_task(
    group: GroupKeys, spec: SubscribeSpec, held_for: Callable[[], float | None] = lambda: None
) -> MaintenanceTask:
    """Return the task that reports a member's presence, its lease, and its oldest delivery.

    `held_for` returns for how many seconds the member has held that delivery, None without one.
    """

    def args() -> list[bytes]:
        seconds = held_for()
        held = b"" if seconds is None else b"%d" % (seconds * 1000)
        lease = b"%d" % max(1, round(spec.ack_deadline * 1000))
        return [spec.member.encode(), b"%d" % (_FORGET_SECONDS * 1000), held, lease]

    return MaintenanceTask(
        script=HEARTBEAT, keys=[group.members], args=args, interval=_HEARTBEAT_SECONDS
    )


def _next_trim(reply: tuple[int, int, int]) -> float:
    """Return the seconds until trimming again is useful."""
    deleted, age, size = reply
    if deleted * 2 > _MAX_TRIMMED:
        return 0.0
    wait = _INTERVAL_SECONDS if age < 0 else max(age / 2000, _MIN_TRIM_SECONDS)
    return min(wait, _BYTES_INTERVAL_SECONDS) if size >= 0 else wait
