"""`Workers`: the tasks that run a subscription's handler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from ..driver.clock import Clock
from ..logs import logger
from ..tasks import fault, supervise
from .buffer import DeliveryBuffer
from .delivery import Delivery, Handler, current, current_delivery
from .health import STUCK_AFTER, RunningHandlers
from .slow_handlers import SAMPLE_SECONDS, SlowHandlers

log = logger("anymq.consumer")

CANCEL_GRACE = 1.0
"""Seconds that a cancelled handler has to end."""
YIELD_EVERY = 250
"""The most messages that a worker handles in a row before it lets other tasks run."""
YIELD_SECONDS = 0.05
"""The longest time for which it does so, beside the message that it is handling."""
FAILED_BACKOFF = 1.0
"""Seconds until a message is redelivered whose middleware raised."""


class Workers:
    """Up to `count` tasks, each of which takes deliveries from the buffer and handles them.

    Without a handler there are none. `deadline` is the `Deadline` of the chain that the
    subscription enforces, in seconds; `limit` the shortest of the chain, whoever enforces it.
    """

    def __init__(
        self,
        buffer: DeliveryBuffer,
        clock: Clock,
        handler: Handler | None,
        *,
        batch_size: int,
        deadline: float | None,
        limit: float | None = None,
    ) -> None:
        self.handler = handler
        self.limit = limit
        self.count = 0
        self.cut_short = 0
        """Handlers that were cancelled because they outlasted the drain."""
        self._buffer = buffer
        self._tasks = buffer.handling
        self._clock = clock
        self._monotonic = clock.monotonic
        self._batch_size = batch_size
        self._deadline = deadline
        self._batches: dict[asyncio.Task[None], list[Delivery]] = {}
        self._yield_at = 0.0
        self._cancelled: dict[asyncio.Task[None], float] = {}
        """Workers whose handler was cancelled, and which continue, with the time of that."""
        self._timed_out: set[asyncio.Task[None]] = set()
        """Workers whose handler was cancelled for its `Deadline`."""
        self._slow = SlowHandlers(buffer.topic, buffer.group)
        self._overseer: asyncio.Task[None] | None = None

    def start(self, count: int) -> None:
        """Start `count` workers."""
        self.resize(count)
        if self.handler is not None:
            self._overseer = supervise(self._oversee(), name=f"anymq-overseer-{self._buffer.topic}")

    def resize(self, count: int) -> None:
        """Have `count` workers. Surplus ones end after the message that they are handling."""
        self.count = count
        if self._buffer.is_open:
            self._fill()
            self._buffer.wake_all()
        self._update_surplus()

    def _fill(self) -> None:
        while self.handler is not None and len(self._tasks) < self.count:
            name = f"anymq-worker-{self._buffer.topic}"
            task = supervise(self._work(self.handler), name=name, ended=self._replace)
            self._tasks[task] = None
            task.add_done_callback(self._remove)

    def _remove(self, worker: asyncio.Task[None]) -> None:
        self._tasks.pop(worker, None)
        self._update_surplus()

    def _update_surplus(self) -> None:
        self._buffer.set_surplus(len(self._tasks) > self.count)

    def _replace(self) -> None:
        """Replace the workers that have failed."""
        for worker in [worker for worker in self._tasks if worker.done()]:
            delivery = self._tasks.pop(worker)
            if delivery is not None:
                delivery.nack_if_unsettled(FAILED_BACKOFF)
        if self._buffer.is_open:
            self._fill()

    # Handling.

    async def _work(self, handler: Handler) -> None:
        me = asyncio.current_task()
        assert me is not None
        handling, count = self._tasks, 0
        while True:
            count += 1
            delivery = self._take_now() if count % YIELD_EVERY else None
            if delivery is None:
                handling[me] = None
                current.set(None)
                if not count % YIELD_EVERY or self._monotonic() > self._yield_at:
                    await asyncio.sleep(0)  # Handlers may never wait: let other tasks run.
                delivery = await self._buffer.take()
                self._yield_at = self._monotonic() + YIELD_SECONDS
                if delivery is None:
                    break
            handling[me] = delivery
            current.set(delivery)
            try:
                await handler(delivery)
            except BaseException as error:
                await self._chain_raised(delivery, error, me)
            if self._cancelled and me in self._cancelled:
                del self._cancelled[me]
                self._timed_out.discard(me)
                me.uncancel()
        self._remove(me)

    def _take_now(self) -> Delivery | None:
        """Return the next delivery if it can be dispatched without waiting."""
        buffer = self._buffer
        queue, settler = buffer.queue, buffer.settler
        if not queue or not buffer.flows or settler is None or not queue[0].cached_attempt:
            return None
        now = self._monotonic()
        if now > settler.good_until or now > self._yield_at:
            return None
        return queue.popleft()

    async def _chain_raised(
        self, delivery: Delivery, error: BaseException, worker: asyncio.Task[None]
    ) -> None:
        """Redeliver a message whose middleware raised; raises if the worker was cancelled."""
        if isinstance(error, asyncio.CancelledError) and worker.cancelling():
            if not delivery.settled:
                await delivery.release()
            if worker.cancelling() > (worker in self._cancelled):
                self._cancelled.pop(worker, None)
                raise error
            return
        fault(error, "the handler chain")
        log.error(
            "handler chain of %s (group %s) failed; its message is redelivered",
            delivery.topic,
            delivery.group,
            exc_info=error,
        )
        delivery.nack_if_unsettled(FAILED_BACKOFF)

    def note_batch(self, task: asyncio.Task[None], deliveries: Sequence[Delivery]) -> None:
        """Note that `task` handles the batch of `deliveries`."""
        self._batches[task] = list(deliveries)
        task.add_done_callback(self._batches.pop)

    # Deadlines.

    async def _oversee(self) -> None:
        """Report handlers that take far too long, and cancel those over their `Deadline`."""
        before = 0
        while True:
            await self._clock.sleep(max(SAMPLE_SECONDS, self._clock.poll))
            settled = self._buffer.settled_count
            running = [item for item in self._tasks.values() if item is not None]
            if self._batch_size > 1:  # The others wait for their batch to fill up.
                running = [item for batch in self._batches.values() for item in batch]
            self._slow.look(running, settled - before, self._clock.monotonic())
            before = settled
            if self._deadline is not None:
                self._time_out(set(self._slow.running_for(self._deadline)))

    def _time_out(self, late: set[Delivery]) -> None:
        """Cancel the handlers of `late`; `Deadline` turns that into failed attempts."""
        for task, delivery in list(self._tasks.items()):
            if delivery in late:
                self._slow.restart(delivery)
                self._note_cancelled(task)
                self._timed_out.add(task)
                task.cancel()

    def _note_cancelled(self, worker: asyncio.Task[None]) -> None:
        self._cancelled.setdefault(worker, self._clock.monotonic())

    def begin_attempt(self, delivery: Delivery) -> None:
        """Restart the time that is measured for `delivery`."""
        self._slow.restart(delivery)

    def has_timed_out(self) -> bool:
        """Whether the current task was cancelled for its `Deadline`; if so, uncancel it."""
        task = asyncio.current_task()
        if task is None or task not in self._timed_out:
            return False
        self._timed_out.discard(task)
        self._cancelled.pop(task, None)
        return task.uncancel() == 0

    # Ending handlers.

    async def cancel(self, deliveries: set[Delivery]) -> None:
        """Cancel the handlers of `deliveries`. Their workers continue with others."""
        for task, item in list(self._tasks.items()):
            if item in deliveries:
                self._note_cancelled(task)
                task.cancel()
        until = self._clock.monotonic() + CANCEL_GRACE
        while any(item in deliveries for item in self._tasks.values()):
            if self._clock.monotonic() > until:
                log.warning(
                    "a handler of %s (group %s) did not end after its cancellation",
                    self._buffer.topic,
                    self._buffer.group,
                )
                return
            await asyncio.sleep(0.005)

    def cancel_all(self) -> None:
        """Cancel every worker."""
        for task in list(self._tasks):
            task.cancel()

    async def stop(self, drain_timeout: float) -> None:
        """Return when all workers have ended. After `drain_timeout` seconds, cancel them."""
        if not self._tasks:
            return
        running = set(self._tasks)
        if drain_timeout > 0:
            _, running = await asyncio.wait(running, timeout=drain_timeout)
        self.cut_short = sum(self._tasks.get(task) is not None for task in running)
        for task in running:
            task.cancel()
        if running:
            _, stuck = await asyncio.wait(running, timeout=CANCEL_GRACE)
            for task in stuck:
                log.warning(
                    "%s did not end after its cancellation; closing without it", task.get_name()
                )

    def end(self) -> None:
        """Stop overseeing: the subscription is closed."""
        if self._overseer is not None:
            self._overseer.cancel()

    # Who handles what.

    def handles_caller(self) -> bool:
        """Whether a handler of these workers makes this call."""
        delivery = current_delivery()
        handled_here = delivery is not None and delivery in self._tasks.values()
        return handled_here or asyncio.current_task() in self._tasks

    def handled_by(self, task: asyncio.Task[Any]) -> Delivery | None:
        """Return a delivery that `task` handles, if it does. Safe from other threads."""
        return self._tasks.get(task) or next(iter(self._batches.get(task, ())), None)

    def running(self) -> RunningHandlers:
        """Return what is known of the handlers that run now."""
        now, limit = self._clock.monotonic(), self.limit
        handled: list[tuple[asyncio.Task[None], Delivery]] = (
            [(task, items[0]) for task, items in self._batches.items() if items]
            if self._batch_size > 1
            else [(task, item) for task, item in self._tasks.items() if item is not None]
        )
        oldest, overdue, stuck = 0.0, 0, 0
        for task, delivery in handled:
            seconds = self._slow.seconds(delivery, now)
            late = None if limit is None else seconds - limit
            if (cancelled := self._cancelled.get(task)) is not None:
                late = now - cancelled
                seconds = late + (limit or 0.0)
            oldest = max(oldest, seconds)
            overdue += late is not None and late > 0
            stuck += late is not None and late > STUCK_AFTER
        return RunningHandlers(count=len(handled), oldest=oldest, overdue=overdue, stuck=stuck)

    def handled(self) -> Iterable[Delivery]:
        """Return the deliveries in handlers. Safe from other threads."""
        return [item for item in list(self._tasks.values()) if item is not None]
