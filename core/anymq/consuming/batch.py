"""`Batch`: a handler that takes lists. Deliveries join one, and each learns its own outcome."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..driver.clock import REAL
from ..errors import ConfigurationError, RetryAfter
from ..tasks import supervise
from .delivery import Delivery, current

if TYPE_CHECKING:
    from .subscription import Subscription

Run = Callable[[Sequence[Delivery], Sequence[Any]], Coroutine[Any, Any, None]]
"""The function: takes the deliveries of a batch and their payloads, in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Up to `size` messages at a time, or what has come `wait` seconds after the first of them.

    The handler's parameters are lists then, `list[Order]`, `list[Delivery]` or `list[Message]`: of
    the same length, in the same order. It runs at most `concurrency` times side by side. Each
    message is settled by itself, through the whole middleware: all have succeeded when the
    function returns and failed when it raises, except those it settled by hand and those that
    `BatchError` speaks of. A body that does not validate is rejected alone and joins no batch.

    A subscription that drains or is paused does not wait: what has come runs at once. On an
    ordered one a batch holds one message a key. Attempts and `Deadline` count for each message,
    the deadline from when it joins; a message that runs out of time cuts the batch short, and all
    of it has failed. What the function publishes carries no correlation: it has many causes.
    """

    size: int = 100
    wait: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1 or self.wait < 0:
            raise ConfigurationError("Batch: size must be at least 1, wait not negative")


class BatchError(Exception):
    """Raise in a batch handler: these have failed, each with its own error; the others succeeded.

    The keys are deliveries, or their places in the list. The errors mean what they mean elsewhere:
    `Reject`, `RetryAfter`, anything else is a failed attempt.
    """

    def __init__(self, errors: Mapping[Delivery | int, Exception]) -> None:
        super().__init__(f"{len(errors)} of a batch failed")
        self.errors = dict(errors)


class Gathering:
    """One batch on its way: filling, waiting for its turn, or running."""

    __slots__ = ("cut_by", "due", "members", "payloads", "task", "timers")

    def __init__(self) -> None:
        self.members: dict[Delivery, asyncio.Future[None]] = {}
        self.payloads: dict[Delivery, Any] = {}
        self.timers: list[asyncio.Task[None]] = []
        self.due = False
        self.task: asyncio.Task[None] | None = None
        self.cut_by: Delivery | None = None


class Collector:
    """The innermost handler of a batch subscription: gathers, runs, and tells each its outcome."""

    def __init__(self, batch: Batch, run: Run) -> None:
        self._batch = batch
        self._run = run
        self._open: Gathering | None = None
        self._full: deque[Gathering] = deque()
        self._running = 0

    async def join(self, delivery: Delivery, payload: Any) -> None:
        """Return when the batch that `delivery` joins has handled it; raise what became of it."""
        gathering = self._open
        if gathering is None:
            gathering = self._open = Gathering()
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gathering.members[delivery] = outcome
        gathering.payloads[delivery] = payload
        if len(gathering.members) >= self._batch.size:
            self._full.append(gathering)
            self._open = None
            self._start(delivery.subscription)
        elif len(gathering.members) == 1 or delivery.clock is not REAL:
            # A clock that tests move wants to know of everyone who waits for time to pass.
            timer = supervise(self._expire(gathering, delivery), name="anymq-batch-wait")
            gathering.timers.append(timer)
        try:
            await outcome
        except asyncio.CancelledError:
            await self._leave(gathering, delivery)
            raise

    async def _expire(self, gathering: Gathering, delivery: Delivery) -> None:
        clock, subscription = delivery.clock, delivery.subscription
        until = clock.monotonic() + self._batch.wait
        while not (subscription.closing or subscription.paused):
            left = until - clock.monotonic()
            if left <= 0:
                break
            await clock.sleep(min(left, clock.poll))
        gathering.due = True
        self._start(subscription)

    def _start(self, subscription: Subscription) -> None:
        """Run what is due, as far as the subscription's concurrency goes."""
        while self._running < subscription.concurrency:
            if self._full:
                gathering = self._full.popleft()
            elif self._open is not None and self._open.due:
                gathering, self._open = self._open, None
            else:
                return
            self._begin(gathering, subscription)

    def _begin(self, gathering: Gathering, subscription: Subscription) -> None:
        for timer in gathering.timers:
            timer.cancel()
        context = copy_context()
        context.run(current.set, None)
        gathering.task = asyncio.create_task(
            self._run(list(gathering.members), list(gathering.payloads.values())),
            name="anymq-batch",
            context=context,
        )
        subscription.note_batch(gathering.task, gathering.members)
        self._running += 1

        def finish(task: asyncio.Task[None]) -> None:
            self._running -= 1
            _tell(gathering, task)
            self._start(subscription)

        gathering.task.add_done_callback(finish)

    async def _leave(self, gathering: Gathering, delivery: Delivery) -> None:
        """`delivery` was cancelled: take it out, or end the function that works on it."""
        task = gathering.task
        if task is not None:
            if not task.done():
                gathering.cut_by = gathering.cut_by or delivery
                task.cancel()
                await asyncio.wait((task,))
            return
        del gathering.members[delivery], gathering.payloads[delivery]
        if not gathering.members:
            for timer in gathering.timers:
                timer.cancel()
            if gathering is self._open:
                self._open = None
            else:
                self._full.remove(gathering)


def _tell(gathering: Gathering, task: asyncio.Task[None]) -> None:
    """Give every member its outcome; those that the function settled are done with."""
    error = _cut_short(gathering.cut_by) if task.cancelled() else task.exception()
    each = _each(error, list(gathering.members)) if isinstance(error, BatchError) else None
    for member, outcome in gathering.members.items():
        reason = error if each is None else each.get(member)
        if outcome.done():
            continue
        if reason is None or member.settled:
            outcome.set_result(None)
        else:
            outcome.set_exception(_settable(reason))


def _settable(reason: object) -> Exception:
    """Return `reason` as what a future takes: not `StopIteration`, nor what is no error at all."""
    if isinstance(reason, Exception) and not isinstance(reason, StopIteration):
        return reason
    error = RuntimeError(f"the batch handler failed with {type(reason).__name__}")
    error.__cause__ = reason if isinstance(reason, BaseException) else None
    return error


def _each(error: BatchError, deliveries: Sequence[Delivery]) -> dict[Delivery, BaseException]:
    """Return the error of each delivery that failed: all of them, if `error` names a stranger."""
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
    """Say what it means to the others that the member `by` was cancelled."""
    if by is None:
        return RuntimeError("the batch was cancelled by itself")
    if by.settled or by.subscription.closing:
        return RetryAfter(0.0, "the batch was interrupted", counted=False)
    return TimeoutError("the batch was cut short: the time of one of its messages was up")
