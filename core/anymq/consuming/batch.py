"""`Batch`: a handler that takes lists, in which each delivery has its own outcome."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from ..driver.clock import REAL
from ..errors import ConfigurationError, RetryAfter
from ..tasks import supervise
from .delivery import Consumer, Delivery, current

Run = Callable[[Sequence[Delivery], Sequence[Any]], Coroutine[Any, Any, None]]
"""The function: takes the deliveries of a batch and their payloads, in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch: up to `size` messages, or those that arrive within `wait` seconds of the first.

    The handler's parameters are lists, `list[Order]`, `list[Delivery]` or `list[Message]`, of the
    same length, in the same order. It runs at most `concurrency` times side by side.

    Each message is settled by itself, through the whole middleware. All have succeeded when the
    function returns, and failed when it raises, except those it settled by hand and those that
    `BatchError` names. A body that does not validate is rejected alone and joins no batch.

    A subscription that drains or is paused does not wait: the batch runs at once. In an ordered
    subscription, a batch holds one message of a key. Attempts and `Deadline` count for each
    message, the deadline from when it joins. A message that exceeds its deadline ends the batch,
    and all of its messages have failed. Messages that the function publishes carry no correlation,
    because they have many causes.
    """

    size: int = 100
    wait: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1 or self.wait < 0:
            raise ConfigurationError("Batch: size must be at least 1, wait not negative")


class BatchError(Exception):
    """Raise it in a batch handler: these messages failed, each with its error; others succeeded.

    The keys are deliveries, or their indexes in the list. `Reject` and `RetryAfter` work as
    elsewhere; any other error is a failed attempt.
    """

    def __init__(self, errors: Mapping[Delivery | int, Exception]) -> None:
        super().__init__(f"{len(errors)} of a batch failed")
        self.errors = dict(errors)


class PendingBatch:
    """A batch that is filling, waiting for its turn, or running."""

    __slots__ = ("cut_by", "due", "members", "payloads", "task", "timers")

    def __init__(self) -> None:
        self.members: dict[Delivery, asyncio.Future[None]] = {}
        self.payloads: dict[Delivery, Any] = {}
        self.timers: list[asyncio.Task[None]] = []
        self.due = False
        self.task: asyncio.Task[None] | None = None
        self.cut_by: Delivery | None = None


class Collector:
    """The innermost handler of a batch subscription: collects deliveries, and runs the function."""

    def __init__(self, batch: Batch, run: Run) -> None:
        self._batch = batch
        self._run = run
        self._open: PendingBatch | None = None
        self._full: deque[PendingBatch] = deque()
        self._running = 0

    async def join(self, delivery: Delivery, payload: Any) -> None:
        """Add `delivery` to a batch, and return when that has handled it; raises its error."""
        pending = self._open
        if pending is None:
            pending = self._open = PendingBatch()
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pending.members[delivery] = outcome
        pending.payloads[delivery] = payload
        if len(pending.members) >= self._batch.size:
            self._full.append(pending)
            self._open = None
            self._start(delivery.subscription)
        elif len(pending.members) == 1 or delivery.clock is not REAL:
            # A virtual clock must know every task that waits for time to pass.
            timer = supervise(self._expire(pending, delivery), name="anymq-batch-wait")
            pending.timers.append(timer)
        try:
            await outcome
        except asyncio.CancelledError:
            await self._leave(pending, delivery)
            raise

    async def _expire(self, pending: PendingBatch, delivery: Delivery) -> None:
        clock, consumer = delivery.clock, delivery.subscription
        until = clock.monotonic() + self._batch.wait
        while not (consumer.closing or consumer.paused):
            left = until - clock.monotonic()
            if left <= 0:
                break
            await clock.sleep(min(left, clock.poll))
        pending.due = True
        self._start(consumer)

    def _start(self, consumer: Consumer) -> None:
        """Run the due batches, up to the subscription's concurrency."""
        while self._running < consumer.concurrency:
            if self._full:
                pending = self._full.popleft()
            elif self._open is not None and self._open.due:
                pending, self._open = self._open, None
            else:
                return
            self._begin(pending, consumer)

    def _begin(self, pending: PendingBatch, consumer: Consumer) -> None:
        for timer in pending.timers:
            timer.cancel()
        context = copy_context()
        context.run(current.set, None)
        pending.task = asyncio.create_task(
            self._run(list(pending.members), list(pending.payloads.values())),
            name="anymq-batch",
            context=context,
        )
        consumer.note_batch(pending.task, list(pending.members))
        self._running += 1

        def finish(task: asyncio.Task[None]) -> None:
            self._running -= 1
            _set_outcomes(pending, task)
            self._start(consumer)

        pending.task.add_done_callback(finish)

    async def _leave(self, pending: PendingBatch, delivery: Delivery) -> None:
        """Remove a cancelled delivery, or end the function that handles it."""
        task = pending.task
        if task is not None:
            if not task.done():
                pending.cut_by = pending.cut_by or delivery
                task.cancel()
                await asyncio.wait((task,))
            return
        del pending.members[delivery], pending.payloads[delivery]
        if not pending.members:
            for timer in pending.timers:
                timer.cancel()
            if pending is self._open:
                self._open = None
            else:
                self._full.remove(pending)


def _set_outcomes(pending: PendingBatch, task: asyncio.Task[None]) -> None:
    """Set the outcome of every member; those that the function settled have succeeded."""
    error = _cut_short(pending.cut_by) if task.cancelled() else task.exception()
    each = _each(error, list(pending.members)) if isinstance(error, BatchError) else None
    for member, outcome in pending.members.items():
        reason = error if each is None else each.get(member)
        if outcome.done():
            continue
        if reason is None or member.settled:
            outcome.set_result(None)
        else:
            outcome.set_exception(_settable(reason))


def _settable(reason: object) -> Exception:
    """Return `reason` as an exception that a future accepts: not `StopIteration`."""
    if isinstance(reason, Exception) and not isinstance(reason, StopIteration):
        return reason
    error = RuntimeError(f"the batch handler failed with {type(reason).__name__}")
    error.__cause__ = reason if isinstance(reason, BaseException) else None
    return error


def _each(error: BatchError, deliveries: Sequence[Delivery]) -> dict[Delivery, BaseException]:
    """Return the error of each failed delivery: of all, if `error` names one outside the batch."""
    errors: dict[Delivery, BaseException] = {}
    for key, reason in error.errors.items():
        member = key
        if isinstance(key, int) and 0 <= key < len(deliveries):
            member = deliveries[key]
        if not isinstance(member, Delivery) or member not in deliveries:
            unknown = ConfigurationError(f"BatchError names {key!r}, which is not in the batch")
            unknown.__cause__ = error
            return dict.fromkeys(deliveries, unknown)
        errors[member] = reason
    return errors


def _cut_short(by: Delivery | None) -> BaseException:
    """Return the error of the other members when the member `by` was cancelled."""
    if by is None:
        return RuntimeError("the batch was cancelled by itself")
    if by.settled or by.subscription.closing:
        return RetryAfter(0.0, "the batch was interrupted", counted=False)
    return TimeoutError("the batch was ended: one of its messages exceeded its deadline")
