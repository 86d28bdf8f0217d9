"""The coalescing publisher: concurrent publishes become one driver call at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from .clock import Clock
from .driver import Driver, Outcome, Record
from .errors import BrokerError, Closed, NotFound, PublishTimeout, TransientError

log = logging.getLogger("anymq.publisher")

SWEEP = 0.05
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class Pending:
    """One publish on its way: its record, its deadline, and the future its caller awaits."""

    __slots__ = ("deadline", "error", "future", "record", "redeclared")

    def __init__(self, record: Record, deadline: float, future: asyncio.Future[str | None]) -> None:
        self.record = record
        self.deadline = deadline
        self.future = future
        self.error: BaseException | None = None
        self.redeclared = False


class Publisher:
    """Gathers what is published while the driver is busy into its next call.

    One call is under way at a time, so publishes are stored in the order they were made. What fails
    with a transient error is repeated, with the same ids, until its deadline; every caller
    has its answer by then, also when the driver hangs. A caller that is cancelled after the
    record has been handed to the driver cannot take it back.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        translate: Callable[[BaseException, str], BaseException],
        declare: Callable[[str], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._translate = translate
        self._declare = declare
        self._clock = clock
        self._queue: deque[Pending] = deque()
        self._flying: list[Pending] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="anymq-publisher")

    def submit(self, record: Record, timeout: float) -> asyncio.Future[str | None]:
        """Queue `record`; the future yields its position, or raises by `timeout` seconds."""
        if self._closed:
            raise Closed("the broker is closed")
        future: asyncio.Future[str | None] = self._loop.create_future()
        self._queue.append(Pending(record, self._loop.time() + timeout, future))
        self._idle.clear()
        self._wake.set()
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP, self._expire)
        return future

    async def aclose(self, grace: float) -> None:
        """Let what is queued finish for `grace` seconds, then fail the rest with `Closed`."""
        self._closed = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "closing with %d publishes unconfirmed", len(self._queue) + len(self._flying)
            )
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
        for pending in [*self._flying, *self._queue]:
            if not pending.future.done():
                pending.future.set_exception(
                    Closed("the broker was closed before the publish was confirmed")
                )

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch:
                self._wake.clear()
                self._idle.set()
                continue
            self._flying = batch
            again = self._resolve(batch, await self._call(batch))
            self._flying = []
            if again:
                self._queue.extendleft(reversed(again))
                await self._redeclare(again)
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE

    def _take(self) -> list[Pending]:
        batch: list[Pending] = []
        size = 0
        queue, limit = self._queue, self._driver.max_batch
        while queue and len(batch) < limit:
            pending = queue[0]
            if pending.future.done():
                queue.popleft()
                continue
            size += len(pending.record.body) + 256
            if batch and size > self._driver.max_batch_bytes:
                break
            batch.append(queue.popleft())
        return batch

    async def _call(self, batch: Sequence[Pending]) -> Sequence[Outcome]:
        try:
            return await self._driver.publish([pending.record for pending in batch])
        except Exception as error:
            return [error] * len(batch)

    def _resolve(self, batch: Sequence[Pending], outcomes: Sequence[Outcome]) -> list[Pending]:
        """Answer the callers; return what has to be tried again."""
        again: list[Pending] = []
        for pending, outcome in zip(batch, outcomes, strict=True):
            future = pending.future
            if future.done():
                continue
            if not isinstance(outcome, BaseException):
                future.set_result(outcome)
                continue
            error = self._translate(outcome, f"publish to {pending.record.topic}")
            pending.error = error
            missing = isinstance(error, NotFound) and not pending.redeclared
            if missing or isinstance(error, TransientError):
                again.append(pending)
            else:
                future.set_exception(error)
        return again

    async def _redeclare(self, again: Sequence[Pending]) -> None:
        missing = [pending for pending in again if isinstance(pending.error, NotFound)]
        for topic in {pending.record.topic for pending in missing}:
            try:
                await self._declare(topic)
            except BrokerError as error:
                log.debug("declaring %s again failed: %s", topic, error)
        for pending in missing:
            pending.redeclared = True

    def _expire(self) -> None:
        now = self._loop.time()
        waiting = False
        for pending in (*self._flying, *self._queue):
            if pending.future.done():
                continue
            if pending.deadline > now:
                waiting = True
                continue
            cause = pending.error or self._driver.obstacle
            last = f"; the last error was: {cause}" if cause else ""
            timeout = PublishTimeout(
                f"publish to {pending.record.topic} was not confirmed in time; "
                f"the message may have been stored all the same{last}"
            )
            timeout.__cause__ = cause
            pending.future.set_exception(timeout)
        self._sweep = self._loop.call_later(SWEEP, self._expire) if waiting else None
