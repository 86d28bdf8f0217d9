"""The coalescing publisher: concurrent publishes share calls of the driver."""

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

SWEEP = 0.05
SMALLEST = 32
"""Records that go together in any case."""
OVERHEAD = 256
"""Bytes of a record besides its body, roughly."""
FINE = frozenset({str, type(None)})
"""The types of outcomes that are no errors."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
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


class Flight:
    """One call of the driver: what is in it, and the keys that no other may have meanwhile."""

    __slots__ = ("items", "keys", "records", "task")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.items: list[One | Part] = []
        self.records: list[Record] = []
        self.keys: set[str] = set()


class Publisher:
    """Gathers what is published while the driver is busy into its next calls.

    As many calls are under way at a time as the driver can take, and none has a key that another
    has: so messages of one key are stored in the order in which they were published, also when a
    call fails. What fails with a transient error is repeated, with the same ids, until its
    deadline; every caller has its answer by then, also when the driver hangs. A caller that is
    cancelled after the record has been handed to the driver cannot take it back.
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
        self._waiting = 0
        """How many records are in the queue."""
        self._flights: list[Flight] = []
        self._resting = False
        """Whether the next publish begins a call."""
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
        item = One(record, loop.time() + timeout, future)
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
        many = Many(records, loop.time() + timeout, loop.create_future())
        self._enqueue(Part(many, range(len(records))))
        return many.future

    def _enqueue(self, item: One | Part) -> None:
        if self._closed:
            raise Closed("the broker is closed")
        self._queue.append(item)
        self._waiting += len(item)
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
            log.warning("closing with %d publishes unconfirmed", sum(map(len, self._all())))
        left = self._all()
        tasks = [self._task, *(flight.task for flight in self._flights)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
        for item in left:
            if not item.future.done():
                item.fail(Closed("the broker was closed before the publish was confirmed"))

    def _all(self) -> list[One | Part]:
        flying = [item for flight in self._flights for item in flight.items]
        return [*flying, *self._queue]

    async def _run(self) -> None:
        """Begin calls as long as there is something to send, and room for another."""
        flights = self._flights
        while True:
            if self._pause:
                await asyncio.sleep(self._pause * random.uniform(0.5, 1))
                self._pause = 0.0
            room = len(flights) < self._driver.overlap
            if room and (flight := self._take()).records:
                flight.task = supervise(self._fly(flight), name="anymq-publish")
                flights.append(flight)
                continue
            self._wake.clear()
            self._resting = room
            if not flights and not self._queue:
                self._idle.set()
            await self._wake.wait()

    async def _fly(self, flight: Flight) -> None:
        try:
            again = self._resolve(flight, await self._call(flight.records))
            if again:
                # Until they are in the queue, before all else, the flight keeps their keys.
                flight.items = again
                await self._redeclare(again)
                self._queue.extendleft(reversed(again))
                self._waiting += sum(map(len, again))
                self._pause = self._longest
            self._longest = min(self._longest * 2, LONGEST_PAUSE) if again else FIRST_PAUSE
        except BaseException as raw:
            error = fault(raw, "the engine")
            log.error("a publish ended by an error of the engine", exc_info=raw)
            for item in flight.items:
                item.fail(error)
        finally:
            self._flights.remove(flight)
            self._wake.set()

    async def _call(self, records: Sequence[Record]) -> Sequence[Outcome]:
        try:
            outcomes = await self._driver.publish(records)
            if len(outcomes) != len(records):
                raise RuntimeError(f"{len(outcomes)} outcomes for {len(records)} records")
        except BaseException as error:
            return [fault(error, "the client library")] * len(records)
        return outcomes

    def _take(self) -> Flight:
        """Take what goes into the next call off the queue."""
        driver, queue, flight = self._driver, self._queue, Flight()
        records, keys, size = flight.records, flight.keys, driver.max_batch_bytes
        busy = frozenset[str]().union(*[other.keys for other in self._flights])
        # With room for more calls each gets its share: one is answered while another is sent. What
        # was given together stays together: it has no successor that waits for its answer.
        shares = driver.overlap - len(self._flights)
        room = min(driver.max_batch, max(SMALLEST, -(-self._waiting // shares)))
        while queue and room > 0:
            item = queue[0]
            if item.future.done():
                queue.popleft()
                self._waiting -= len(item)
            elif isinstance(item, One):
                record = item.record
                size -= len(record.body) + OVERHEAD
                if (size < 0 and records) or record.key in busy:
                    break
                if record.key is not None:
                    keys.add(record.key)
                queue.popleft()
                records.append(record)
                flight.items.append(item)
                room -= 1
            else:
                taken = item.within(driver.max_batch - len(records), size) or int(not records)
                part, rest = item.split(taken)
                more = part.records
                its_keys = _keys(more) if part.many.keyed else ()
                if not taken or not busy.isdisjoint(its_keys):
                    break
                keys.update(its_keys)
                queue.popleft()
                if rest.indexes:
                    queue.appendleft(rest)
                records += more
                flight.items.append(part)
                room -= taken
                size -= taken * (part.many.largest + OVERHEAD)
        self._waiting -= len(records)
        return flight

    def _resolve(self, flight: Flight, outcomes: Sequence[Outcome]) -> list[One | Part]:
        """Answer the callers; return what has to be tried again."""
        again: list[One | Part] = []
        at = 0
        for item in flight.items:
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
        """Declare anew the topics that were not found; what cannot be is sent once more."""
        missing = [item for item in again if isinstance(item.error, NotFound)]
        for topic in {item.topic for item in missing}:
            try:
                await self._declare(topic)
            except BaseException as raw:
                error = fault(raw, f"declaring {topic}")
                log.debug("declaring %s again failed: %s", topic, error)
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


def _keys(records: Iterable[Record]) -> set[str]:
    return {record.key for record in records if record.key is not None}


def receipt_of(id: str, topic: str, outcome: str | None) -> Receipt:
    """Return the receipt for a record whose fate was `outcome`."""
    duplicate = isinstance(outcome, Duplicate)
    position = str.__str__(outcome) if outcome else None
    return Receipt(id, topic, position, duplicate)
