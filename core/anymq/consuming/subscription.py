"""`Subscription`: the consumer engine. Fetches within its credit, hands out, drains."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context as NoContext
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from ..driver.clock import REAL
from ..driver.listener import Listener
from ..driver.progress import Progress
from ..driver.records import Received
from ..driver.source import Reader, SourceLost
from ..driver.specs import BROADCAST_ONLY, ONLY_GROUP
from ..errors import Closed, ConfigurationError, StateError, TransientError, text_of
from ..logs import logger
from ..tasks import fault, supervise
from ..wire.forged_headers import only_group
from .credit import Credit
from .delivery import Delivery, current
from .key_lanes import Lanes
from .late_settlements import DONE, Finished
from .loop_watchdog import Lookout
from .settlement import Context, Session
from .slow_handlers import LOOK, Overdue

if TYPE_CHECKING:
    from ..driver.clock import Clock
    from ..middleware import Handler

log = logger("anymq.consumer")

HUNG = 30.0
FAILURES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
CANCEL_GRACE = 1.0
LETTING_GO = 0.5
"""Seconds for middleware to finish; a store may not answer."""
CLOSE_WITHIN = 5.0
"""Seconds that closing takes at most beside `drain_timeout`."""
TURN = 250
"""Messages that a worker handles in a row before it lets others run."""
SLICE = 0.05
"""Seconds that it does so at most, beside the message that it is at."""


class Subscription(AsyncIterator[Delivery]):
    """A subscription: enter it, then iterate over deliveries or let its handler run.

    ::

        async with broker.subscribe("orders", group="billing") as deliveries:
            async for delivery in deliveries:
                await delivery.ack()

    Entering returns when the group exists at its place: what is published from then on will be
    delivered. Leaving drains: fetching stops, handlers finish within `drain_timeout` seconds or are
    cancelled, what is unsettled is released, settlements are sent. It ends within
    `drain_timeout` + 5 s, also when the broker is dead. A lost connection is not an
    error: the engine opens a new source, for ever, and says so in the log.

    An `ordered` one hands out one delivery of a key at a time, in the order of publishing: the next
    when the one before is acked or rejected, also while it is being retried. Keys do not wait for
    each other. What its handlers have not settled at the end is not given back one by one: it is
    repeated, in order, by whoever owns the partition next.
    """

    def __init__(
        self,
        *,
        open_source: Callable[[int], Awaitable[Reader]],
        context: Context,
        clock: Clock,
        handler: Handler | None,
        concurrency: int,
        batch_size: int,
        prefetch: int | None,
        prefetch_bytes: int | None,
        drain_timeout: float,
        open_timeout: float,
        on_close: Callable[[Subscription], None],
        deadline: float | None = None,
    ) -> None:
        for name, value in (
            ("concurrency", concurrency),
            ("prefetch", prefetch),
            ("prefetch_bytes", prefetch_bytes),
        ):
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} must be at least 1")
        self._open_source = open_source
        self._context = context
        context.subscription = self
        context.settled = self._settled
        context.redeliver = self._redeliver
        context.freed = self._freed
        context.kept = self._kept
        context.again = self._again
        context.lapse = self._lapse
        context.in_hand = self._begun
        self._clock = clock
        self._monotonic = clock.monotonic
        self._handler = handler
        self._concurrency = concurrency
        self._batch_size = batch_size
        self._places = concurrency * batch_size
        """How many workers there are to be."""
        self._drain_timeout = drain_timeout
        self._open_timeout = open_timeout
        self._on_close = on_close
        self._credit = Credit(
            concurrency=self._places,
            fixed=prefetch,
            max_bytes=prefetch_bytes,
            shared=context.group is not None and not context.ordered,
        )
        self._lanes = Lanes(Delivery.wait_out) if context.ordered else None
        self._buffer: deque[Delivery] | Lanes = deque() if self._lanes is None else self._lanes
        self._asks = handler is None or context.ordered
        """Whether who waits for a delivery may do so before settling what has been handed out."""
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._room = asyncio.Event()
        self._session: Session | None = None
        self._only = BROADCAST_ONLY if context.group is None else context.group
        self._finished = Finished(clock.monotonic)
        self.listener: Listener = _SourceListener(self)
        self.place: object = None
        """The engine's: where a broadcast reader goes on, see `Source.place`."""
        self._generation = 0
        self._fetcher: asyncio.Task[None] | None = None
        self._workers: dict[asyncio.Task[None], Delivery | None] = {}
        self._batches: dict[asyncio.Task[None], list[Delivery]] = {}
        self._turn_ends = 0.0
        self._finished_count = 0
        self._overdue = Overdue(context.topic, context.group)
        self._overseer: asyncio.Task[None] | None = None
        self._deadline = deadline
        self._late: set[asyncio.Task[None]] = set()
        """Workers that have been cancelled for their `Deadline`."""
        self._surplus = False
        """Whether there are more workers than places."""
        self._interrupted: set[asyncio.Task[None]] = set()
        self._stopped: dict[Delivery, str] = {}
        self._before_letting_go: set[Callable[[], Awaitable[None]]] = set()
        self._paused = False
        self._holders: set[object] = set()
        self._freeing = asyncio.Event()
        self._failed: BaseException | None = None
        self._opener: asyncio.Task[Any] | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._state = "new"
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Subscription {self.topic} group={self.group} {self._state}>"

    @property
    def topic(self) -> str:
        """The topic."""
        return self._context.topic

    @property
    def group(self) -> str | None:
        """The group; None for broadcast."""
        return self._context.group

    @property
    def member(self) -> str:
        """The name of this subscription, which no other has."""
        return self._context.member

    @property
    def in_flight(self) -> int:
        """How many messages this subscription holds whose settlement has not been sent yet."""
        return self._credit.held

    @property
    def failed(self) -> BaseException | None:
        """Why nothing is received now; None while reads succeed. For a readiness check.

        The engine goes on trying: it is None again after the first read that succeeds.
        """
        return self._failed

    @property
    def closing(self) -> bool:
        """Whether it drains or has been closed."""
        return self._state in ("closing", "closed")

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._state == "closed"

    @property
    def paused(self) -> bool:
        """Whether a holder has called `pause`, and not yet `resume`."""
        return self._paused

    def pause(self, *, holder: object = None) -> None:
        """Stop fetching and handing out; what is in handlers goes on.

        It lasts until every `holder` that has paused has resumed: an operator's pause, without
        one, is not ended by the `KillSwitch`, which holds a pause of its own.

        Messages that were fetched already stay here, with their leases kept; the group's other
        members get all others. The connection is kept alive.
        """
        self._holders.add(holder)
        self._paused = True

    def resume(self, *, holder: object = None) -> None:
        """Go on after `pause`, unless another holder still pauses."""
        self._holders.discard(holder)
        if self._holders:
            return
        self._paused = False
        self._room.set()
        self._wake(len(self._buffer))

    @property
    def concurrency(self) -> int:
        """How many handlers (or batches) run side by side; may be set while it runs.

        A smaller number lets what runs come to its end.
        """
        return self._concurrency

    @concurrency.setter
    def concurrency(self, value: int) -> None:
        if value < 1:
            raise ConfigurationError("concurrency must be at least 1")
        self._concurrency = value
        self._places = value * self._batch_size
        self._credit.resize(self._places)
        self._room.set()
        if self._state == "open":
            self._employ()
            self._wake(len(self._waiters))
        self._count_workers()

    @property
    def stopped(self) -> Mapping[str, str]:
        """The keys whose lanes are stopped here, with the reasons; ordered subscriptions only."""
        return {item.message.key or "": reason for item, reason in self._stopped.items()}

    def restart(self, key: str) -> None:
        """Hand out again, as a first attempt, what stopped the lane of `key`.

        Raises `StateError` if that lane is not stopped here.
        """
        for delivery in self._stopped:
            if delivery.message.key == key:
                del self._stopped[delivery]
                delivery.restart()
                return
        raise StateError(f"the lane of {key!r} is not stopped")

    @property
    def buffered(self) -> int:
        """How many messages are here that can be handed out."""
        return len(self._buffer)

    def ahead(self, count: int) -> list[Delivery]:
        """The middleware's: up to `count` first attempts that will be handed out next."""
        return [delivery for delivery in islice(self._buffer, count) if delivery.counted == 1]

    def before_letting_go(self, call: Callable[[], Awaitable[None]]) -> None:
        """The middleware's: `call` before what is fetched is given back, or is somebody else's."""
        self._before_letting_go.add(call)

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise StateError("a subscription can be entered once; call subscribe() again")
        self._state = "opening"
        self._reader = self._opener = asyncio.current_task()
        try:
            await self._open_within(self._open_timeout)
            if self._state != "opening":
                assert self._session is not None
                await self._session.aclose()
                raise Closed(f"the subscription to {self.topic} was closed while it was entered")
        except BaseException as error:
            closing = self._state == "closing"
            self._finish()
            stopped = closing and isinstance(error, asyncio.CancelledError)
            if stopped and self._opener is not None and not self._opener.uncancel():
                raise Closed(f"the subscription to {self.topic} was closed") from error
            raise
        finally:
            self._opener = None
        self._state = "open"
        self._fetcher = supervise(self._fetching(), name=f"anymq-fetch-{self.topic}")
        self._employ()
        if self._clock is REAL:
            Lookout.join(self)
        if self._handler is not None:
            self._overseer = supervise(self._oversee(), name=f"anymq-overseer-{self.topic}")
        return self

    async def _oversee(self) -> None:
        """Say which handlers are at one message for far too long."""
        overdue, counted = self._overdue, 0
        while True:
            await self._clock.sleep(max(LOOK, self._clock.poll))
            finished, counted = self._finished_count - counted, self._finished_count
            running = [item for item in self._workers.values() if item is not None]
            if self._batch_size > 1:  # the others wait for their batch to fill up
                running = [item for batch in self._batches.values() for item in batch]
            overdue.look(running, finished, self._clock.monotonic())
            if self._deadline is not None:
                self._cut_off(set(overdue.over(self._deadline)))

    def _cut_off(self, late: set[Delivery]) -> None:
        """Cancel the handlers of what is `late`; `Deadline` makes failed attempts of that."""
        for task, delivery in list(self._workers.items()):
            if delivery in late:
                self._overdue.restart(delivery)
                self._interrupted.add(task)
                self._late.add(task)
                task.cancel()

    def begin_attempt(self, delivery: Delivery) -> None:
        """The middleware's: the time of `delivery` counts anew."""
        self._overdue.restart(delivery)

    def has_cut_off(self) -> bool:
        """The middleware's: whether this task was cancelled for its `Deadline`; it goes on then."""
        task = asyncio.current_task()
        if task is None or task not in self._late:
            return False
        self._late.discard(task)
        self._interrupted.discard(task)
        return task.uncancel() == 0

    def _employ(self) -> None:
        """Have as many workers as handlers may run; surplus ones leave by themselves."""
        while self._handler is not None and len(self._workers) < self._places:
            task = supervise(
                self._work(self._handler), name=f"anymq-worker-{self.topic}", ended=self._replace
            )
            self._workers[task] = None
            task.add_done_callback(self._left)

    def _left(self, worker: asyncio.Task[None]) -> None:
        self._workers.pop(worker, None)
        self._count_workers()

    def _count_workers(self) -> None:
        self._surplus = len(self._workers) > self._places

    def _replace(self) -> None:
        """A worker has ended by itself: have another."""
        for worker in [worker for worker in self._workers if worker.done()]:
            delivery = self._workers.pop(worker)
            if delivery is not None:
                delivery.give_back(1.0)
        if self._state == "open":
            self._employ()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _finish(self) -> None:
        self._state = "closed"
        Lookout.leave(self)
        if self._overseer is not None:
            self._overseer.cancel()
        self._closed.set()
        self._on_close(self)

    def __aiter__(self) -> Self:
        self._reader = asyncio.current_task()
        if self._handler is not None:
            raise StateError("this subscription has a handler; it cannot be iterated as well")
        return self

    async def __anext__(self) -> Delivery:
        if self._state == "new":
            raise StateError("enter the subscription first: async with broker.subscribe(…)")
        delivery = await self._take()
        if delivery is None:
            raise StopAsyncIteration
        return delivery

    async def wait_closed(self) -> None:
        """Return when the subscription has been closed."""
        await self._closed.wait()

    async def aclose(self) -> None:
        """Drain and close, see the class. Calling it twice, or from two tasks, is harmless.

        Called by its own handler it begins to drain and returns: it cannot wait for its caller.
        """
        await self.close_for(asyncio.current_task())

    def is_handling_caller(self) -> bool:
        """The engine's: whether this is called by a handler that this subscription runs."""
        delivery = current.get()
        mine = delivery is not None and delivery in self._workers.values()
        return mine or asyncio.current_task() in self._workers

    async def close_for(self, caller: asyncio.Task[Any] | None) -> None:
        """The engine's: `aclose`, asked for by `caller`."""
        if self._state == "new":
            self._finish()
        if self._state == "opening":
            self._state = "closing"
            if self._opener is not None and self._opener is not asyncio.current_task():
                self._opener.cancel()
        if self._state in ("closing", "closed"):
            if not self.is_handling_caller():
                await self._closed.wait()
            return
        self._state = "closing"
        self._closing = closing = supervise(
            self._drain(patient=caller is not self._reader),
            name=f"anymq-drain-{self.topic}",
            context=NoContext(),
        )
        if self.is_handling_caller():
            return
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            for worker in list(self._workers):
                worker.cancel()
            await asyncio.wait((closing,))
            raise

    async def _drain(self, *, patient: bool) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._room.set()
            await self._stop_fetching()
            await self._tell()
            if self._lanes is not None:
                self._lanes.drop(lambda _: True)
            else:
                await _release(self._buffer)
                self._buffer = deque()
            self._wake(len(self._waiters))
            waiting = loop.time()
            if self._session is not None and self._handler is None and patient:
                await self._wait_for_reader(self._session)
            await self._stop_workers()
            began += min(loop.time() - waiting, self._drain_timeout)
            await self._tell()
            if self._session is not None:
                if self._lanes is None:
                    late = self._session.unsettled
                    await _release(late)
                    for delivery in late:
                        delivery.verb = "lapsed"  # what comes now comes too late, and is dropped
                await self._session.aclose(max(0.0, CLOSE_WITHIN - (loop.time() - began)))
        finally:
            self._finish()

    async def _wait_for_reader(self, session: Session) -> None:
        """Let the task that iterates settle what it has, within `drain_timeout`."""
        until = self._clock.monotonic() + self._drain_timeout
        while self._is_reading(session) and (left := until - self._clock.monotonic()) > 0:
            self._room.clear()
            await self._clock.wait(self._room, min(left, 0.5))

    def _is_reading(self, session: Session) -> bool:
        """Whether the task that iterates holds something; what waits here it does not hold."""
        waiting = session.waiting()
        return any(not item.settled and item not in waiting for item in self._begun())

    async def _tell(self) -> None:
        """Let middleware finish what concerns the messages that are here."""
        for call in self._before_letting_go:
            try:
                async with asyncio.timeout(LETTING_GO):
                    await call()
            except BaseException as raw:
                error = fault(raw, "middleware")
                log.warning("%s lets go of messages too early: %s", self.topic, text_of(error))

    async def _stop_fetching(self) -> None:
        assert self._fetcher is not None
        # A read is left to expire: a cancelled one may lose what it had taken.
        _, running = await asyncio.wait((self._fetcher,), timeout=self._clock.poll + 1)
        for task in running:
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_GRACE)

    async def _stop_workers(self) -> None:
        if not self._workers:
            return
        running = set(self._workers)
        if self._drain_timeout > 0:
            _, running = await asyncio.wait(running, timeout=self._drain_timeout)
        for task in running:
            task.cancel()
        if running:
            _, stuck = await asyncio.wait(running, timeout=CANCEL_GRACE)
            for task in stuck:
                log.warning("%s ignores its cancellation and is left behind", task.get_name())

    # Handing out.

    async def _work(self, handler: Handler) -> None:
        me = asyncio.current_task()
        assert me is not None
        workers, turn = self._workers, 0
        while True:
            turn += 1
            delivery = self._now() if turn % TURN else None
            if delivery is None:
                workers[me] = None
                current.set(None)
                if not turn % TURN or self._monotonic() > self._turn_ends:
                    await asyncio.sleep(0)  # the others' turn: handlers may never wait
                delivery = await self._take()
                self._turn_ends = self._monotonic() + SLICE
                if delivery is None:
                    break
            workers[me] = delivery
            current.set(delivery)
            try:
                await handler(delivery)
            except BaseException as error:
                await self._failed_in(delivery, error, me)
            if self._interrupted and me in self._interrupted:
                self._interrupted.discard(me)
                self._late.discard(me)
                me.uncancel()
        self._left(me)

    async def _failed_in(
        self, delivery: Delivery, error: BaseException, worker: asyncio.Task[None]
    ) -> None:
        """Give `delivery` back: the chain raised. Raises if the worker has been told to end."""
        if isinstance(error, asyncio.CancelledError) and worker.cancelling():
            if not delivery.settled:
                await delivery.release()
            if worker.cancelling() > (worker in self._interrupted):
                self._interrupted.discard(worker)
                raise error
            return
        fault(error, "the handler chain")
        log.error("the handler chain of %s failed", self.topic, exc_info=error)
        delivery.give_back(1.0)

    def _now(self) -> Delivery | None:
        """Return the next delivery of this group if it can be handed out without waiting."""
        if not self._buffer or self._paused or self._state != "open":
            return None
        if self._surplus or not self._buffer[0].counted:
            return None
        assert self._session is not None
        now = self._monotonic()
        if now > self._session.good_until or now > self._turn_ends:
            return None
        return self._buffer.popleft()

    async def _take(self) -> Delivery | None:
        """Return the next delivery of this group; None when there is no work left for the caller.

        A copy that was put back for another group alone is acked on the way.
        """
        while (delivery := await self._next()) is not None:
            headers = delivery.received.headers
            if headers.get(ONLY_GROUP) is None or only_group(headers) in (None, self._only):
                if delivery.counted or await delivery.begin():
                    return delivery
                continue
            log.seldom(
                ("only", self.topic, self.group),
                logging.INFO,
                "%s on %s is skipped here (group %s): it was put back for %s alone",
                delivery.position,
                self.topic,
                self.group,
                headers.get(ONLY_GROUP),
            )
            await delivery.ack()
        return None

    async def _next(self) -> Delivery | None:
        while not self._buffer or self._paused or not self._checked():
            if self._state != "open" or len(self._workers) > self._places:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            if self._asks and self._credit.room < 1:
                self._room.set()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake(1)  # pass it on: this one was woken and will not take
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        if self._state != "open" or len(self._workers) > self._places:
            return None
        return self._buffer.popleft()

    def _checked(self) -> bool:
        """Let go of what may be another member's by now; return whether something is left."""
        session = self._session
        if session is not None and self._monotonic() > session.good_until:
            self._lapse(session)
        return bool(self._buffer)

    def _lapse(self, session: Session) -> None:
        """The session's: hand out nothing whose lease or partition has been lost, see `look`."""
        over = [item for item in session.look(self._buffer) if item.belongs_to(session)]
        if not over:
            return
        gone = set(over)
        if self._lanes is not None:
            self._lanes.drop(lambda item: item in gone)
        else:
            self._buffer = deque(item for item in self._buffer if item not in gone)
        session.give_up(over)
        log.warning(
            "%s, group %s: %d messages that waited here to be handled are not handled here: this "
            "process, its event loop or its connection stood still for so long that other members "
            "may have them by now",
            self.topic,
            self.group,
            len(over),
        )

    def _wake(self, count: int) -> None:
        waiters = self._waiters
        while count > 0 and waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def _settled(self, count: int, size: int) -> None:
        self._credit.give(count, size)
        self._finished_count += count
        self._room.set()

    def _redeliver(self, delivery: Delivery) -> None:
        self._credit.take(1, len(delivery.received.body))
        self._buffer.extend((delivery,))
        self._wake(1)

    # Lanes.

    def _freed(self, delivery: Delivery) -> None:
        assert self._lanes is not None
        if self._lanes.free(delivery):
            self._wake(1)
        self._freeing.set()

    def _kept(self, delivery: Delivery, again: Delivery) -> None:
        assert self._lanes is not None
        self._lanes.replace(delivery, again)

    def _again(self, delivery: Delivery) -> None:
        assert self._lanes is not None
        if delivery in self._lanes.out:
            self._lanes.again(delivery)
            self._wake(1)

    def note_stopped(self, delivery: Delivery, reason: str) -> None:
        """The engine's: `delivery` holds up its key until `restart`."""
        self._stopped[delivery] = reason

    def note_dropped(self, records: Sequence[Received]) -> None:
        """The source's: the broker has not been told that these are done."""
        session = self._session
        if session is not None and session.group is not None:
            self.note_finished([Delivery(record, session, 0.0) for record in records], DONE)

    def note_unreadable(self, records: Sequence[Received], reason: str) -> None:
        """The source's: these cannot be given to a handler, see `SubscribeSpec.unreadable`."""
        session = self._session
        assert session is not None
        self._credit.take(len(records), sum([len(record.body) for record in records]))
        for delivery in session.hold(records):
            log.seldom(
                ("unreadable", self.topic, self.group),
                logging.WARNING,
                "%s of %s, group %s, goes to the dead letters: %s",
                delivery.received.position,
                self.topic,
                self.group,
                reason,
            )
            delivery.verb = "reject"
            session.reject(delivery, reason, None, None, False)

    def note_finished(self, deliveries: Sequence[Delivery], attempt: int) -> None:
        """The engine's: these are done, or `attempt` is their next; the broker may not know it.

        What has come back already, and waits to be handed out, is settled here.
        """
        if self.closing:
            return
        self._finished.note(deliveries, attempt)
        if not self._buffer:
            return
        if self._lanes is None:
            self._buffer = deque(self._finished.sift(self._buffer))
            return
        places = {delivery.received.position for delivery in deliveries}
        came = [item for item in self._lanes if item.received.position in places]
        settled = {item for item in came if self._finished.settles(item)}
        self._lanes.drop(lambda item: item in settled)

    def note_skipped(self, after: str, before: str) -> None:
        """The source's: a broadcast reader has missed messages, see `SubscribeSpec.skipped`."""
        log.warning(
            "broadcast on %s: the messages after %s and before %s were deleted (by retention, or a "
            "purge) before this subscription had read them; it goes on with the oldest",
            self.topic,
            after,
            before or "now",
        )

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        """The source's: let go of `partitions`, see `SubscribeSpec.revoke`.

        What is buffered or waits for a retry is forgotten. Handlers may finish within a third of
        `ack_deadline`, then they are cancelled; at once if the partitions are `gone` already.
        """
        session = self._session
        if session is not None and self._lanes is not None:
            patience = 0.0 if gone else self._context.ack_deadline / 3
            await self._let_go(session, self._lanes, partitions, patience)

    async def _let_go(
        self, session: Session, lanes: Lanes, partitions: frozenset[int] | None, patience: float
    ) -> None:
        """Forget what `session` holds of `partitions` (None: all), after `patience` seconds."""

        def theirs(delivery: Delivery) -> bool:
            ours = partitions is None or delivery.partition in partitions
            return ours and delivery.belongs_to(session)

        gone = {*lanes.drop(theirs), *filter(theirs, session.waiting())}
        session.forget(lambda item: item in gone)
        until = self._clock.monotonic() + patience
        while any(theirs(item) and not item.settled for item in self._in_hand()):
            left = until - self._clock.monotonic()
            if left <= 0:
                break
            self._freeing.clear()
            await self._clock.wait(self._freeing, min(left, 0.5))
        await self._tell()
        late = {item for item in self._in_hand() if theirs(item) and not item.settled}
        session.forget(theirs)
        for item in [item for item in lanes.out if theirs(item)]:
            lanes.free(item)
            self._stopped.pop(item, None)
        await self._interrupt(late)
        if patience > 0:
            await session.flushed()

    def _in_hand(self) -> list[Delivery]:
        """What is with a handler now, or with whoever iterates."""
        if self._handler is not None:
            return [item for item in self._workers.values() if item is not None]
        assert self._lanes is not None
        return [item for item in self._lanes.out if not item.settled]

    def _begun(self) -> Iterable[Delivery]:
        """What is with a handler now, or with the task that iterates; also of other sources."""
        if self._handler is not None or self._lanes is not None:
            return self._in_hand()
        session, waiting = self._session, set(self._buffer)
        return [] if session is None else [d for d in session.unsettled if d not in waiting]

    async def _interrupt(self, deliveries: set[Delivery]) -> None:
        """Cancel the handlers of `deliveries`; their workers go on with others."""
        for task, item in list(self._workers.items()):
            if item in deliveries:
                self._interrupted.add(task)
                task.cancel()
        until = self._clock.monotonic() + CANCEL_GRACE
        while any(item in deliveries for item in self._workers.values()):
            if self._clock.monotonic() > until:
                log.warning("a handler of %s ignores its cancellation", self.topic)
                return
            await asyncio.sleep(0.005)

    # While the event loop stands still: called by the lookout, in its thread.

    def handled_by(self, task: asyncio.Task[Any]) -> Delivery | None:
        """The lookout's: return what `task` handles; one of them, if that is a batch."""
        return self._workers.get(task) or next(iter(self._batches.get(task, ())), None)

    def keep_leases(self) -> None:
        """The lookout's: extend what is with a handler, or with the task that iterates."""
        session = self._session
        if session is None or self._closed.is_set():
            return
        if self._handler is not None:
            session.keep_apart([item for item in list(self._workers.values()) if item is not None])
        else:
            buffered = set(self._buffer)
            session.keep_apart([item for item in session.unsettled if item not in buffered])

    def note_batch(self, task: asyncio.Task[None], deliveries: Iterable[Delivery]) -> None:
        """The collector's: `task` handles the batch of `deliveries`."""
        self._batches[task] = list(deliveries)
        task.add_done_callback(self._batches.pop)

    # Fetching.

    async def _fetching(self) -> None:
        """Fetch until the end; by another source, if an error of the engine ended it."""
        failures = 0
        while self._state == "open":
            try:
                return await self._fetch()
            except BaseException as raw:
                error = fault(raw, "fetching")
                failures += 1
                log.exception("fetching from %s failed; opening another source", self.topic)
                session = self._session
                assert session is not None
                session.broken = True
                self._failed = error
                await self._pause(min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE))

    async def _fetch(self) -> None:
        failures = 0
        poll = self._clock.poll
        progress: Progress | None = None
        while self._state == "open":
            session = self._session
            assert session is not None
            if progress is None or progress.source is not session.source:
                progress = Progress(session.source, self._monotonic())
            limit = await self._limit()
            if self._state != "open":
                return
            begun = self._monotonic()
            watchdog = asyncio.timeout(poll + HUNG)
            try:
                if session.broken:
                    raise SourceLost(session.why_broken)
                async with watchdog:
                    records = await session.source.receive(limit, poll if limit else 0.0)
                if records or not limit:
                    progress.moved(self._monotonic())
                else:
                    await progress.look(self._monotonic())
            except BaseException as raw:
                failures += 1
                error = fault(raw, "the client library")
                # A client's own timeout is an error like others; the watchdog's is not.
                hung = isinstance(raw, TimeoutError) and watchdog.expired()
                await self._recover(session, error, failures, hung=hung)
                continue
            failures = 0
            self._failed = None
            self._accept(session, records, limit, begun)

    async def _limit(self) -> int:
        """Return how many to fetch now; 0 after a while without room, to keep the session alive."""
        credit = self._credit
        if not self._paused and (
            credit.room >= max(1, credit.window // 4) or (credit.room > 0 and not self._buffer)
        ):
            return credit.room
        self._room.clear()
        await self._clock.wait(self._room, 1.0)
        if self._paused:
            return 0
        if self._asks and self._waiters and not self._buffer and credit.held >= credit.window:
            credit.stretch()
        return max(0, credit.room)

    def _accept(
        self, session: Session, records: Sequence[Received], limit: int, begun: float
    ) -> None:
        credit, buffer = self._credit, self._buffer
        starved = not buffer
        if records:
            credit.take(len(records), sum(map(len, [record.body for record in records])))
            # A read that took too long may have had its messages from the beginning.
            overran = self._monotonic() - begun > 2 * self._clock.poll
            deliveries = session.hold(records, begun if overran else None)
            if self._finished.notes:
                deliveries = self._finished.sift(deliveries)
            buffer.extend(deliveries)
            if session.group is None:
                self.place = session.source.place
            self._wake(len(records))
        now = self._monotonic()
        oldest = now - buffer[0].fetched if buffer else 0.0
        credit.fetched(full=0 < limit <= len(records), starved=starved, oldest_wait=oldest, now=now)

    async def _recover(
        self, session: Session, raw: Exception, failures: int, *, hung: bool
    ) -> None:
        error: BaseException = raw
        if isinstance(raw, SourceLost):
            error = raw.__cause__ if isinstance(raw.__cause__, Exception) else raw
        elif hung:
            error = TransientError(f"a read did not end within {self._clock.poll + HUNG:g} s")
        else:
            error = self._translated(raw)
        self._failed = error
        log.rarely(
            (self.topic, self.group, "lost"),
            logging.WARNING,
            "receiving from %s failed, going on: %s",
            self.topic,
            error,
        )
        log.debug("the cause", exc_info=raw)
        pause = min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE)
        if not (isinstance(raw, SourceLost) or hung or failures >= FAILURES):
            await self._pause(pause)
            return
        if session.group is None:
            if isinstance(raw, SourceLost):
                self.place = session.source.place
            await session.leave()
        else:
            await self._purge(session)
            await session.aclose()
            self._credit.clear()  # all of it was that session's
        while self._state == "open":
            try:
                await self._open()
            except BaseException as again:
                self._failed = self._translated(fault(again, "the client library"))
                log.rarely(
                    (self.topic, self.group, "again"),
                    logging.WARNING,
                    "subscribing to %s again failed, repeating: %s",
                    self.topic,
                    self._failed,
                )
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                log.info("subscribed to %s again", self.topic)
                return

    async def _purge(self, session: Session) -> None:
        """Forget what is buffered from a lost source: it will be delivered again."""
        await self._tell()
        if self._lanes is None:
            kept = [delivery for delivery in self._buffer if not delivery.belongs_to(session)]
            self._buffer = deque(kept)
            return
        await self._let_go(session, self._lanes, None, 0.0)

    async def _pause(self, seconds: float) -> None:
        await self._clock.sleep(seconds * random.uniform(0.5, 1))

    async def _open_within(self, seconds: float) -> None:
        """Open the first source; what may pass, as a server that is just starting, is repeated."""
        loop = asyncio.get_running_loop()  # Real time: a test that moves the clock waits here.
        until = loop.time() + seconds
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._open()
            except TransientError as error:
                if loop.time() + pause > until:
                    raise
                log.debug("%s; trying again", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _open(self) -> None:
        self._generation += 1
        try:
            source = await self._open_source(self._generation)
        except BaseException as raw:
            translated = self._translated(fault(raw, "the client library"))
            if translated is raw:
                raise
            raise translated from translated.__cause__
        if self.group is None:
            self.place = source.place
            if self._session is not None:
                self._session.source = source
                return
        self._session = Session(source, self._context)

    def _translated(self, raw: Exception) -> BaseException:
        return self._context.translate(raw, f"subscribe to {self.topic}")


class _SourceListener(Listener):
    """The calls of a source, passed on to its subscription."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        await self._subscription.revoke(partitions, gone)

    def skipped(self, after: str, before: str) -> None:
        self._subscription.note_skipped(after, before)

    def dropped(self, records: Sequence[Received]) -> None:
        self._subscription.note_dropped(records)

    def unreadable(self, records: Sequence[Received], reason: str) -> None:
        self._subscription.note_unreadable(records, reason)


async def _release(deliveries: Iterable[Delivery]) -> None:
    for delivery in deliveries:
        await delivery.release()
