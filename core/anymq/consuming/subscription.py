"""`Subscription`: receives the messages of a topic, until it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, Self

from ..driver.clock import REAL
from ..errors import Closed, ConfigurationError, StateError, text_of
from ..logs import shown
from ..tasks import supervise
from .buffer import DeliveryBuffer
from .context import ConsumerContext
from .delivery import Delivery, Handler
from .fetcher import Fetcher, OpenSource
from .health import SubscriptionHealth
from .listener import SourceListener
from .loop_watchdog import LoopWatchdog
from .options import SubscribeOptions
from .workers import Workers

CLOSE_WITHIN = 5.0
"""Seconds that closing takes at most, beside `drain_timeout`."""


class Subscription(AsyncIterator[Delivery]):
    """A subscription: enter it, then iterate over deliveries or let its handler run.

    ::

        async with broker.subscribe("orders", group="billing") as deliveries:
            async for delivery in deliveries:
                await delivery.ack()

    Once it is entered, the group and its start position exist: messages published from then on will
    be delivered. Leaving drains: fetching stops, handlers finish within `drain_timeout` seconds or
    are cancelled, unsettled messages are released, and settlements are sent. It ends within
    `drain_timeout` + 5 s, also when the broker is dead. A lost connection is not an error: anymq
    reopens the source, retrying indefinitely with a backoff of at most 2 s, and logs it.

    An `ordered` subscription dispatches one delivery per key at a time, in publish order. The next
    one follows when the previous one is acknowledged or rejected, and keys do not block each other.
    Deliveries still unsettled on close are not released one by one: the partition's next owner
    redelivers them in order.
    """

    def __init__(
        self,
        options: SubscribeOptions,
        context: ConsumerContext,
        *,
        member: str,
        open_source: OpenSource,
        open_timeout: float,
        handler: Handler | None,
        deadline: float | None,
        limit: float | None,
        on_close: Callable[[Subscription], None],
    ) -> None:
        self._options = options
        self._member = member
        self._clock = context.clock
        self._concurrency = options.concurrency
        self._open_timeout = open_timeout
        self._on_close = on_close
        self._buffer = DeliveryBuffer(options, context.clock, has_handler=handler is not None)
        self._workers = Workers(
            self._buffer,
            context.clock,
            handler,
            batch_size=options.batch_size,
            deadline=deadline,
            limit=limit,
        )
        listener = SourceListener(self._buffer, self._workers, self._clock, options.ack_deadline)
        self._fetcher = Fetcher(open_source, options, context, self, self._buffer, listener)
        self._holders: set[object] = set()
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
        return self._options.topic.name

    @property
    def group(self) -> str | None:
        """The group; None for broadcast."""
        return self._options.group

    @property
    def member(self) -> str:
        """The name of this subscription, which no other has."""
        return self._member

    @property
    def in_flight(self) -> int:
        """The number of deliveries held here whose settlement has not been sent yet."""
        return self._buffer.credit.held

    @property
    def failed(self) -> BaseException | None:
        """The error of the last read, for a readiness check; None while reads succeed.

        anymq keeps retrying: it is None again after the first read that succeeds.
        """
        return self._fetcher.failed

    def health(self) -> SubscriptionHealth:
        """Return its state now, for probes and metrics."""
        buffer, fetcher, now = self._buffer, self._fetcher, self._clock.monotonic()
        error, stalled = fetcher.failed, fetcher.stalled_since
        ended = fetcher.has_ended
        return SubscriptionHealth(
            topic=self.topic,
            group=self.group,
            member=self._member,
            has_source=self._state == "open" and error is None and not ended,
            closed=self.closing,
            failed=ended,
            error=None if error is None else shown(text_of(error)),
            error_seconds=None if error is None else now - fetcher.failed_since,
            stalled_seconds=None if stalled is None else now - stalled,
            paused=buffer.is_paused,
            stopped_keys=len(buffer.stopped),
            in_flight=buffer.credit.held,
            buffered=buffer.waiting(),
            consumed=buffer.taken(),
            settled=buffer.settled_count,
            handlers=self._workers.running(),
            deadline=self._workers.limit,
        )

    @property
    def cut_short(self) -> int:
        """The number of handlers that were cancelled because they outlasted the drain."""
        return self._workers.cut_short

    @property
    def closing(self) -> bool:
        """Whether it drains or has been closed."""
        return self._state in ("closing", "closed")

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._state == "closed"

    # Flow.

    @property
    def paused(self) -> bool:
        """Whether a holder has called `pause`, and not yet `resume`."""
        return self._buffer.is_paused

    def pause(self, *, holder: object = None) -> None:
        """Stop fetching and dispatching; running handlers continue.

        The pause lasts until every `holder` that has paused has resumed. An operator's pause,
        without a holder, is not ended by the `KillSwitch`, which is a holder of its own.

        Messages that were fetched already stay here, with their leases renewed; the group's other
        members get all others. The connection is kept alive.
        """
        self._holders.add(holder)
        self._buffer.set_paused(True)

    def resume(self, *, holder: object = None) -> None:
        """End the pause of `holder`; unless another holder still pauses, continue."""
        self._holders.discard(holder)
        if not self._holders:
            self._buffer.set_paused(False)

    @property
    def concurrency(self) -> int:
        """How many handlers (or batches) run side by side; may be set while it runs.

        After it is lowered, surplus handlers finish the message that they are handling.
        """
        return self._concurrency

    @concurrency.setter
    def concurrency(self, value: int) -> None:
        if value < 1:
            raise ConfigurationError("concurrency must be at least 1")
        self._concurrency = value
        workers = value * self._options.batch_size
        self._buffer.credit.resize(workers)
        self._buffer.room.set()
        self._workers.resize(workers)

    @property
    def stopped(self) -> Mapping[str, str]:
        """The stopped keys of an ordered subscription, with the reasons."""
        stopped = self._buffer.stopped
        return {item.message.key or "": reason for item, reason in stopped.items()}

    def restart(self, key: str) -> None:
        """Dispatch the delivery that stopped `key` again, as a first attempt.

        Raises `StateError` if this subscription has not stopped that key.
        """
        for delivery in self._buffer.stopped:
            if delivery.message.key == key:
                del self._buffer.stopped[delivery]
                delivery.restart()
                return
        raise StateError(f"the key {key!r} is not stopped")

    # For middleware: see `Consumer`.

    @property
    def buffered(self) -> int:
        """The number of buffered deliveries that can be dispatched."""
        return len(self._buffer.queue)

    def ahead(self, count: int) -> list[Delivery]:
        """Internal. Return up to `count` first attempts that will be dispatched next."""
        return self._buffer.ahead(count)

    def on_release(self, call: Callable[[], Awaitable[None]]) -> None:
        """Internal. Have `call` run before buffered deliveries are released or lost."""
        self._buffer.on_release(call)

    def begin_attempt(self, delivery: Delivery) -> None:
        """Internal. Restart the time that is measured for `delivery`."""
        self._workers.begin_attempt(delivery)

    def has_timed_out(self) -> bool:
        """Internal. Whether the current task was cancelled for its `Deadline`."""
        return self._workers.has_timed_out()

    def note_batch(self, task: asyncio.Task[None], deliveries: Sequence[Delivery]) -> None:
        """Internal. Note that `task` handles the batch of `deliveries`."""
        self._workers.note_batch(task, deliveries)

    # For the watchdog of the event loop, in its thread.

    def handled_by(self, task: asyncio.Task[Any]) -> Delivery | None:
        """Internal. Return a delivery that `task` handles, if it does."""
        return self._workers.handled_by(task)

    def extend_apart(self) -> None:
        """Internal. Renew the leases of deliveries in handlers, or with the task that iterates."""
        settler = self._buffer.settler
        if settler is None or self._closed.is_set():
            return
        if self._workers.handler is not None:
            settler.extend_apart(self._workers.handled())
        else:
            buffered = set(self._buffer.queue)
            settler.extend_apart([item for item in settler.unsettled if item not in buffered])

    # Opening.

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise StateError("a subscription can be entered once; call subscribe() again")
        self._state = "opening"
        self._reader = self._opener = asyncio.current_task()
        try:
            await self._fetcher.open(self._open_timeout)
            if self._state != "opening":
                assert self._fetcher.settler is not None
                await self._fetcher.settler.aclose()
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
        self._buffer.set_open(True)
        self._fetcher.start()
        self._workers.start(self._concurrency * self._options.batch_size)
        if self._clock is REAL:
            LoopWatchdog.join(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Iterating.

    def __aiter__(self) -> Self:
        self._reader = asyncio.current_task()
        if self._workers.handler is not None:
            raise StateError("this subscription has a handler; it cannot be iterated as well")
        return self

    async def __anext__(self) -> Delivery:
        if self._state == "new":
            raise StateError("enter the subscription first: async with broker.subscribe(…)")
        delivery = await self._buffer.take()
        if delivery is None:
            raise StopAsyncIteration
        return delivery

    # Closing.

    async def wait_closed(self) -> None:
        """Return when the subscription has been closed."""
        await self._closed.wait()

    async def aclose(self, *, drain_timeout: float | None = None) -> None:
        """Drain and close, see the class. A second call, or one from another task, waits for it.

        `drain_timeout` replaces that of the subscription. Called by its own handler it starts to
        drain and returns: it cannot wait for its caller.
        """
        await self.close_for(asyncio.current_task(), drain_timeout=drain_timeout)

    def is_handling_caller(self) -> bool:
        """Internal. Whether a handler of this subscription makes this call."""
        return self._workers.handles_caller()

    async def close_for(
        self, caller: asyncio.Task[Any] | None, *, drain_timeout: float | None = None
    ) -> None:
        """Internal. `aclose`, called by `caller`."""
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
        self._buffer.set_open(False)
        timeout = self._options.drain_timeout if drain_timeout is None else drain_timeout
        self._closing = closing = supervise(
            self._drain(timeout, patient=caller is not self._reader),
            name=f"anymq-drain-{self.topic}",
            context=Context(),
        )
        if self.is_handling_caller():
            return
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            self._workers.cancel_all()
            await asyncio.wait((closing,))
            raise

    async def _drain(self, timeout: float, *, patient: bool) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        buffer, settler = self._buffer, self._buffer.settler
        try:
            buffer.room.set()
            await self._fetcher.stop()
            settler = buffer.settler
            await buffer.run_release_calls()
            buffered = buffer.drop(lambda _: True)
            if buffer.lanes is None:
                await _release(buffered)
            buffer.wake_all()
            waiting = loop.time()
            if self._workers.handler is None and patient:
                await self._wait_for_reader(timeout)
            await self._workers.stop(timeout)
            began += min(loop.time() - waiting, timeout)
            await buffer.run_release_calls()
            if settler is not None:
                if buffer.lanes is None:
                    late = settler.unsettled
                    await _release(late)
                    for delivery in late:
                        delivery.verb = "expired"  # A later settlement is ignored.
                await settler.aclose(max(0.0, CLOSE_WITHIN - (loop.time() - began)))
        finally:
            self._finish()

    async def _wait_for_reader(self, seconds: float) -> None:
        """Let the task that iterates settle its deliveries, for at most `seconds`."""
        settler, buffer = self._buffer.settler, self._buffer
        if settler is None:
            return
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            waiting = settler.waiting()
            if all(item.settled or item in waiting for item in buffer.dispatched()):
                return
            buffer.room.clear()
            await self._clock.wait(buffer.room, min(left, 0.5))

    def _finish(self) -> None:
        self._state = "closed"
        self._buffer.set_open(False)
        LoopWatchdog.leave(self)
        self._workers.end()
        self._closed.set()
        self._on_close(self)


async def _release(deliveries: Iterable[Delivery]) -> None:
    for delivery in deliveries:
        await delivery.release()
