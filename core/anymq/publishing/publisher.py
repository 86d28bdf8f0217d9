"""`Publisher`: coalesces concurrent publishes into shared calls of the driver."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from ..driver.base import Driver
from ..driver.clock import Clock
from ..driver.records import Duplicate, Outcome, Record
from ..errors import Closed, NotFound, PublishTimeout, StateError, TransientError
from ..logs import logger
from ..message import Receipt
from ..tasks import fault, supervise

log = logger("anymq.publisher")

EXPIRY_SECONDS = 0.05
"""Seconds between two checks for publishes whose deadline has passed."""
MIN_CALL_RECORDS = 32
"""Records that share one call in any case."""
RECORD_OVERHEAD = 256
"""Approximate bytes of a record beside its body."""
NO_ERROR = frozenset({str, type(None)})
"""The types of outcomes without an error."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before records that failed are sent again."""
OTHER_LOOP = (
    "this broker belongs to another event loop: connect in the loop that uses it (one broker for "
    "each asyncio.run), or hand the call over with asyncio.run_coroutine_threadsafe"
)


def check_loop(own: asyncio.AbstractEventLoop) -> None:
    """Raise `StateError` in a running loop that is not `own`."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is not own:
        raise StateError(OTHER_LOOP)


class Single:
    """One queued record, and the future of its position."""

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
        """The topic of the publish."""
        return self.record.topic

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the caller."""
        if not self.future.done():
            self.future.set_exception(error)


class Batch:
    """The records of one `submit_many`, and the future of all their outcomes."""

    __slots__ = ("deadline", "future", "keyed", "largest", "left", "outcomes", "records")

    def __init__(
        self, records: Sequence[Record], deadline: float, future: asyncio.Future[list[Outcome]]
    ) -> None:
        self.records = records
        self.deadline = deadline
        self.future = future
        self.left = len(records)
        self.outcomes: list[Outcome] = [None] * self.left
        self.largest = max([len(record.body) for record in records])
        self.keyed = any([record.key is not None for record in records])

    def settled(self, count: int) -> None:
        """Count outcomes; the last one resolves the future."""
        self.left -= count
        if not self.left and not self.future.done():
            self.future.set_result(self.outcomes)


class Slice:
    """The records of a `Batch` at `indexes`, which are sent in one call."""

    __slots__ = ("batch", "deadline", "error", "future", "indexes", "redeclared")

    def __init__(self, batch: Batch, indexes: Sequence[int]) -> None:
        self.batch = batch
        self.indexes = indexes
        self.deadline = batch.deadline
        self.future = batch.future
        self.error: BaseException | None = None
        self.redeclared = False

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def topic(self) -> str:
        """The topic of the publish."""
        return self.batch.records[0].topic

    @property
    def records(self) -> Sequence[Record]:
        """The records to send."""
        records, indexes = self.batch.records, self.indexes
        if isinstance(indexes, range):
            return records[indexes.start : indexes.stop]
        return [records[index] for index in indexes]

    def fail(self, error: BaseException) -> None:
        """Set `error` as the outcome of all of them."""
        for index in self.indexes:
            self.batch.outcomes[index] = error
        self.batch.settled(len(self.indexes))

    def split(self, count: int) -> tuple[Slice, Slice]:
        """Return the first `count` of it, and the rest."""
        first, rest = (
            Slice(self.batch, self.indexes[:count]),
            Slice(self.batch, self.indexes[count:]),
        )
        for part in (first, rest):
            part.error, part.redeclared = self.error, self.redeclared
        return first, rest

    def within(self, count: int, size: int) -> int:
        """Return how many of the first `count` have room in `size` bytes."""
        count = min(count, len(self.indexes))
        if count * (self.batch.largest + RECORD_OVERHEAD) <= size:
            return count
        for number, record in enumerate(self.records[:count]):
            size -= len(record.body) + RECORD_OVERHEAD
            if size < 0:
                return number
        return count


class InFlightCall:
    """One call of the driver: its records, and the keys that no other call may contain."""

    __slots__ = ("items", "keys", "records", "task")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.items: list[Single | Slice] = []
        self.records: list[Record] = []
        self.keys: set[str] = set()


class Publisher:
    """Coalesces publishes that arrive while the driver is busy into its next calls.

    Up to `Driver.overlap` calls run concurrently, and no two contain the same key, so messages with
    one key are stored in publish order even if a call fails. Transient failures are retried under
    the same ids until the deadline. Every caller gets a result by then, even if the driver hangs.
    Cancelling a caller does not recall a record already passed to the driver.
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
        self._queue: deque[Single | Slice] = deque()
        self._waiting = 0
        """The number of queued records."""
        self._calls: list[InFlightCall] = []
        self._resting = False
        """Whether the next publish starts a call at once."""
        self._pause, self._longest = 0.0, FIRST_PAUSE
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._start()

    def _start(self) -> asyncio.Task[None]:
        return supervise(self._run(), name="anymq-publisher", ended=self._restart)

    def _restart(self) -> None:
        if not self._closed:
            self._task = self._start()

    def submit(self, record: Record, timeout: float) -> asyncio.Future[str | None]:
        """Queue `record`; the future yields its position, or raises, by `timeout` seconds."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise StateError(OTHER_LOOP)
        future: asyncio.Future[str | None] = asyncio.Future(loop=loop)
        item = Single(record, loop.time() + timeout, future)
        if self._resting or self._closed or self._sweep is None:
            self._enqueue(item)
        else:
            self._queue.append(item)
            self._waiting += 1
        return future

    def submit_many(
        self, records: Sequence[Record], timeout: float
    ) -> asyncio.Future[list[Outcome]]:
        """Queue `records` of one topic, at least one; the future yields their outcomes by `timeout`
        seconds."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise StateError(OTHER_LOOP)
        batch = Batch(records, loop.time() + timeout, loop.create_future())
        self._enqueue(Slice(batch, range(len(records))))
        return batch.future

    def _enqueue(self, item: Single | Slice) -> None:
        if self._closed:
            raise Closed("the broker is closed")
        self._queue.append(item)
        self._waiting += len(item)
        if self._resting:
            self._resting = False
            self._idle.clear()
            self._wake.set()
        if self._sweep is None:
            self._sweep = self._loop.call_later(EXPIRY_SECONDS, self._expire)

    async def aclose(self, grace: float) -> None:
        """Wait `grace` seconds for the queued records, then fail the rest with `Closed`."""
        self._closed = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            log.warning("closing with %d publishes unconfirmed", sum(map(len, self._all())))
        left = self._all()
        tasks = [self._task, *(call.task for call in self._calls)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
        for item in left:
            if not item.future.done():
                item.fail(Closed("the broker was closed before the publish was confirmed"))

    def _all(self) -> list[Single | Slice]:
        in_calls = [item for call in self._calls for item in call.items]
        return [*in_calls, *self._queue]

    async def _run(self) -> None:
        """Start calls as long as there are records, and another call may run."""
        calls = self._calls
        while True:
            if self._pause:
                await asyncio.sleep(self._pause * random.uniform(0.5, 1))
                self._pause = 0.0
            room = len(calls) < self._driver.overlap
            if room and (call := self._take()).records:
                call.task = supervise(self._run_call(call), name="anymq-publish")
                calls.append(call)
                continue
            self._wake.clear()
            self._resting = room
            if not calls and not self._queue:
                self._idle.set()
            await self._wake.wait()

    async def _run_call(self, call: InFlightCall) -> None:
        try:
            again = self._resolve(call, await self._publish(call.records))
            if again:
                # The call keeps their keys until they are back at the front of the queue.
                call.items = again
                await self._redeclare(again)
                self._queue.extendleft(reversed(again))
                self._waiting += sum(map(len, again))
                self._pause = self._longest
            self._longest = min(self._longest * 2, LONGEST_PAUSE) if again else FIRST_PAUSE
        except BaseException as raw:
            error = fault(raw, "anymq")
            log.error("a publish failed by a defect of anymq", exc_info=raw)
            for item in call.items:
                item.fail(error)
        finally:
            self._calls.remove(call)
            self._wake.set()

    async def _publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        try:
            outcomes = await self._driver.publish(records)
            if len(outcomes) != len(records):
                raise RuntimeError(f"{len(outcomes)} outcomes for {len(records)} records")
        except BaseException as error:
            return [fault(error, "the client library")] * len(records)
        return outcomes

    def _take(self) -> InFlightCall:
        """Take the records of the next call off the queue."""
        driver, queue, call = self._driver, self._queue, InFlightCall()
        records, keys, size = call.records, call.keys, driver.max_batch_bytes
        busy = frozenset[str]().union(*[other.keys for other in self._calls])
        # If more calls may run, give each an equal share, so one is sent while another awaits
        # confirmation. Do not split a `publish_many` by share: its caller waits for all of it.
        shares = driver.overlap - len(self._calls)
        room = min(driver.max_batch, max(MIN_CALL_RECORDS, -(-self._waiting // shares)))
        while queue and room > 0:
            item = queue[0]
            if item.future.done():
                queue.popleft()
                self._waiting -= len(item)
            elif isinstance(item, Single):
                record = item.record
                size -= len(record.body) + RECORD_OVERHEAD
                if (size < 0 and records) or record.key in busy:
                    break
                if record.key is not None:
                    keys.add(record.key)
                queue.popleft()
                records.append(record)
                call.items.append(item)
                room -= 1
            else:
                taken = item.within(driver.max_batch - len(records), size) or int(not records)
                part, rest = item.split(taken)
                more = part.records
                its_keys = _keys(more) if part.batch.keyed else ()
                if not taken or not busy.isdisjoint(its_keys):
                    break
                keys.update(its_keys)
                queue.popleft()
                if rest.indexes:
                    queue.appendleft(rest)
                records += more
                call.items.append(part)
                room -= taken
                size -= taken * (part.batch.largest + RECORD_OVERHEAD)
        self._waiting -= len(records)
        return call

    def _resolve(self, call: InFlightCall, outcomes: Sequence[Outcome]) -> list[Single | Slice]:
        """Resolve the callers' futures; return the items to retry."""
        again: list[Single | Slice] = []
        at = 0
        for item in call.items:
            if isinstance(item, Slice):
                own = outcomes[at : at + len(item.indexes)]
                at += len(item.indexes)
                if not item.future.done() and (rest := self._resolve_part(item, own)):
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

    def _resolve_part(self, part: Slice, outcomes: Sequence[Outcome]) -> Slice | None:
        """Keep the outcomes; return the records to retry."""
        batch, indexes = part.batch, part.indexes
        if isinstance(indexes, range) and NO_ERROR.issuperset(map(type, outcomes)):
            batch.outcomes[indexes.start : indexes.stop] = outcomes
            batch.settled(len(indexes))
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
            batch.outcomes[index] = outcome
        batch.settled(len(indexes) - len(again))
        if not again:
            return None
        rest = Slice(batch, again)
        rest.error, rest.redeclared = missing or part.error, part.redeclared
        return rest

    def _error(self, item: Single | Slice, raw: BaseException) -> BaseException | None:
        """Return the error of a record; None if a retry may succeed."""
        error = self._translate(raw, f"publish to {item.topic}")
        item.error = error
        missing = isinstance(error, NotFound) and not item.redeclared
        return None if missing or isinstance(error, TransientError) else error

    async def _redeclare(self, again: Sequence[Single | Slice]) -> None:
        """Declare the topics that were not found. If that fails, records are sent once more."""
        missing = [item for item in again if isinstance(item.error, NotFound)]
        for topic in {item.topic for item in missing}:
            try:
                await self._declare(topic)
            except BaseException as raw:
                error = fault(raw, f"declaring {topic}")
                log.debug("redeclaring %s failed: %s", topic, error)
                for item in missing:
                    if item.topic == topic:
                        item.error = error
        for item in missing:
            item.redeclared = True

    def _expire(self) -> None:
        now = self._loop.time()
        waiting = False
        for item in self._all():
            if item.future.done():
                continue
            if item.deadline > now:
                waiting = True
                continue
            item.fail(self._overdue(item))
        self._sweep = self._loop.call_later(EXPIRY_SECONDS, self._expire) if waiting else None

    def _overdue(self, item: Single | Slice) -> PublishTimeout:
        cause = item.error or self._driver.obstacle
        last = f"; last error: {cause}" if cause else ""
        timeout = PublishTimeout(
            f"publish to {item.topic} was not confirmed in time: the message may or may not have "
            f"been stored; repeat it with the same id{last}"
        )
        timeout.__cause__ = cause
        return timeout


def _keys(records: Iterable[Record]) -> set[str]:
    return {record.key for record in records if record.key is not None}


def receipt_of(id: str, topic: str, outcome: str | None) -> Receipt:
    """Return the receipt for a record with this `outcome`."""
    duplicate = isinstance(outcome, Duplicate)
    position = str.__str__(outcome) if outcome else None
    return Receipt(id, topic, position, duplicate)
