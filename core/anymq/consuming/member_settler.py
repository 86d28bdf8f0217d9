"""`MemberSettler`: settlement for a member of a group, and the starts of its handlers."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeVar

from ..driver.records import Begun, Nack, Received, Record, Rejected, attempt_of
from ..driver.source import GroupReader
from ..driver.specs import ATTEMPT
from ..identity import copy_id
from ..ids import new_id
from ..logs import logger
from ..tasks import fault, supervise
from ..wire.cloudevents import encode
from .dead_letter_writer import PendingLetter
from .delivery import Delivery
from .late_settlements import DONE
from .settler import CALL_TIMEOUT, CLOSE_GRACE, BaseSettler, SettlerSettings

log = logger("anymq.consumer")

START_NOTED_AFTER = 0.25
"""Seconds that a handler has been running at least when its start is made durable."""

S = TypeVar("S", bound=GroupReader)


class MemberSettler(BaseSettler[S]):
    """The settler of one source of a group: what `GroupSettler` and `OrderedSettler` share.

    It counts the starts of handlers, and notes settlements of which the broker may not have heard.
    """

    def __init__(self, source: S, settings: SettlerSettings) -> None:
        super().__init__(source, settings)
        self._sending: Sequence[Received] = ()
        """The acknowledgements on their way to the broker."""
        self._doubtful: set[Received] = set()
        """Unsettled records that may have belonged to another member at the last check."""
        self._barriers: list[asyncio.Future[None]] = []
        """Awaited by callers that need the earlier settlements to have been sent."""
        self._noted: dict[Delivery, int] = {}
        """The attempts in progress whose starts are durable."""
        self.good_until = self.clock.monotonic() + self._certain
        if source.silence is not None:
            self._tasks.append(supervise(self._record_alive(), name="anymq-alive", ended=self.end))
        if source.counts_starts:
            self._tasks.append(supervise(self._note_starts(), name="anymq-starts", ended=self.end))

    def may_be_again(self, received: Received) -> bool:
        return self.source.may_be_again(received)

    # Starts: they count if this process dies.

    def attempt_of(self, delivery: Delivery) -> int:
        known = self._known(delivery.received)
        return super().attempt_of(delivery) if known is None else known

    async def begin(self, delivery: Delivery) -> bool:
        """Count the start of a handler before it, where an earlier member has vanished.

        The message may be what ended that process, or one of those that it had fetched besides.
        Returns False if the message is no longer this member's, or its start cannot be noted.
        """
        known = self._known(delivery.received)
        if known is None:
            delivery.set_attempt(attempt_of(delivery.received))
            return True
        received = delivery.received
        # If this handler ends the process, earlier messages must not be repeated and counted.
        await self._sent()
        # Without a note, a crash in this attempt counts as one earlier start.
        unknown = known == attempt_of(received) - received.redeliveries
        begun = Begun(received, known + 1 + unknown)
        error = await self._attempt("begin", partial(self.source.begin, [begun]))
        if delivery.verb is not None or delivery not in self._held:
            return False
        if error is not None:
            log.error("%s; the message is returned to its group", error, exc_info=error)
            await delivery.release()
            return False
        delivery.set_attempt(known)
        self._noted[delivery] = known
        return True

    def _known(self, received: Received) -> int | None:
        source = self.source
        return source.known_attempt(received) if source.counts_starts else None

    async def _sent(self) -> None:
        """Return when the settlements so far have been sent, or after `CLOSE_GRACE`."""
        if self._flushing:
            barrier = asyncio.get_running_loop().create_future()
            self._barriers.append(barrier)
            self._wake.set()
            await asyncio.wait((barrier,), timeout=CLOSE_GRACE)

    async def _note_starts(self) -> None:
        """Make durable the starts of handlers that keep running: they count if the process dies."""
        before: set[Delivery] = set()
        while True:
            await self.clock.sleep(START_NOTED_AFTER)
            now = {d for d in self._inbox.dispatched() if d in self._held and d.verb is None}
            now -= self.waiting()
            noted = self._noted = {d: n for d, n in self._noted.items() if d in now}
            due = [d for d in now & before if noted.get(d, 0) < d.attempt]
            before = now
            if not due:
                continue
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    await self.source.begin([Begun(d.received, d.attempt + 1) for d in due])
            except BaseException as raw:
                error = fault(raw, "the client library")
                log.debug("noting starts on %s failed: %s; retrying", self.topic, error)
            else:
                noted.update((d, d.attempt) for d in due)

    # Copies.

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
        return encode(message, self.binding, unique=unique, extra={ATTEMPT: str(attempt)})

    # Sending.

    def _has_queued(self) -> bool:
        return bool(self._acks or self._rejects or self._barriers)

    async def _flush(self) -> None:
        barriers, self._barriers = self._barriers, []
        acks, self._acks = self._acks, []
        rejects, self._rejects = self._rejects, []
        in_doubt = self._in_doubt
        if acks:
            self._sending = acks
            if not await self._apply("ack", partial(self.source.ack, acks)):
                self._note_stale(acks)
            self._sending = ()
        nacks = await self._flush_failed()
        if rejects:
            await self._letters.write(rejects)
        if in_doubt or self._in_doubt:
            self._note_doubtful(acks, nacks, rejects)
        self._forget(acks)
        for barrier in barriers:
            if not barrier.done():
                barrier.set_result(None)

    @abstractmethod
    async def _flush_failed(self) -> Sequence[Nack]:
        """Send what `nack` and `release` have queued, and return the nacks."""

    async def _reject(self, rejects: Sequence[Rejected]) -> None:
        await self.source.reject(rejects, self._context.driver.publish)

    # Settlements of which the broker may not have heard.

    @property
    @abstractmethod
    def _certain(self) -> float:
        """The seconds after a check for which every held record surely belongs to this member."""

    @property
    def _in_doubt(self) -> bool:
        """Whether some of the held records may have belonged to another member."""
        return bool(self._doubtful) or self.clock.monotonic() > self.good_until

    @abstractmethod
    def _dropped(
        self, acks: Sequence[Received], nacks: Sequence[Nack], rejects: Sequence[PendingLetter]
    ) -> set[Received]:
        """Return the records whose settlements the source may have ignored as stale."""

    def _note_doubtful(
        self, acks: Sequence[Received], nacks: Sequence[Nack], rejects: Sequence[PendingLetter]
    ) -> None:
        """Note the settlements that the source may have ignored because they came too late."""
        late = self._dropped(acks, nacks, rejects)
        waiting = {item.delivery.received for item in self._letters.waiting}
        stored = [item.rejected.received for item in rejects]
        self._note_stale([r for r in (*acks, *stored) if r in late and r not in waiting])
        for nack in nacks:
            if nack.received in late:
                self._settled_late([Delivery(nack.received, self, 0.0)], nack.attempt)
        held = {delivery.received for delivery in self._held}
        self._doubtful &= held | waiting

    def _unsent(self) -> Iterator[Received]:
        """Yield the settled records whose settlements are not known to have been sent."""
        yield from self._sending
        yield from self._acks
        yield from (item.rejected.received for item in self._rejects)

    def _note_stale(self, records: Sequence[Received]) -> None:
        self._settled_late([Delivery(record, self, 0.0) for record in records])

    def _settled_late(self, deliveries: Sequence[Delivery], attempt: int = DONE) -> None:
        if deliveries and self._auto_extend:
            self._inbox.note_late(deliveries, attempt)

    def _discard_queued(self) -> None:
        self._note_stale([*self._sending, *self._acks])
        super()._discard_queued()

    async def _record_alive(self) -> None:
        """Record that this process runs, so that a stall is noticed when it continues."""
        silence = self.source.silence or 0.0
        while not self.broken:
            await self.clock.sleep(silence / 4)
            now = self.clock.monotonic()
            if now > self.good_until:
                self._inbox.expire()
            else:
                self.good_until = now + silence

    def _stalled(self) -> bool:
        """Whether this process was silent for so long that the broker may have given up on it."""
        if self.clock.monotonic() > self.good_until:
            self.broken = True
            self.why_broken = "this process or its event loop stalled"
        return self.broken
