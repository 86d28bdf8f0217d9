"""`Session`: the life of one source. Holds what is unsettled, settles in bulk, keeps leases."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from logging import WARNING
from typing import TYPE_CHECKING, Any

from ..driver.base import Driver
from ..driver.clock import Clock
from ..driver.records import Begun, Due, Nack, Received, Record, Rejected, attempt_of
from ..driver.specs import ATTEMPT, Binding
from ..errors import ConnectionLost, TransientError
from ..identity import copy_id
from ..ids import new_id
from ..logs import logger
from ..store_pool import Stores
from ..tasks import fault, supervise
from ..wire.cloudevents import encode
from ..wire.dead_letter_headers import letter_for
from .dead_letter_writer import Letterbox, Pending
from .delivery import Delivery
from .late_settlements import DONE

if TYPE_CHECKING:
    from ..requests import Requests
    from .subscription import Subscription

log = logger("anymq.consumer")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
CLOSE_GRACE = 2.5
CANCEL_GRACE = 1.0
"""Seconds that cancelled tasks have to end: what is left would use a source that is closed."""
SHORTEST = 0.2
"""Seconds that closing a source has in any case."""
HELD_OVER = 0.05
"""The shortest wait, in seconds, of a message that comes back from memory."""

HUNG = 30.0
"""Seconds after which a settlement call that has not come back is given up, with its source."""

NOTED_AFTER = 0.25
"""Seconds that a handler has been running, at least, when its start is noted."""

PutBack = Callable[[Sequence[Nack]], Awaitable[None]]
RECENT = 1 / 4
"""The part of its lease during which a delivery need not be extended."""


def _unset(*_: Any) -> None:
    raise AssertionError("the subscription sets this")


@dataclass(slots=True, kw_only=True)
class Context:
    """What a session needs of the broker and of its subscription."""

    driver: Driver
    topic: str
    group: str | None
    ack_deadline: float
    auto_extend: bool
    clock: Clock
    stores: Stores
    requests: Requests
    translate: Callable[[BaseException, str], BaseException]
    declare: Callable[[str], Awaitable[None]]
    ordered: bool = False
    member: str = ""
    """The name of the subscription, which no other has."""
    subscription: Subscription = field(init=False)
    settled: Callable[[int, int], None] = _unset
    """Called with how many messages are no longer held, and the size of their bodies."""
    redeliver: Callable[[Delivery], None] = _unset
    """Called with a delivery that comes back from memory (broadcast only)."""
    freed: Callable[[Delivery], None] = _unset
    """Called with a delivery that is settled, and no longer closes its lane (ordered only)."""
    kept: Callable[[Delivery, Delivery], None] = _unset
    """Called with a failed delivery and the one that takes its lane over (ordered only)."""
    lapse: Callable[[Session], None] = _unset
    """Called when what is buffered from a session may not be ours any more, see `look`."""
    again: Callable[[Delivery], None] = _unset
    """Called with a kept delivery whose wait is over (ordered only)."""
    in_hand: Callable[[], Iterable[Delivery]] = tuple
    """Set by the subscription: returns what is with a handler, or with the task that iterates."""


class Session:
    """One source and everything in flight from it.

    The verbs of a `Delivery` land here and return at once; a flusher sends what has gathered
    while its previous call was under way. Transient errors are repeated until the lease would
    be over. When the source is lost, what is still unsettled is dropped: it comes back by itself.

    A broadcast subscription has one session for all its sources, one after the other: what it
    holds is nobody else's and will not be delivered again, so it stays when the source goes.
    """

    def __init__(self, source: Any, context: Context) -> None:
        self.source: Any = source
        self.topic = context.topic
        self.group = context.group
        self.binding: Binding = context.driver.binding
        self.lost = False
        self.broken = False
        """Another source is to be opened: `why_broken`."""
        self.why_broken = "a settlement could not be sent"
        self.clock = context.clock
        self.stores = context.stores
        self.requests = context.requests
        self._context = context
        self.subscription = context.subscription
        self.ordered = context.ordered
        self._leases = context.driver.capabilities.extend.is_native
        self._held: dict[Delivery, None] = {}
        self._apart_from = 0.0 if context.auto_extend else math.inf
        """When leases may be extended from another thread again, see `keep_apart`."""
        self._acks: list[Received] = []
        self._nacks: list[Nack] = []
        self._releases: list[Nack] = []
        self._rejects: list[Pending] = []
        self._keeps: list[Nack] = []
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._flushing = False
        self._sending: Sequence[Received] = ()
        """Acks that are on their way to the broker."""
        self._doubtful: set[Received] = set()
        """What may not have been ours any more when we last looked, and was not settled."""
        self._timers: dict[asyncio.Task[None], Delivery | None] = {}
        self._barriers: list[asyncio.Future[None]] = []
        """Waited for by those who need what was settled before to have been sent."""
        self._noted: dict[Delivery, int] = {}
        """The attempts in progress whose starts have been noted."""
        self._stored: set[int] = set()
        """Letters of a broadcast that have been stored, while others with them have not."""
        self._letters = Letterbox(
            self._bury, binding=self.binding, clock=self.clock, forget=self._forget
        )
        self.good_until = math.inf
        """Until then, by the monotonic clock, all that is held here is certainly ours; then
        `look` says what is."""
        self._tasks = [
            supervise(self._flusher(), name="anymq-settle", ended=self._break),
            supervise(self._letters.run(), name="anymq-letters", ended=self._break),
        ]
        if self.group is not None:
            self.good_until = self.clock.monotonic() + self._certain
            if source.silence is not None:
                self._tasks.append(
                    supervise(self._listener(), name="anymq-alive", ended=self._break)
                )
            if not self.ordered:
                self._tasks.append(supervise(self._keeper(), name="anymq-lease", ended=self._break))
            if source.counts_starts:
                self._tasks.append(supervise(self._noter(), name="anymq-starts", ended=self._break))

    def hold(self, records: Sequence[Received], since: float | None = None) -> list[Delivery]:
        """Return deliveries for `records`; each is held until a verb settles it.

        Their leases may have begun at `since`, a monotonic time; by default they begin now.
        """
        now = self.clock.monotonic() if since is None else since
        deliveries = [Delivery(record, self, now) for record in records]
        if since is not None and self._has_leases:
            self.good_until = min(self.good_until, since + self._context.ack_deadline)
        self._held.update(dict.fromkeys(deliveries))
        return deliveries

    @property
    def unsettled(self) -> list[Delivery]:
        """What no verb has settled yet, oldest first."""
        return list(self._held)

    # Starts: what is counted if this process dies.

    def attempt_of(self, delivery: Delivery) -> int:
        """Return the number of the attempt; it counts as asked for unless its start is at issue."""
        known = self._known(delivery.received)
        if known is not None:
            return known
        delivery.count_from(attempt_of(delivery.received))
        return delivery.counted

    async def begin(self, delivery: Delivery) -> bool:
        """Count the start of a handler before it, where an earlier consumer has vanished.

        The message may be what ended it, or one of those that it had fetched besides. Returns
        False if the message is not ours any more, or its start cannot be noted.
        """
        known = self._known(delivery.received)
        if known is None:
            delivery.count_from(attempt_of(delivery.received))
            return True
        received = delivery.received
        # What was handled before shall not be repeated, and counted, if this ends the process.
        await self._sent()
        # If nothing was noted, it is taken to have begun once when this attempt ends like that.
        unknown = known == attempt_of(received) - received.redeliveries
        begun = Begun(received, known + 1 + unknown)
        error = await self._attempt("begin", partial(self.source.begin, [begun]))
        if delivery.verb is not None or delivery not in self._held:
            return False
        if error is not None:
            log.error("%s; the message is given back", error, exc_info=error)
            await delivery.release()
            return False
        delivery.count_from(known)
        self._noted[delivery] = known
        return True

    async def _sent(self) -> None:
        """Return when what has been settled so far has been sent, or soon."""
        if self._flushing:
            barrier = asyncio.get_running_loop().create_future()
            self._barriers.append(barrier)
            self._wake.set()
            await asyncio.wait((barrier,), timeout=CLOSE_GRACE)

    def _known(self, received: Received) -> int | None:
        source = self.source
        if self.group is None or not source.counts_starts:
            return None
        known: int | None = source.known_attempt(received)
        return known

    async def _noter(self) -> None:
        """Note the starts of what stays in a handler: if the process dies, they are counted."""
        before: set[Delivery] = set()
        while True:
            await self.clock.sleep(NOTED_AFTER)
            now = {d for d in self._context.in_hand() if d in self._held and d.verb is None}
            now -= self.waiting()
            noted = self._noted = {d: n for d, n in self._noted.items() if d in now}
            due = [d for d in now & before if noted.get(d, 0) < d.attempt]
            before = now
            if not due:
                continue
            try:
                async with asyncio.timeout(HUNG):
                    await self.source.begin([Begun(d.received, d.attempt + 1) for d in due])
            except BaseException as raw:
                error = fault(raw, "the client library")
                log.debug("noting starts on %s failed, trying again: %s", self.topic, error)
            else:
                noted.update((d, d.attempt) for d in due)

    # The verbs, called by Delivery at most once each.

    def ack(self, delivery: Delivery) -> None:
        if self._held.pop(delivery, self) is None:
            self._acks.append(delivery.received)
            if not self._flushing:
                self._pending()
            if self.ordered:
                self._context.freed(delivery)
        else:
            self._too_late([delivery])

    def nack(self, delivery: Delivery, delay: float, attempt: int) -> None:
        if self.ordered:
            self._keep(delivery, delay, attempt)
        elif self.group is None:
            self._return(delivery, delay, attempt)
        elif delivery in self._held:
            self._nacks.append(self._nack(delivery, delay, attempt))
            self._drop(delivery)
            self._pending()
        else:
            self._too_late([delivery], attempt)

    def release(self, delivery: Delivery) -> None:
        if self.ordered:
            self._keep(delivery, 0.0, delivery.attempt)
        elif self.group is None:
            self._return(delivery, 0.0, delivery.attempt)
        elif delivery in self._held:
            self._releases.append(self._nack(delivery, 0.0, delivery.attempt))
            self._drop(delivery)
            self._pending()

    def reject(
        self,
        delivery: Delivery,
        reason: str,
        error: BaseException | None,
        topic: str | None,
        with_traceback: bool,
    ) -> None:
        if delivery in self._held:
            letter = letter_for(
                delivery,
                self.binding,
                reason=reason,
                error=error,
                with_traceback=with_traceback,
                topic=topic,
                now=self.clock.now(),
            )
            self._drop(delivery)
            self._rejects.append(Pending(delivery, Rejected(delivery.received, letter)))
            self._pending()
            self._free(delivery)

    def stop(self, delivery: Delivery, reason: str) -> None:
        if delivery in self._held:
            self.subscription.note_stopped(delivery, reason)
            log.error(
                "the key %r of %s (group %s) is stopped at %s: %s",
                delivery.message.key,
                self.topic,
                self.group,
                delivery.message.id,
                reason,
            )

    def abandon(self, delivery: Delivery) -> None:
        """Let go of what no verb can settle; another source, or its lease, brings it back."""
        log.exception("%s cannot be given back on %s", delivery.received.position, self.topic)
        if self._drop(delivery):
            delivery.verb = "lapsed"
            self._context.settled(1, len(delivery.received.body))
            self._free(delivery)
            self.broken = True

    def restart(self, delivery: Delivery) -> None:
        """Hand out anew, as the first attempt, what was stopped."""
        self._keep(delivery, 0.0, 1)

    def forget(self, unwanted: Callable[[Delivery], bool]) -> None:
        """Drop the `unwanted` ones unsettled: they are somebody else's to deliver."""
        for delivery in [item for item in self._held if unwanted(item)]:
            if delivery.verb in (None, "stop"):
                delivery.verb = "lapsed"
            del self._held[delivery]
            self._context.settled(1, len(delivery.received.body))
        self._letters.drop(unwanted)
        for timer, waiting in list(self._timers.items()):
            if waiting is not None and unwanted(waiting):
                timer.cancel()

    def give_up(self, deliveries: Sequence[Delivery]) -> None:
        """Let others have these, which may be theirs already, see `look`.

        A release is dropped by the source where the lease has gone. Where a source hangs on the
        life of this process, it is closed.
        """
        if self._has_leases:
            for delivery in deliveries:
                delivery.verb = "release"
                self.release(delivery)
        elif self.ordered:
            gone = set(deliveries)
            self.forget(lambda item: item in gone)

    def waiting(self) -> set[Delivery]:
        """What waits here for its next attempt."""
        return {delivery for delivery in self._timers.values() if delivery is not None}

    async def flushed(self) -> None:
        """Return when what has been settled so far has been sent, or could not be in time."""
        await self._bounded(self._quiet.wait(), "settling")

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Begin the leases of `deliveries` anew."""
        if self.lost or self.group is None:
            return
        begun = self.clock.monotonic()
        what = f"extend on {self.topic}"
        try:
            async with asyncio.timeout(HUNG):
                await self.source.extend([delivery.received for delivery in deliveries])
        except TimeoutError as late:
            raise TransientError(f"{what} did not end in time") from late
        except BaseException as raw:
            error = self._context.translate(fault(raw, "the client library"), what)
            if error is raw:
                raise
            raise error from raw
        for delivery in deliveries:
            delivery.renewed = begun

    async def aclose(self, within: float = 2 * CLOSE_GRACE) -> None:
        """Send what has been settled, give up the rest, and close the source, `within` seconds."""
        until = asyncio.get_running_loop().time() + within
        await self._bounded(self._quiet.wait(), "settling", min(CLOSE_GRACE, within))
        self.lost = True
        self._not_told([*self._sending, *self._acks])
        self._forget([delivery.received for delivery in self._held])
        self._held.clear()
        self._forget([*self._acks], self._acks)
        self._keeps.clear()
        for pending in (self._nacks, self._releases):
            self._forget([item.received for item in pending], pending)
        self._forget([item.item.received for item in self._rejects], self._rejects)
        self._letters.drop(lambda _: True)
        for task in (*self._tasks, *self._timers):
            task.cancel()
        await asyncio.wait((*self._tasks, *self._timers), timeout=CANCEL_GRACE)
        left = max(SHORTEST, until - asyncio.get_running_loop().time())
        await self._bounded(self.source.aclose(), "closing the source", min(CLOSE_GRACE, left))

    async def leave(self) -> None:
        """Close the source, and keep what came from it for the next one (broadcast only)."""
        await self._bounded(self.source.aclose(), "closing the source")

    def _break(self) -> None:
        """One of the tasks has ended by itself: the subscription is to open another source."""
        self.broken = True

    # Settling.

    def _pending(self) -> None:
        self._flushing = True
        self._quiet.clear()
        self._wake.set()

    def _drop(self, delivery: Delivery) -> bool:
        """Take `delivery` off the held ones; False if it is no longer ours to settle."""
        return self._held.pop(delivery, self) is None

    def _nack(self, delivery: Delivery, delay: float, attempt: int) -> Nack:
        received = delivery.received
        return Nack(
            received,
            delay,
            attempt,
            native_attempt=attempt_of(received) + 1,
            copy=self._copy(delivery, attempt),
        )

    def _copy(self, delivery: Delivery, attempt: int) -> Record:
        message = delivery.message
        same = None if attempt > attempt_of(delivery.received) else new_id()
        where = self.topic, self.group, delivery.received.position
        unique = copy_id("again", message.source, message.id, *where, str(attempt), same)
        extra = {ATTEMPT: str(attempt)}
        return encode(message, self.binding, unique=unique, extra=extra)

    def _return(self, delivery: Delivery, delay: float, attempt: int) -> None:
        """Bring a broadcast delivery back from memory: nobody else is waiting for it."""
        if not self._drop(delivery):
            return
        self._context.settled(1, len(delivery.received.body))
        self._come_back(delivery.received, delay, attempt)

    def _come_back(self, received: Received, delay: float, attempt: int) -> None:
        async def back() -> None:
            await self.clock.sleep(delay)
            again = self.hold([received])[0]
            again.count_from(attempt)
            self._context.redeliver(again)

        self._later(back(), None)

    def _keep(self, delivery: Delivery, delay: float, attempt: int) -> None:
        """Let the next attempt take the lane over now, and hand it out after `delay`."""
        if delivery not in self._held:
            if attempt > delivery.attempt:
                self._too_late([delivery], attempt)
            return
        if (attempt > delivery.attempt or delay > 0) and self.group is not None:
            nack = self._nack(delivery, delay, attempt)
            nack.due = Due(self.clock.now() + delay, delay) if delay > 0 else None
            self._keeps.append(nack)
            self._pending()
        self._drop(delivery)
        again = self.hold([delivery.received])[0]
        again.count_from(attempt)
        self._context.kept(delivery, again)
        if delay <= 0:
            self._context.again(again)
        else:
            self._hand_out_after(delay, again)

    def wait_out(self, delivery: Delivery) -> None:
        """Hand `delivery` out when the wait is over that an earlier owner of it began."""
        due = delivery.received.not_before
        assert due is not None
        self._hand_out_after(due.left(self.clock.now()), delivery)

    def _hand_out_after(self, delay: float, delivery: Delivery) -> None:
        async def back() -> None:
            await self.clock.sleep(delay)
            self._context.again(delivery)

        self._later(back(), delivery)

    def _later(self, work: Coroutine[Any, Any, None], delivery: Delivery | None) -> None:
        timer = supervise(work, name="anymq-retry", ended=self._break)
        self._timers[timer] = delivery
        timer.add_done_callback(self._timers.pop)

    def _free(self, delivery: Delivery) -> None:
        if self.ordered:
            self._context.freed(delivery)

    async def _flusher(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._flush()
            except BaseException as raw:
                fault(raw, "settling")
                self.broken = True
                log.exception("settling on %s failed; the messages come back", self.topic)
            if not self._wake.is_set():
                self._flushing = False
                self._quiet.set()

    async def _flush(self) -> None:
        while (
            self._acks
            or self._nacks
            or self._releases
            or self._rejects
            or self._keeps
            or self._barriers
        ):
            barriers, self._barriers = self._barriers, []
            keeps, self._keeps = self._keeps, []
            acks, self._acks = self._acks, []
            nacks, self._nacks = self._nacks, []
            releases, self._releases = self._releases, []
            rejects, self._rejects = self._rejects, []
            in_doubt = self._in_doubt
            if acks and self.group is not None:
                self._sending = acks
                if not await self._apply("ack", partial(self.source.ack, acks)):
                    self._not_told(acks)
                self._sending = ()
            if nacks:
                await self._put_back("nack", nacks, self.source.nack)
            if releases:
                await self._put_back("release", releases, self.source.release)
            if rejects:
                await self._letters.bury(rejects)
            if keeps:
                await self._apply("keep", partial(self.source.keep, keeps))
            if in_doubt or self._in_doubt:
                self._note_doubtful(acks, nacks, rejects)
            self._forget(acks)
            for barrier in barriers:
                if not barrier.done():
                    barrier.set_result(None)

    # What the broker may not have heard of.

    @property
    def _in_doubt(self) -> bool:
        """Whether some of what was held may not have been ours any more."""
        return bool(self._doubtful) or self.clock.monotonic() > self.good_until

    def _note_doubtful(
        self, acks: Sequence[Received], nacks: Sequence[Nack], rejects: Sequence[Pending]
    ) -> None:
        """Note the settlements that the source may have dropped because they came too late."""
        late = self._doubtful
        if self.ordered and self.source.silence is None:
            self.look(())
            late = {record for record in acks if not self.source.owns(record)}
        elif self.clock.monotonic() > self.good_until:
            late = {*acks, *(item.received for item in nacks)}
            late.update(item.item.received for item in rejects)
        waiting = {item.delivery.received for item in self._letters.waiting}
        buried = [item.item.received for item in rejects]
        self._not_told([r for r in (*acks, *buried) if r in late and r not in waiting])
        for nack in nacks:
            if nack.received in late:
                self._too_late([Delivery(nack.received, self, 0.0)], nack.attempt)
        held = {delivery.received for delivery in self._held}
        self._doubtful &= held | waiting

    def _unsent(self) -> Iterator[Received]:
        """What has been settled, and is not known to have been sent."""
        yield from self._sending
        yield from self._acks
        yield from (item.received for item in self._nacks)
        yield from (item.item.received for item in self._rejects)

    def _not_told(self, records: Sequence[Received]) -> None:
        self._too_late([Delivery(record, self, 0.0) for record in records])

    def _too_late(self, deliveries: Sequence[Delivery], attempt: int = DONE) -> None:
        """Note what has been settled, should the broker deliver it here again."""
        if deliveries and self.group is not None and self._context.auto_extend:
            self.subscription.note_finished(deliveries, attempt)

    async def _put_back(self, verb: str, nacks: Sequence[Nack], call: PutBack) -> None:
        """Give back `nacks`. What the broker takes no copy of waits here for its next attempt."""
        error = await self._attempt(verb, partial(call, nacks))
        if error is not None and not isinstance(error, TransientError):
            if len(nacks) > 1:
                for nack in nacks:
                    await self._put_back(verb, [nack], call)
                return
            if not (self.lost or self.subscription.closing):
                self._hold_over(nacks[0], error)
                return
        if error is not None:
            self._failed(verb, error)
        self._forget([item.received for item in nacks])

    def _hold_over(self, nack: Nack, error: BaseException) -> None:
        """Keep a message that cannot be put back: unsettled, in memory, until it is due."""
        again = self.hold([nack.received])[0]
        again.count_from(nack.attempt)
        again.renewed = 0.0
        log.seldom(
            ("copy", self.topic, self.group),
            WARNING,
            "no copy of %s from %s can be stored, so it waits here for attempt %d: %s",
            again.message.id,
            self.topic,
            nack.attempt,
            error,
        )

        async def back() -> None:
            await self.clock.sleep(max(nack.delay, HELD_OVER))
            if again in self._held:
                self._forget([nack.received])
                self._context.redeliver(again)

        self._later(back(), again)

    async def _bury(self, rejects: Sequence[Rejected]) -> BaseException | None:
        """Store letters and settle their messages; return why that cannot be."""
        driver = self._context.driver

        async def move() -> None:
            for topic in {item.letter.topic for item in rejects}:
                await self._context.declare(topic)
            if self.group is None:
                await self._store(rejects)
            else:
                await self.source.reject(rejects, driver.publish)

        error = await self._attempt("reject", move)
        if error is None and self.group is None:
            self._stored.difference_update(map(id, rejects))
        return error

    async def _store(self, rejects: Sequence[Rejected]) -> None:
        """Store the letters of broadcast deliveries, each once."""
        left = [item for item in rejects if id(item) not in self._stored]
        outcomes = await self._context.driver.publish([item.letter for item in left])
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        self._stored.update(
            id(item)
            for item, outcome in zip(left, outcomes, strict=True)
            if not isinstance(outcome, BaseException)
        )
        for failure in failures:
            raise failure

    async def _apply(self, verb: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Run one settlement call, repeating transient failures; return whether it succeeded."""
        error = await self._attempt(verb, call)
        if error is not None:
            self._failed(verb, error)
        return error is None

    def _failed(self, verb: str, error: BaseException) -> None:
        if self.lost:
            return
        log.error("%s; the messages will be delivered again", error, exc_info=error)
        self.broken = self.broken or self.ordered or not self._leases

    async def _attempt(
        self, verb: str, call: Callable[[], Awaitable[None]]
    ) -> BaseException | None:
        """Run one settlement call, repeating transient failures; return what it failed with."""
        give_up = self.clock.monotonic() + self._context.ack_deadline
        pause = FIRST_PAUSE
        while not self.lost:
            watchdog = asyncio.timeout(HUNG)
            try:
                async with watchdog:
                    await call()
            except BaseException as raw:
                known = fault(raw, "the client library")
                if watchdog.expired():
                    self.broken = True
                error = self._context.translate(known, f"{verb} on {self.topic}")
                transient = isinstance(error, TransientError)
                if not transient or self.clock.monotonic() > give_up:
                    return error
                log.debug("%s; trying again", error)
                await self.clock.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return None
        return ConnectionLost(f"{verb} on {self.topic}: the source is closed")

    def _forget(self, records: Sequence[Received], pending: list[Any] | None = None) -> None:
        if records:
            size = sum(map(len, [received.body for received in records]))
            self._context.settled(len(records), size)
        if pending is not None:
            pending.clear()

    async def _bounded(self, work: Awaitable[Any], what: str, within: float | None = None) -> None:
        seconds = CLOSE_GRACE if within is None else within
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            log.warning("%s of %s did not finish in %.2f s", what, self.topic, seconds)
        except BaseException as raw:
            error = self._context.translate(fault(raw, "the client library"), what)
            log.debug("%s of %s: %s", what, self.topic, error)

    # Leases.

    @property
    def _has_leases(self) -> bool:
        """Whether each delivery has a lease of its own; else all hang on the source's life."""
        return not self.ordered and self.source.silence is None

    @property
    def _certain(self) -> float:
        """For how long after a look all that is held is certainly ours."""
        if self.source.silence is not None:
            return float(self.source.silence)
        return 0.0 if self.ordered else self._context.ack_deadline * (1 - RECENT)

    def look(self, waiting: Iterable[Delivery]) -> list[Delivery]:
        """Return which of those that are `waiting` to be handed out may be another member's by now.

        Called when `good_until` has passed: this process or its event loop stood still, or the
        leases could not be extended.
        """
        now = self.clock.monotonic()
        if self.source.silence is not None:
            if now > self.good_until:
                self.broken = True
                self.why_broken = "this process or its event loop stood still"
            return list(waiting) if self.broken else []
        if self.ordered:
            self.good_until = self.source.certain_until()
            owns = self.source.owns
            self._doubtful = {item for item in self._unsent() if not owns(item)}
            self._doubtful.update(d.received for d in self._held if not owns(d.received))
            return [item for item in waiting if not self.source.owns(item.received)]
        deadline = self._context.ack_deadline
        self._doubtful.update(self._unsent())
        self._doubtful.update(d.received for d in self._held if d.renewed + deadline <= now)
        over: list[Delivery] = []
        next_end = now + self._certain
        for delivery in waiting:
            end = delivery.renewed + deadline
            if end <= now:
                over.append(delivery)
            else:
                next_end = min(next_end, end)
        self.good_until = next_end
        return over

    def is_over(self, delivery: Delivery) -> bool:
        """Whether the lease of `delivery`, or what stands for one, may have gone by now."""
        now = self.clock.monotonic()
        if self.group is None:
            return False
        if self._has_leases:
            return delivery.renewed + self._context.ack_deadline <= now
        if self.source.silence is not None:
            return now > self.good_until
        return bool(not self.source.owns(delivery.received))

    def keep_apart(self, deliveries: Iterable[Delivery]) -> None:
        """The lookout's, in its thread: extend these leases while the event loop stands still."""
        begun, deadline = self.clock.monotonic(), self._context.ack_deadline
        if not self._has_leases or self.group is None or self.lost or begun < self._apart_from:
            return
        due = [item for item in deliveries if begun - item.renewed > deadline / 3]
        due = [item for item in due if item.belongs_to(self) and not item.is_over]
        if not due:
            return
        self._apart_from = begun + deadline / 12
        try:
            kept = asyncio.run(self._extended_apart([item.received for item in due]))
        except Exception as error:
            log.debug("extend on %s, from another thread: %s", self.topic, error)
            return
        if not kept:
            self._apart_from = math.inf
            return
        for item in due:
            item.renewed = begun

    async def _extended_apart(self, records: Sequence[Received]) -> bool:
        async with asyncio.timeout(self._context.ack_deadline / 3):
            return bool(await self.source.extend_apart(records))

    async def _listener(self) -> None:
        """Note that this process lives, so that one that stood still finds out when it goes on."""
        silence = self.source.silence or 0.0
        while not self.broken:
            await self.clock.sleep(silence / 4)
            now = self.clock.monotonic()
            if now > self.good_until:
                self._context.lapse(self)
            else:
                self.good_until = now + silence

    async def _keeper(self) -> None:
        deadline = self._context.ack_deadline
        while True:
            await self.clock.sleep(deadline / 3)
            now = self.clock.monotonic()
            if now > self.good_until:
                self._context.lapse(self)  # what is over is not to look as if it were extended
            late = [item.delivery for item in self._letters.waiting]
            due = [d for d in (*self._held, *late) if now - d.renewed > deadline * RECENT]
            if self._context.auto_extend:
                try:
                    if due:
                        await self.extend(due)
                except Exception as error:
                    log.warning("%s; trying again before the lease ends", error)
                else:
                    if self._has_leases:
                        self.good_until = now + self._certain
            elif not self._leases:
                for delivery in due:
                    if now - delivery.renewed >= deadline and delivery in self._held:
                        self._lapse(delivery)

    def _lapse(self, delivery: Delivery) -> None:
        """The lease is over and the broker has none of its own: give the message back ourselves."""
        delivery.verb = "lapsed"
        if self._drop(delivery):
            self._nacks.append(self._nack(delivery, 0.0, delivery.attempt + 1))
            self._pending()
