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


class Submission:
    """What one caller awaits: a future of all outcomes, resolved with the last of them."""

    __slots__ = ("future", "left", "outcomes")

    def __init__(self, count: int, future: asyncio.Future[list[Outcome]]) -> None:
        self.outcomes: list[Outcome] = [None] * count
        self.left = count
        self.future = future


class Pending:
    """One publish on its way: its record, its deadline, and its place in what a caller awaits."""

    __slots__ = ("deadline", "error", "index", "record", "redeclared", "settled", "submission")

    def __init__(self, record: Record, deadline: float, submission: Submission, index: int) -> None:
        self.record = record
        self.deadline = deadline
        self.submission = submission
        self.index = index
        self.settled = False
        self.error: BaseException | None = None
        self.redeclared = False

    @property
    def done(self) -> bool:
        """Whether it has its outcome, or nobody waits for it any more.

        Written out where every message passes.
        """
        return self.settled or self.submission.future.done()

    def settle(self, outcome: Outcome) -> None:
        """Give it its outcome; once."""
        submission = self.submission
        self.settled = True
        submission.outcomes[self.index] = outcome
        submission.left -= 1
        if not submission.left and not submission.future.done():
            submission.future.set_result(submission.outcomes)


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

    async def submit(self, record: Record, timeout: float) -> str | None:
        """Publish `record`; return its position, or raise by `timeout` seconds."""
        (outcome,) = await self.submit_many((record,), timeout)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def submit_many(
        self, records: Sequence[Record], timeout: float
    ) -> asyncio.Future[list[Outcome]]:
        """Queue `records`, at least one; the future yields their outcomes by `timeout` seconds."""
        if self._closed:
            raise Closed("the broker is closed")
        loop = self._loop
        submission = Submission(len(records), loop.create_future())
        deadline = loop.time() + timeout
        for index, record in enumerate(records):
            self._queue.append(Pending(record, deadline, submission, index))
        self._idle.clear()
        self._wake.set()
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP, self._expire)
        return submission.future

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
            if not pending.done:
                pending.settle(Closed("the broker was closed before the publish was confirmed"))

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
            if pending.settled or pending.submission.future.done():
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
            if pending.settled or pending.submission.future.done():
                continue
            if not isinstance(outcome, BaseException):
                pending.settle(outcome)
                continue
            error = self._translate(outcome, f"publish to {pending.record.topic}")
            pending.error = error
            missing = isinstance(error, NotFound) and not pending.redeclared
            if missing or isinstance(error, TransientError):
                again.append(pending)
            else:
                pending.settle(error)
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
            if pending.done:
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
            pending.settle(timeout)
        self._sweep = self._loop.call_later(SWEEP, self._expire) if waiting else None
