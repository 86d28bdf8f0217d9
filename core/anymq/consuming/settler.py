"""`BaseSettler`: one source, its in-flight deliveries, and the settlements queued for it."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from ..driver.records import Received, Rejected, attempt_of
from ..driver.source import Reader
from ..errors import ConnectionLost, StateError, TransientError
from ..logs import logger
from ..tasks import fault, supervise
from ..wire.dead_letter_headers import letter_for
from .context import ConsumerContext
from .dead_letter_writer import DeadLetterWriter, PendingLetter
from .delivery import Consumer, Delivery
from .options import SubscribeOptions

log = logger("anymq.consumer")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts of a settlement call."""
CLOSE_GRACE = 2.5
"""Seconds that closing leaves to the settlements, and to the source."""
CANCEL_GRACE = 1.0
"""Seconds that cancelled tasks have to end; a remaining one would use a closed source."""
MIN_CLOSE_SECONDS = 0.2
"""Seconds that closing a source has in any case."""
CALL_TIMEOUT = 30.0
"""Seconds after which a settlement call is given up, together with its source."""


class Inbox(Protocol):
    """The buffer of a subscription, as its settler sees it."""

    def settled(self, count: int, size: int) -> None:
        """`count` deliveries, with bodies of `size` bytes in all, are no longer held."""

    def redeliver(self, delivery: Delivery) -> None:
        """Dispatch a delivery that is redelivered from this process's memory."""

    def freed(self, delivery: Delivery) -> None:
        """Open the key of a settled delivery (ordered only)."""

    def kept(self, delivery: Delivery, again: Delivery) -> None:
        """Let `again` hold the key of `delivery`, which failed (ordered only)."""

    def again(self, delivery: Delivery) -> None:
        """Dispatch a kept delivery, whose backoff has ended (ordered only)."""

    def stop_key(self, delivery: Delivery, reason: str) -> None:
        """Note that `delivery` holds up its key until it is restarted (ordered only)."""

    def expire(self) -> None:
        """Drop the buffered deliveries that may belong to another member by now."""

    def note_late(self, deliveries: Sequence[Delivery], attempt: int) -> None:
        """Note settlements of which the broker may not have heard."""

    def dispatched(self) -> Iterable[Delivery]:
        """Return the deliveries in handlers, or with the task that iterates."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlerSettings:
    """The subscription that a settler serves, and the parts of its broker."""

    options: SubscribeOptions
    context: ConsumerContext
    consumer: Consumer
    inbox: Inbox


R = TypeVar("R", bound=Reader)


class BaseSettler(ABC, Generic[R]):
    """One source, its in-flight deliveries, and the settlements queued for it.

    `Delivery` methods queue a settlement and return. A flusher sends everything queued during its
    previous call in one batch. Transient errors are retried until the lease would expire. When the
    source is lost, unsettled deliveries are discarded, because the broker redelivers them.
    """

    def __init__(self, source: R, settings: SettlerSettings) -> None:
        context, consumer = settings.context, settings.consumer
        self.source = source
        self.topic = consumer.topic
        self.group = consumer.group
        self.consumer = consumer
        self.binding = context.driver.binding
        self.clock = context.clock
        self.stores = context.stores
        self.replies = context.replies
        self.lost = False
        """Whether the source has been closed."""
        self.broken = False
        """Whether the subscription must open another source, because of `why_broken`."""
        self.why_broken = "a settlement could not be sent"
        self.good_until = math.inf
        """The monotonic time until which everything held here certainly belongs to this member.
        After it, `expired` returns the deliveries that are left."""
        self._context = context
        self._inbox = settings.inbox
        self._ack_deadline = settings.options.ack_deadline
        self._auto_extend = settings.options.auto_extend
        self._held: dict[Delivery, None] = {}
        self._acks: list[Received] = []
        self._rejects: list[PendingLetter] = []
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._flushing = False
        self._timers: dict[asyncio.Task[None], Delivery | None] = {}
        self._letters = DeadLetterWriter(
            self._write_letters, binding=self.binding, clock=self.clock, forget=self._forget
        )
        self._tasks = [
            supervise(self._flusher(), name="anymq-settle", ended=self.end),
            supervise(self._letters.run(), name="anymq-letters", ended=self.end),
        ]

    @property
    def owner(self) -> Self:
        """See `Settler`."""
        return self

    def hold(self, records: Sequence[Received], since: float | None = None) -> list[Delivery]:
        """Return deliveries for `records`. Each is held until it is settled.

        Their leases may have started at `since`, a monotonic time; by default they start now.
        """
        now = self.clock.monotonic() if since is None else since
        deliveries = [Delivery(record, self, now) for record in records]
        self._held.update(dict.fromkeys(deliveries))
        return deliveries

    @property
    def unsettled(self) -> list[Delivery]:
        """The deliveries that no method has settled yet, oldest first."""
        return list(self._held)

    def waiting(self) -> set[Delivery]:
        """Return the deliveries whose next attempt waits in this process."""
        return {delivery for delivery in self._timers.values() if delivery is not None}

    def attempt_of(self, delivery: Delivery) -> int:
        """Return the number of the attempt. Unless a start may count, it is fixed from now on."""
        delivery.set_attempt(attempt_of(delivery.received))
        return delivery.cached_attempt

    async def begin(self, delivery: Delivery) -> bool:
        """Count the start of a handler if needed; False if the message is lost."""
        delivery.set_attempt(attempt_of(delivery.received))
        return True

    # Settlement methods: a delivery calls one of them once.

    def ack(self, delivery: Delivery) -> None:
        """Queue an acknowledgement."""
        if self._held.pop(delivery, self) is None:
            self._acks.append(delivery.received)
            if not self._flushing:
                self._start_flush()
        else:
            self._settled_late([delivery])

    @abstractmethod
    def nack(self, delivery: Delivery, delay: float, attempt: int) -> None:
        """Have the next attempt, number `attempt`, not before `delay` seconds."""

    @abstractmethod
    def release(self, delivery: Delivery) -> None:
        """Return the delivery uncounted."""

    def reject(
        self,
        delivery: Delivery,
        reason: str,
        error: BaseException | None,
        topic: str | None,
        with_traceback: bool,
    ) -> None:
        """Queue a dead letter."""
        if delivery in self._held:
            letter = letter_for(
                delivery.message,
                self.binding,
                group=self.group,
                attempt=delivery.attempt,
                position=delivery.position,
                reason=reason,
                error=error,
                with_traceback=with_traceback,
                topic=topic,
                now=self.clock.now(),
            )
            del self._held[delivery]
            self._rejects.append(PendingLetter(delivery, Rejected(delivery.received, letter)))
            self._start_flush()
            self._free(delivery)

    def stop(self, delivery: Delivery, reason: str) -> None:
        """Stop the key of `delivery`; only an `OrderedSettler` can."""
        raise StateError("only an ordered subscription has keys that can be stopped")

    def restart(self, delivery: Delivery) -> None:
        """Dispatch a stopped delivery again, as the first attempt."""
        raise StateError("only an ordered subscription has keys that can be restarted")

    def wait_out(self, delivery: Delivery) -> None:
        """Dispatch `delivery` when the backoff ends that an earlier owner of it began."""
        raise StateError("only an ordered subscription delivers messages before they are due")

    def abandon(self, delivery: Delivery) -> None:
        """Drop a delivery that cannot be settled; its lease or another source redelivers it."""
        log.exception(
            "message at %s of %s (group %s) cannot be redelivered; opening another source",
            delivery.received.position,
            self.topic,
            self.group,
        )
        if delivery in self._held:
            del self._held[delivery]
            delivery.verb = "expired"
            self._inbox.settled(1, len(delivery.received.body))
            self._free(delivery)
            self.broken = True

    def discard(self, unwanted: Callable[[Delivery], bool]) -> None:
        """Drop matching deliveries unsettled; the partition's next owner delivers them again."""
        for delivery in [item for item in self._held if unwanted(item)]:
            if delivery.verb in (None, "stop"):
                delivery.verb = "expired"
            del self._held[delivery]
            self._inbox.settled(1, len(delivery.received.body))
        self._letters.drop(unwanted)
        for timer, waiting in list(self._timers.items()):
            if waiting is not None and unwanted(waiting):
                timer.cancel()

    # Leases: see `MemberSettler`. A broadcast delivery belongs to its subscription for good.

    def expired(self, waiting: Iterable[Delivery]) -> list[Delivery]:
        """Return the deliveries of `waiting` that may belong to another member by now.

        Called when `good_until` has passed: this process or its event loop stalled, or the leases
        could not be renewed.
        """
        return []

    def is_expired(self, delivery: Delivery) -> bool:
        """Whether the lease, session or connection of `delivery` may have ended by now."""
        return False

    def drop_expired(self, deliveries: Sequence[Delivery]) -> None:
        """Leave expired deliveries, see `expired`, to the other members."""

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Renew the leases of `deliveries`."""

    def extend_apart(self, deliveries: Iterable[Delivery]) -> None:
        """Renew leases while the event loop is blocked: called from another thread."""

    def may_be_again(self, received: Received) -> bool:
        """Whether `received` may have been delivered to this group before."""
        return True

    # Closing.

    async def flushed(self) -> None:
        """Return when the settlements so far have been sent, or the time for it has passed."""
        await self._bounded(self._quiet.wait(), "settling")

    async def aclose(self, within: float = 2 * CLOSE_GRACE) -> None:
        """Send the queued settlements, discard the rest, and close the source."""
        until = asyncio.get_running_loop().time() + within
        await self._bounded(self._quiet.wait(), "settling", min(CLOSE_GRACE, within))
        self.lost = True
        self._discard_queued()
        for task in (*self._tasks, *self._timers):
            task.cancel()
        await asyncio.wait((*self._tasks, *self._timers), timeout=CANCEL_GRACE)
        left = max(MIN_CLOSE_SECONDS, until - asyncio.get_running_loop().time())
        await self.close_source(min(CLOSE_GRACE, left))

    async def close_source(self, within: float | None = None) -> None:
        """Close the source alone, in `within` seconds (default: `CLOSE_GRACE`)."""
        await self._bounded(self.source.aclose(), "closing the source", within)

    def end(self) -> None:
        """Have the subscription open another source: a task of this one has ended."""
        self.broken = True

    def _discard_queued(self) -> None:
        self._forget([delivery.received for delivery in self._held])
        self._held.clear()
        self._forget(self._acks)
        self._acks = []
        self._forget([item.rejected.received for item in self._rejects])
        self._rejects = []
        self._letters.drop(lambda _: True)

    # Sending.

    def _start_flush(self) -> None:
        self._flushing = True
        self._quiet.clear()
        self._wake.set()

    async def _flusher(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._has_queued():
                    await self._flush()
            except BaseException as raw:
                fault(raw, "settling")
                self.broken = True
                log.exception(
                    "settling on %s (group %s) failed; its messages are redelivered",
                    self.topic,
                    self.group,
                )
            if not self._wake.is_set():
                self._flushing = False
                self._quiet.set()

    def _has_queued(self) -> bool:
        return bool(self._acks or self._rejects)

    @abstractmethod
    async def _flush(self) -> None:
        """Send the queued settlements, each kind in one call."""

    async def _apply(self, verb: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Make one settlement call, retrying transient errors; return whether it succeeded."""
        error = await self._attempt(verb, call)
        if error is not None:
            self._failed(verb, error)
        return error is None

    def _failed(self, verb: str, error: BaseException) -> None:
        if self.lost:
            return
        log.error("%s; the messages will be redelivered", error, exc_info=error)
        self._settlement_failed()

    def _settlement_failed(self) -> None:
        self.broken = True

    async def _attempt(
        self, verb: str, call: Callable[[], Awaitable[None]]
    ) -> BaseException | None:
        """Make one settlement call, retrying transient errors; return the last error."""
        deadline = self.clock.monotonic() + self._ack_deadline
        pause = FIRST_PAUSE
        while not self.lost:
            watchdog = asyncio.timeout(CALL_TIMEOUT)
            try:
                async with watchdog:
                    await call()
            except BaseException as raw:
                known = fault(raw, "the client library")
                if watchdog.expired():
                    self.broken = True
                error = self._context.translate(known, f"{verb} on {self.topic}")
                transient = isinstance(error, TransientError)
                if not transient or self.clock.monotonic() > deadline:
                    return error
                log.debug("%s; retrying", error)
                await self.clock.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return None
        return ConnectionLost(f"{verb} on {self.topic}: the source is closed")

    async def _write_letters(self, rejects: Sequence[Rejected]) -> BaseException | None:
        """Store dead letters and settle their messages; return the error if that fails."""

        async def write() -> None:
            for topic in {item.letter.topic for item in rejects}:
                await self._context.declare(topic)
            await self._reject(rejects)

        return await self._attempt("reject", write)

    @abstractmethod
    async def _reject(self, rejects: Sequence[Rejected]) -> None:
        """Store dead letters and settle their messages."""

    def _settled_late(self, deliveries: Sequence[Delivery], attempt: int = 0) -> None:
        """Note settlements after the lease, in case the broker delivers these messages here."""

    def _forget(self, records: Sequence[Received]) -> None:
        """Count `records` as no longer held."""
        if records:
            size = sum(map(len, [received.body for received in records]))
            self._inbox.settled(len(records), size)

    def _free(self, delivery: Delivery) -> None:
        """Open the key of `delivery`, which is settled."""

    def _later(self, work: Coroutine[Any, Any, None], delivery: Delivery | None) -> None:
        timer = supervise(work, name="anymq-retry", ended=self.end)
        self._timers[timer] = delivery
        timer.add_done_callback(self._timers.pop)

    async def _bounded(self, work: Awaitable[Any], what: str, within: float | None = None) -> None:
        seconds = CLOSE_GRACE if within is None else within
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            log.warning(
                "%s of %s (group %s) did not end in %.2f s", what, self.topic, self.group, seconds
            )
        except BaseException as raw:
            error = self._context.translate(fault(raw, "the client library"), what)
            log.debug("%s of %s: %s", what, self.topic, error)


AnySettler = BaseSettler[Any]
"""A settler, whatever its source."""
