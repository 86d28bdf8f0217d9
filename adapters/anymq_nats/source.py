"""A member of a group: takes messages from the group's durable consumer and settles them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from time import monotonic, time

import nats.errors

from anymq.driver import (
    Begun,
    Nack,
    Outcome,
    Received,
    Rejected,
    Source,
    StoreRecords,
    attempt_of,
)

from .client import protocol as wire
from .connection import Link
from .delays import compare_clocks, scheduled
from .groups import Consumer
from .jetstream.pending import Pull
from .jetstream.presence import Presence
from .messages import Delivered
from .outgoing import Outgoing
from .publisher import Publisher
from .starts import Starts

_CLOSING = 1.0


class GroupSource(Source):
    """One member of a group.

    The server applies an ack to the stream sequence, whoever holds the message by then. So the
    lease is watched here, from the latest moment at which it may have begun, and a settlement
    that comes after its end is dropped.
    """

    def __init__(
        self,
        link: Link,
        publisher: Publisher,
        consumer: Consumer,
        *,
        member: str,
        prefetch_bytes: int,
        starts: Starts | None = None,
    ) -> None:
        self.counts_starts = starts is not None
        self._starts = starts
        self._link = link
        self._publisher = publisher
        self._consumer = consumer
        self._pull = Pull(
            link,
            consumer.stream.name,
            consumer.name,
            consumer.max_batch,
            lease=consumer.lease,
            # While one request is served there may be another.
            max_bytes=prefetch_bytes // 2,
        )
        self._presence = Presence(link, consumer.stream.name, consumer.name, member)
        self._closed = False

    async def open(self) -> None:
        """Be ready to receive."""
        await self._presence.open()
        try:
            await self._pull.open()
        except BaseException:
            self._presence.close()
            raise

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return ()
        taken = await self._pull.take(limit, wait)
        now = monotonic()
        if self._starts is not None and any([item.redeliveries for item in taken]):
            await self._look(self._starts, taken)
            now = monotonic()
        return [item for item in taken if now < item.expires]

    async def undelivered(self) -> object:
        return await self._pull.undelivered()

    async def ack(self, records: Sequence[Received]) -> None:
        await self._settle(wire.ACK, records)

    async def extend(self, records: Sequence[Received]) -> None:
        leases = _live(records)
        if leases:
            begun = monotonic()
            await self._link.flush(wire.answers(wire.PROGRESS, [x.reply for x in leases]))
            for lease in leases:
                lease.expires = begun + self._consumer.lease

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        leases = _live(records)
        begun = monotonic()
        link = self._link.apart()
        try:
            await link.open(link.timeout)
            await link.flush(wire.answers(wire.PROGRESS, [x.reply for x in leases]))
        finally:
            await link.aclose()
        for lease in leases:
            lease.expires = begun + self._consumer.lease
        return True

    def known_attempt(self, record: Received) -> int | None:
        if self._starts is None or not record.redeliveries:
            return None
        token: Delivered = record.token
        return max(attempt_of(record) - record.redeliveries, token.noted)

    async def begin(self, begun: Sequence[Begun]) -> None:
        live = [item for item in begun if _live([item.received])]
        if live and self._starts is not None:
            await self._starts.note({item.received.position: item.attempt for item in live})
            for item in live:
                item.received.token.noted = item.attempt

    async def nack(self, nacks: Sequence[Nack]) -> None:
        copied: list[Nack] = []
        plain: list[Received] = []
        later: list[tuple[Received, float]] = []
        noted: list[Begun] = []
        for item in nacks:
            # A delay that the consumer keeps can end early when the server is killed: it writes
            # whole seconds, and those 0.1 s late. A copy is stored before it is confirmed.
            # And where starts are counted, another delivery of the same says nothing.
            counted = self.counts_starts or item.attempt != item.native_attempt
            if self._can_copy(item) and (item.delay > 0 or counted):
                copied.append(item)
            elif item.delay > 0:
                later.append((item.received, item.delay))
                noted.append(Begun(item.received, item.attempt))
            else:
                plain.append(item.received)
        await self._settle(wire.NAK, plain)
        await self.begin(noted)
        await self._delay(later)
        await self._replace(copied)

    async def release(self, nacks: Sequence[Nack]) -> None:
        # Every NAK counts, so what shall not count is replaced by a copy.
        if self._consumer.private is None:
            await self._settle(wire.NAK, [item.received for item in nacks])
        else:
            await self._replace(nacks)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        rejected = [item for item in rejected if _live([item.received])]
        if not rejected:
            return
        outcomes = await store([item.letter for item in rejected])
        await self._conclude(wire.TERM, [item.received for item in rejected], outcomes)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._presence.close()
        try:
            await self._give_back()
        finally:
            self._pull.close()

    def _can_copy(self, item: Nack) -> bool:
        return self._consumer.private is not None and (
            item.delay <= 0 or self._consumer.stream.schedules
        )

    async def _settle(self, verb: bytes, records: Iterable[Received]) -> None:
        """Tell the server, and return when it has read it."""
        leases = _live(records)
        if leases:
            await self._link.flush(wire.answers(verb, [lease.reply for lease in leases]))
            for lease in leases:
                lease.settled = True
            over = [lease.position for lease in leases if lease.noted]
            if over and verb != wire.NAK and self._starts is not None:
                await self._starts.forget(over)

    async def _look(self, starts: Starts, taken: Sequence[Delivered]) -> None:
        again = [item for item in taken if item.redeliveries]
        try:
            found = await starts.look([item.position for item in again])
        except BaseException:
            self._pull.buffer.extendleft(reversed(taken))
            raise
        for item, attempt in zip(again, found, strict=True):
            item.noted = attempt

    async def _delay(self, items: Sequence[tuple[Received, float]]) -> None:
        live = [(lease, delay) for record, delay in items for lease in _live([record])]
        if live:
            await self._link.flush(b"".join([wire.nak_later(x.reply, delay) for x, delay in live]))
            for lease, _ in live:
                lease.settled = True

    async def _replace(self, nacks: Sequence[Nack]) -> None:
        """Store a copy of each for this group alone; then settle those whose copy is confirmed."""
        nacks = [item for item in nacks if _live([item.received])]
        if any(item.delay > 0 for item in nacks):
            await compare_clocks(self._link, self._consumer.stream)
        outcomes = await self._publisher.send([self._copy(item) for item in nacks])
        await self._conclude(wire.ACK, [item.received for item in nacks], outcomes)

    async def _conclude(
        self, verb: bytes, records: Sequence[Received], outcomes: Sequence[Outcome]
    ) -> None:
        failed = [isinstance(outcome, BaseException) for outcome in outcomes]
        await self._settle(verb, [r for r, bad in zip(records, failed, strict=True) if not bad])
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _copy(self, item: Nack) -> Outgoing:
        private = self._consumer.private or ""
        copy = item.copy
        if item.delay <= 0:
            original = copy.original
            return Outgoing(
                private, copy.unique, copy.body, copy.own, copy.common, original=original
            )
        consumer, due = self._consumer, time() + item.delay
        return scheduled(
            self._link, consumer.stream, copy, due, owner=consumer.name, target=private
        )

    async def _give_back(self) -> None:
        """Return what has come since the last `receive`, if the server can be told quickly."""
        client = self._link.client
        self._pull.mute()
        if not client.is_connected:
            return
        try:
            await self._link.flush(timeout=_CLOSING)
            left = list(self._pull.buffer)
            # The first delivery of a message that names itself can be undone, uncounted.
            undone = [raw for raw in left if self._can_undo(raw)]
            kept = [raw for raw in left if not self._can_undo(raw)]
            await self._publisher.send([self._again(raw) for raw in undone])
            data = wire.answers(wire.ACK, [x.reply for x in undone])
            data += wire.answers(wire.NAK, [x.reply for x in kept])
            if data:
                await self._link.flush(data, timeout=_CLOSING)
        except (nats.errors.Error, OSError):
            return  # they come back when their leases end

    def _can_undo(self, raw: Delivered) -> bool:
        named = b"\nce-id:" in (raw.block or b"")
        return self._consumer.private is not None and named and not raw.redeliveries

    def _again(self, raw: Delivered) -> Outgoing:
        unique = str(uuid.uuid4())
        headers = wire.parse_headers(raw.block or b"").items()
        mine = [(name, value) for name, value in headers if not name.lower().startswith("nats-")]
        return Outgoing(self._consumer.private or "", unique, raw.body, dict(mine), original=raw)


def _live(records: Iterable[Received]) -> list[Delivered]:
    now = monotonic()
    leases: list[Delivered] = [record.token for record in records]
    return [lease for lease in leases if not lease.settled and now < lease.expires]
