"""`Subscription`: the consumer engine. Fetches within its credit, hands out, drains."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Self

from .credit import Credit
from .delivery import Delivery, current
from .driver import Received, Source, SourceLost
from .errors import ConfigurationError, StateError, TransientError
from .session import Context, Session

if TYPE_CHECKING:
    from .clock import Clock
    from .middleware import Handler

log = logging.getLogger("anymq.consumer")

HUNG = 30.0
FAILURES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
CANCEL_GRACE = 1.0


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
    """

    def __init__(
        self,
        *,
        open_source: Callable[[int], Awaitable[Source]],
        context: Context,
        clock: Clock,
        handler: Handler | None,
        concurrency: int,
        prefetch: int | None,
        drain_timeout: float,
        open_timeout: float,
        on_close: Callable[[Subscription], None],
    ) -> None:
        if concurrency < 1:
            raise ConfigurationError("concurrency must be at least 1")
        if prefetch is not None and prefetch < 1:
            raise ConfigurationError("prefetch must be at least 1")
        self._open_source = open_source
        self._context = context
        self._context.settled = self._settled
        self._context.redeliver = self._redeliver
        self._clock = clock
        self._handler = handler
        self._concurrency = concurrency
        self._drain_timeout = drain_timeout
        self._open_timeout = open_timeout
        self._on_close = on_close
        self._credit = Credit(concurrency=concurrency, fixed=prefetch)
        self._buffer: deque[Delivery] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._room = asyncio.Event()
        self._session: Session | None = None
        self._generation = 0
        self._fetcher: asyncio.Task[None] | None = None
        self._workers: list[asyncio.Task[None]] = []
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
    def in_flight(self) -> int:
        """How many messages this subscription holds whose settlement has not been sent yet."""
        return self._credit.held

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise StateError("a subscription can be entered once; call subscribe() again")
        self._state = "open"
        try:
            await self._open_within(self._open_timeout)
        except BaseException:
            self._state = "closed"
            self._closed.set()
            self._on_close(self)
            raise
        self._fetcher = asyncio.create_task(self._fetch(), name=f"anymq-fetch-{self.topic}")
        if self._handler is not None:
            self._workers = [
                asyncio.create_task(self._work(self._handler), name=f"anymq-worker-{self.topic}")
                for _ in range(self._concurrency)
            ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
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
        """Drain and close, see the class. Calling it twice, or from two tasks, is harmless."""
        if self._state in ("closing", "closed") or self._state == "new":
            if self._state == "new":
                self._state = "closed"
                self._closed.set()
                self._on_close(self)
            await self._closed.wait()
            return
        self._state = "closing"
        closing = asyncio.ensure_future(self._drain())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            for worker in self._workers:
                worker.cancel()
            await asyncio.wait((closing,))
            raise

    async def _drain(self) -> None:
        try:
            self._room.set()
            await self._stop_fetching()
            for delivery in self._buffer:
                await delivery.release()
            self._buffer.clear()
            self._wake(len(self._waiters))
            await self._stop_workers()
            if self._session is not None:
                for delivery in self._session.unsettled:
                    await delivery.release()
                await self._session.aclose()
        finally:
            self._state = "closed"
            self._closed.set()
            self._on_close(self)

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
        while (delivery := await self._take()) is not None:
            token = current.set(delivery)
            try:
                await handler(delivery)
            except asyncio.CancelledError:
                if not delivery.settled:
                    await delivery.release()
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
            except Exception:
                log.exception("the handler chain of %s failed", self.topic)
                if not delivery.settled:
                    await delivery.nack(1.0)
            finally:
                current.reset(token)

    async def _take(self) -> Delivery | None:
        while not self._buffer:
            if self._state != "open":
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake(1)  # pass it on: this one was woken and will not take
                raise
        if self._state != "open":
            return None
        return self._buffer.popleft()

    def _wake(self, count: int) -> None:
        waiters = self._waiters
        while count > 0 and waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def _settled(self, size: int) -> None:
        self._credit.give(size)
        self._room.set()

    def _redeliver(self, delivery: Delivery) -> None:
        self._credit.take(len(delivery.received.body))
        self._buffer.append(delivery)
        self._wake(1)

    # Fetching.

    async def _fetch(self) -> None:
        failures = 0
        poll = self._clock.poll
        while self._state == "open":
            session = self._session
            assert session is not None
            limit = await self._limit()
            if self._state != "open":
                return
            try:
                if session.broken:
                    raise SourceLost("a settlement could not be sent")
                async with asyncio.timeout(poll + HUNG):
                    records = await session.source.receive(limit, poll if limit else 0.0)
            except Exception as raw:
                failures += 1
                await self._recover(session, raw, failures)
                continue
            failures = 0
            self._accept(session, records, limit)

    async def _limit(self) -> int:
        """Return how many to fetch now; 0 after a while without room, to keep the session alive."""
        credit = self._credit
        if credit.room >= max(1, credit.window // 4) or (credit.room > 0 and not self._buffer):
            return credit.room
        self._room.clear()
        await self._clock.wait(self._room, 1.0)
        return max(0, credit.room)

    def _accept(self, session: Session, records: Sequence[Received], limit: int) -> None:
        credit, buffer = self._credit, self._buffer
        starved = not buffer
        if records:
            for record in records:
                credit.take(len(record.body))
            buffer.extend(session.hold(records))
            self._wake(len(records))
        oldest = self._clock.monotonic() - buffer[0].fetched if buffer else 0.0
        credit.fetched(full=0 < limit <= len(records), starved=starved, oldest_wait=oldest)

    async def _recover(self, session: Session, raw: Exception, failures: int) -> None:
        error: BaseException = raw
        if isinstance(raw, SourceLost):
            error = raw.__cause__ if isinstance(raw.__cause__, Exception) else raw
        elif not isinstance(raw, TimeoutError):
            error = self._translated(raw)
        log.warning("receiving from %s failed, going on: %s", self.topic, error)
        log.debug("the cause", exc_info=raw)
        pause = min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE)
        hung = isinstance(raw, TimeoutError)
        if not (isinstance(raw, SourceLost) or hung or failures >= FAILURES):
            await self._pause(pause)
            return
        self._purge(session)
        await session.aclose()
        while self._state == "open":
            try:
                await self._open()
            except Exception as again:
                log.warning(
                    "subscribing to %s again failed: %s", self.topic, self._translated(again)
                )
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                log.info("subscribed to %s again", self.topic)
                return

    def _purge(self, session: Session) -> None:
        """Forget what is buffered from a lost source: it will be delivered again."""
        kept = [delivery for delivery in self._buffer if not delivery.belongs_to(session)]
        self._buffer = deque(kept)

    async def _pause(self, seconds: float) -> None:
        await self._clock.sleep(seconds * random.uniform(0.5, 1))

    async def _open_within(self, seconds: float) -> None:
        """Open the first source; what may pass, as a server that is just starting, is repeated."""
        until = self._clock.monotonic() + seconds
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._open()
            except TransientError as error:
                if self._clock.monotonic() + pause > until:
                    raise
                log.debug("%s; trying again", error)
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _open(self) -> None:
        self._generation += 1
        try:
            source = await self._open_source(self._generation)
        except Exception as raw:
            translated = self._translated(raw)
            if translated is raw:
                raise
            raise translated from translated.__cause__
        self._session = Session(source, self._context)

    def _translated(self, raw: Exception) -> BaseException:
        return self._context.translate(raw, f"subscribe to {self.topic}")
