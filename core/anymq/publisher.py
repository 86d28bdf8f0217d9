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
OVERHEAD = 256
"""Bytes of a record besides its body, roughly."""
FINE = frozenset({str, type(None)})
"""The types of outcomes that are no errors."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class One:
    """One record on its way, and who awaits its position."""

    __slots__ = ("deadline", "error", "future", "record", "redeclared")

    def __init__(self, record: Record, deadline: float, future: asyncio.Future[str | None]) -> None:
        self.record = record
        self.deadline = deadline
        self.future = future
        self.error: BaseException | None = None
        self.redeclared = False

    def __len__(self) -> int:
        return 1

    @property
    def topic(self) -> str:
        """Where to."""
        return self.record.topic

    def fail(self, error: BaseException) -> None:
        """There is no hope for it."""
        if not self.future.done():
            self.future.set_exception(error)


class Many:
    """What a caller of `submit_many` awaits: a future of all outcomes, resolved with the last."""

    __slots__ = ("deadline", "future", "largest", "left", "outcomes", "records")

    def __init__(
        self, records: Sequence[Record], deadline: float, future: asyncio.Future[list[Outcome]]
    ) -> None:
        self.records = records
        self.deadline = deadline
        self.future = future
        self.left = len(records)
        self.outcomes: list[Outcome] = [None] * self.left
        self.largest = max(len(record.body) for record in records)

    def settled(self, count: int) -> None:
        """So many more have their outcomes."""
        self.left -= count
        if not self.left and not self.future.done():
            self.future.set_result(self.outcomes)


class Part:
    """Those records of a `Many` that go the same way: at `indexes`, in their order."""

    __slots__ = ("deadline", "error", "future", "indexes", "many", "redeclared")

    def __init__(self, many: Many, indexes: Sequence[int]) -> None:
        self.many = many
        self.indexes = indexes
        self.deadline = many.deadline
        self.future = many.future
        self.error: BaseException | None = None
        self.redeclared = False

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def topic(self) -> str:
        """Where to."""
        return self.many.records[0].topic

    @property
    def records(self) -> Sequence[Record]:
        """What to send."""
        records, indexes = self.many.records, self.indexes
        if isinstance(indexes, range):
            return records[indexes.start : indexes.stop]
        return [records[index] for index in indexes]

    def fail(self, error: BaseException) -> None:
        """There is no hope for any of them."""
        for index in self.indexes:
            self.many.outcomes[index] = error
        self.many.settled(len(self.indexes))

    def split(self, count: int) -> tuple[Part, Part]:
        """Return the first `count` of it, and the rest."""
        first, rest = Part(self.many, self.indexes[:count]), Part(self.many, self.indexes[count:])
        for part in (first, rest):
            part.error, part.redeclared = self.error, self.redeclared
        return first, rest

    def within(self, count: int, size: int) -> int:
        """Return how many of the first `count` have room in `size` bytes."""
        count = min(count, len(self.indexes))
        if count * (self.many.largest + OVERHEAD) <= size:
            return count
        for number, record in enumerate(self.records[:count]):
            size -= len(record.body) + OVERHEAD
            if size < 0:
                return number
        return count


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
        self._queue: deque[One | Part] = deque()
        self._flying: list[One | Part] = []
        self._resting = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="anymq-publisher")

    def submit(self, record: Record, timeout: float) -> asyncio.Future[str | None]:
        """Queue `record`; the future yields its position, or raises, by `timeout` seconds."""
        loop = self._loop
        future: asyncio.Future[str | None] = loop.create_future()
        item = One(record, loop.time() + timeout, future)
        if self._resting or self._closed or self._sweep is None:
            self._enqueue(item)
        else:
            self._queue.append(item)
        return future

    def submit_many(
        self, records: Sequence[Record], timeout: float
    ) -> asyncio.Future[list[Outcome]]:
        """Queue `records` of one topic, at least one; the future yields their outcomes by `timeout`
        seconds."""
        loop = self._loop
        many = Many(records, loop.time() + timeout, loop.create_future())
        self._enqueue(Part(many, range(len(records))))
        return many.future

    def _enqueue(self, item: One | Part) -> None:
        if self._closed:
            raise Closed("the broker is closed")
        self._queue.append(item)
        if self._resting:
            self._resting = False
            self._idle.clear()
            self._wake.set()
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP, self._expire)

    async def aclose(self, grace: float) -> None:
        """Let what is queued finish for `grace` seconds, then fail the rest with `Closed`."""
        self._closed = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            left = sum(map(len, [*self._flying, *self._queue]))
            log.warning("closing with %d publishes unconfirmed", left)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
        for item in [*self._flying, *self._queue]:
            if not item.future.done():
                item.fail(Closed("the broker was closed before the publish was confirmed"))

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            records = self._take()
            if not records:
                self._resting = True
                self._wake.clear()
                self._idle.set()
                await self._wake.wait()
                continue
            again = self._resolve(await self._call(records))
            if again:
                self._queue.extendleft(reversed(again))
                await self._redeclare(again)
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE

    def _take(self) -> list[Record]:
        """Take what goes into the next call off the queue: it is flying now."""
        queue, flying = self._queue, self._flying
        room, size = self._driver.max_batch, self._driver.max_batch_bytes
        records: list[Record] = []
        while queue and room > 0:
            item = queue[0]
            if item.future.done():
                queue.popleft()
            elif isinstance(item, One):
                record = item.record
                size -= len(record.body) + OVERHEAD
                if size < 0 and records:
                    break
                queue.popleft()
                records.append(record)
                flying.append(item)
                room -= 1
            else:
                part = self._cut(item, room, size, alone=not records)
                if part is None:
                    break
                flying.append(part)
                records += part.records
                room -= len(part.indexes)
                size -= sum([len(record.body) + OVERHEAD for record in part.records])
        return records

    def _cut(self, part: Part, count: int, size: int, *, alone: bool) -> Part | None:
        """Take what has room of the part that is next; one record at least if it is `alone`."""
        taken = part.within(count, size) or int(alone)
        if not taken:
            return None
        self._queue.popleft()
        if taken < len(part.indexes):
            part, rest = part.split(taken)
            self._queue.appendleft(rest)
        return part

    async def _call(self, records: Sequence[Record]) -> Sequence[Outcome]:
        try:
            return await self._driver.publish(records)
        except Exception as error:
            return [error] * len(records)

    def _resolve(self, outcomes: Sequence[Outcome]) -> list[One | Part]:
        """Answer the callers; return what has to be tried again."""
        again: list[One | Part] = []
        flying, self._flying = self._flying, []
        at = 0
        for item in flying:
            if isinstance(item, Part):
                mine = outcomes[at : at + len(item.indexes)]
                at += len(item.indexes)
                if not item.future.done() and (rest := self._resolve_part(item, mine)):
                    again.append(rest)
                continue
            outcome = outcomes[at]
            at += 1
            future = item.future
            if future.done():
                continue
            if not isinstance(outcome, BaseException):
                future.set_result(outcome)
            elif (error := self._error(item, outcome)) is not None:
                future.set_exception(error)
            else:
                again.append(item)
        return again

    def _resolve_part(self, part: Part, outcomes: Sequence[Outcome]) -> Part | None:
        """Note the outcomes; return those that have to be tried again."""
        many, indexes = part.many, part.indexes
        if isinstance(indexes, range) and FINE.issuperset(map(type, outcomes)):
            many.outcomes[indexes.start : indexes.stop] = outcomes
            many.settled(len(indexes))
            return None
        again: list[int] = []
        missing = None
        for index, outcome in zip(indexes, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                error = self._error(part, outcome)
                if error is None:
                    again.append(index)
                    missing = part.error if isinstance(part.error, NotFound) else missing
                    continue
                outcome = error
            many.outcomes[index] = outcome
        many.settled(len(indexes) - len(again))
        if not again:
            return None
        rest = Part(many, again)
        rest.error, rest.redeclared = missing or part.error, part.redeclared
        return rest

    def _error(self, item: One | Part, raw: BaseException) -> BaseException | None:
        """Return what a record failed with for good; None if it is worth another try."""
        error = self._translate(raw, f"publish to {item.topic}")
        item.error = error
        missing = isinstance(error, NotFound) and not item.redeclared
        return None if missing or isinstance(error, TransientError) else error

    async def _redeclare(self, again: Sequence[One | Part]) -> None:
        missing = [item for item in again if isinstance(item.error, NotFound)]
        for topic in {item.topic for item in missing}:
            try:
                await self._declare(topic)
            except BrokerError as error:
                log.debug("declaring %s again failed: %s", topic, error)
        for item in missing:
            item.redeclared = True

    def _expire(self) -> None:
        now = self._loop.time()
        waiting = False
        for item in (*self._flying, *self._queue):
            if item.future.done():
                continue
            if item.deadline > now:
                waiting = True
                continue
            item.fail(self._overdue(item))
        self._sweep = self._loop.call_later(SWEEP, self._expire) if waiting else None

    def _overdue(self, item: One | Part) -> PublishTimeout:
        cause = item.error or self._driver.obstacle
        last = f"; the last error was: {cause}" if cause else ""
        timeout = PublishTimeout(
            f"publish to {item.topic} was not confirmed in time; "
            f"the message may have been stored all the same{last}"
        )
        timeout.__cause__ = cause
        return timeout
