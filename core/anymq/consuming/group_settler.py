"""`GroupSettler`: settlement and leases for a member of an unordered group."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from logging import WARNING

from ..driver.records import Nack, Received
from ..driver.source import Source
from ..errors import TransientError
from ..logs import logger
from ..tasks import fault, supervise
from .dead_letter_writer import PendingLetter
from .delivery import Delivery
from .member_settler import MemberSettler
from .settler import CALL_TIMEOUT, SettlerSettings

log = logger("anymq.consumer")

RENEWED_PART = 1 / 4
"""The part of a lease, from its start, during which it is not renewed."""
MIN_BACKOFF = 0.05
"""The shortest backoff, in seconds, of a message that is redelivered from memory."""

RedeliverCall = Callable[[Sequence[Nack]], Awaitable[None]]


class GroupSettler(MemberSettler[Source]):
    """The settler of one source of an unordered group."""

    def __init__(self, source: Source, settings: SettlerSettings) -> None:
        super().__init__(source, settings)
        self._has_leases = source.silence is None
        """Whether each delivery has a lease; else all depend on the connection of the source."""
        self._broker_leases = settings.context.driver.capabilities.extend.is_native
        self._nacks: list[Nack] = []
        self._releases: list[Nack] = []
        self._apart_from = 0.0 if self._auto_extend else math.inf
        """The monotonic time from which leases may be renewed by another thread again."""
        self._tasks.append(supervise(self._keep_leases(), name="anymq-lease", ended=self.end))

    def hold(self, records: Sequence[Received], since: float | None = None) -> list[Delivery]:
        if since is not None and self._has_leases:
            self.good_until = min(self.good_until, since + self._ack_deadline)
        return super().hold(records, since)

    # Settlement.

    def nack(self, delivery: Delivery, delay: float, attempt: int) -> None:
        if delivery in self._held:
            self._nacks.append(self._nack(delivery, delay, attempt))
            del self._held[delivery]
            self._start_flush()
        else:
            self._settled_late([delivery], attempt)

    def release(self, delivery: Delivery) -> None:
        if delivery in self._held:
            self._releases.append(self._nack(delivery, 0.0, delivery.attempt))
            del self._held[delivery]
            self._start_flush()

    def _has_queued(self) -> bool:
        return bool(self._nacks or self._releases) or super()._has_queued()

    async def _flush_failed(self) -> Sequence[Nack]:
        nacks, self._nacks = self._nacks, []
        releases, self._releases = self._releases, []
        if nacks:
            await self._redeliver_nacks("nack", nacks, self.source.nack)
        if releases:
            await self._redeliver_nacks("release", releases, self.source.release)
        return nacks

    async def _redeliver_nacks(self, verb: str, nacks: Sequence[Nack], call: RedeliverCall) -> None:
        """Redeliver `nacks`. A message whose copy the broker refuses waits in memory instead."""
        error = await self._attempt(verb, partial(call, nacks))
        if error is not None and not isinstance(error, TransientError):
            if len(nacks) > 1:
                for nack in nacks:
                    await self._redeliver_nacks(verb, [nack], call)
                return
            if not (self.lost or self.consumer.closing):
                self._keep_in_memory(nacks[0], error)
                return
        if error is not None:
            self._failed(verb, error)
        self._forget([item.received for item in nacks])

    def _keep_in_memory(self, nack: Nack, error: BaseException) -> None:
        """Keep a message that the broker cannot redeliver, unsettled in memory until it is due."""
        (again,) = self.hold([nack.received])
        again.set_attempt(nack.attempt)
        again.renewed = 0.0
        log.seldom(
            ("copy", self.topic, self.group),
            WARNING,
            "no copy of message %s from %s (group %s) can be stored: %s; it waits in this process "
            "for attempt %d",
            again.message.id,
            self.topic,
            self.group,
            error,
            nack.attempt,
        )

        async def redeliver() -> None:
            await self.clock.sleep(max(nack.delay, MIN_BACKOFF))
            if again in self._held:
                self._forget([nack.received])
                self._inbox.redeliver(again)

        self._later(redeliver(), again)

    def _settlement_failed(self) -> None:
        # Without leases, the broker redelivers the messages only to another source.
        self.broken = self.broken or not self._broker_leases

    def _unsent(self) -> Iterator[Received]:
        yield from super()._unsent()
        yield from (item.received for item in self._nacks)

    def _dropped(
        self, acks: Sequence[Received], nacks: Sequence[Nack], rejects: Sequence[PendingLetter]
    ) -> set[Received]:
        if self.clock.monotonic() <= self.good_until:
            return self._doubtful
        settled = {*acks, *(item.received for item in nacks)}
        settled.update(item.rejected.received for item in rejects)
        return settled

    def _discard_queued(self) -> None:
        super()._discard_queued()
        self._forget([item.received for item in (*self._nacks, *self._releases)])
        self._nacks, self._releases = [], []

    # Leases.

    @property
    def _certain(self) -> float:
        silence = self.source.silence
        return self._ack_deadline * (1 - RENEWED_PART) if silence is None else silence

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Renew the leases of `deliveries`. Raises `TransientError` after `CALL_TIMEOUT`."""
        if self.lost:
            return
        begun = self.clock.monotonic()
        what = f"extend on {self.topic}"
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
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

    def expired(self, waiting: Iterable[Delivery]) -> list[Delivery]:
        if not self._has_leases:
            return list(waiting) if self._stalled() else []
        now = self.clock.monotonic()
        self._doubtful.update(self._unsent())
        self._doubtful.update(
            d.received for d in self._held if d.renewed + self._ack_deadline <= now
        )
        over: list[Delivery] = []
        next_end = now + self._certain
        for delivery in waiting:
            end = delivery.renewed + self._ack_deadline
            if end <= now:
                over.append(delivery)
            else:
                next_end = min(next_end, end)
        self.good_until = next_end
        return over

    def is_expired(self, delivery: Delivery) -> bool:
        now = self.clock.monotonic()
        if self._has_leases:
            return delivery.renewed + self._ack_deadline <= now
        return now > self.good_until

    def drop_expired(self, deliveries: Sequence[Delivery]) -> None:
        # A source ignores the release of an expired lease. A source without leases is closed.
        if self._has_leases:
            for delivery in deliveries:
                delivery.verb = "release"
                self.release(delivery)

    def extend_apart(self, deliveries: Iterable[Delivery]) -> None:
        begun = self.clock.monotonic()
        if not self._has_leases or self.lost or begun < self._apart_from:
            return
        due = [item for item in deliveries if begun - item.renewed > self._ack_deadline / 3]
        due = [item for item in due if item.belongs_to(self) and not item.is_expired]
        if not due:
            return
        self._apart_from = begun + self._ack_deadline / 12
        try:
            extended = asyncio.run(self._extended_apart([item.received for item in due]))
        except Exception as error:
            log.debug("extend on %s, from another thread: %s", self.topic, error)
            return
        if not extended:
            self._apart_from = math.inf
            return
        for item in due:
            item.renewed = begun

    async def _extended_apart(self, records: Sequence[Received]) -> bool:
        async with asyncio.timeout(self._ack_deadline / 3):
            return await self.source.extend_apart(records)

    async def _keep_leases(self) -> None:
        while True:
            await self.clock.sleep(self._ack_deadline / 3)
            now = self.clock.monotonic()
            if now > self.good_until:
                self._inbox.expire()  # An expired lease must not appear as renewed.
            late = [item.delivery for item in self._letters.waiting]
            due = [
                d
                for d in (*self._held, *late)
                if now - d.renewed > self._ack_deadline * RENEWED_PART
            ]
            if self._auto_extend:
                try:
                    if due:
                        await self.extend(due)
                except Exception as error:
                    log.warning("%s; retrying before the lease expires", error)
                else:
                    if self._has_leases:
                        self.good_until = now + self._certain
            elif not self._broker_leases:
                for delivery in due:
                    if now - delivery.renewed >= self._ack_deadline and delivery in self._held:
                        self._redeliver_expired(delivery)

    def _redeliver_expired(self, delivery: Delivery) -> None:
        """Redeliver a message whose lease has expired, because the broker has no leases."""
        delivery.verb = "expired"
        self._nacks.append(self._nack(delivery, 0.0, delivery.attempt + 1))
        del self._held[delivery]
        self._start_flush()
