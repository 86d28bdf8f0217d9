"""`OrderedQueueSource`: one member of an ordered group, a consumer on each partition's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from aiormq.exceptions import AMQPError

from anymq.driver import (
    Begun,
    BrokerError,
    Due,
    Listener,
    Nack,
    OrderedSource,
    Received,
    SourceLost,
    attempt_of,
)

from . import convert
from .attempts import Attempts, Note
from .consumer import Consumer, Delivery
from .fill import Filling
from .lane import Lane
from .link import bounded

CLOSE_TIMEOUT = 1.5
ROUNDS = 2


@dataclass(slots=True)
class _Token:
    lane: Lane
    consumer: Consumer
    tag: int
    attempt: int
    counted: int
    due: Due | None = None
    orphan: bool = False
    """Whether another consumer had it and has not settled it."""

    @property
    def is_live(self) -> bool:
        return self.lane.consumer is self.consumer and self.consumer.holds(self.tag)


class OrderedQueueSource(OrderedSource):
    """Reads the partitions that the server lets it have.

    The server hands a partition over when its owner has settled all that it holds, or is gone; what
    the owner held is delivered again, in order. So nothing is ever taken away from a member whose
    connection lives, and `revoke` is asked for only when it is lost.
    """

    counts_starts = True

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        attempts: Attempts,
        filling: Filling | None,
        listener: Listener,
    ) -> None:
        self._lanes = list(lanes)
        self._attempts = attempts
        self._filling = filling
        self._listener = listener
        self._held: dict[tuple[Lane, int], Received] = {}
        self._changed = asyncio.Event()
        self._lost = False
        self._closed = False
        for lane in lanes:
            lane.on_change = self._changed.set

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """See `Source`. Whatever ends one partition's channel ends them all: `SourceLost`."""
        over = False

        def end() -> None:  # Not by the clock: a timer may ring a little before its time.
            nonlocal over
            over = True
            self._changed.set()

        timer = asyncio.get_running_loop().call_later(wait, end)
        try:
            while True:
                self._changed.clear()
                await self._advance()
                records = await self._collect(limit) if limit > 0 else []
                if records or over or limit < 1:
                    return records
                await self._changed.wait()
        finally:
            timer.cancel()

    async def undelivered(self) -> object:
        """See `Source`. Only one member's consumer on a queue is given anything, so all that can be
        told is that a queue has none at all."""
        found = [await lane.unread() for lane in self._lanes]
        return [each for each in found if each is not None] or None

    async def ack(self, records: Sequence[Received]) -> None:
        """See `Source`."""
        tags: dict[Lane, list[int]] = {}
        settled: list[Note] = []
        late: list[Received] = []
        for record in records:
            token: _Token = record.token
            self._held.pop((token.lane, token.tag), None)
            if token.is_live:
                tags.setdefault(token.lane, []).append(token.tag)
                if self._attempts.knows(record.position):
                    settled.append(Note(record.position, 0, 0))
            else:
                late.append(record)
        if late:
            self._listener.dropped(late)
        for lane, some in tags.items():
            await lane.consumer.ack(some)
        self._changed.set()
        if settled:
            await self._attempts.write(settled)

    def may_be_again(self, record: Received) -> bool:
        """See `Source`. A position is the id that the publisher wrote."""
        return convert.came_before(record)

    async def keep(self, nacks: Sequence[Nack]) -> None:
        """See `Source`."""
        live = [nack for nack in nacks if nack.received.token.is_live]
        await self._attempts.write(
            [
                Note(nack.received.position, nack.attempt, nack.received.token.counted, nack.due)
                for nack in live
            ]
        )
        for nack in live:
            nack.received.token.attempt = nack.attempt
            nack.received.token.due = nack.due

    def known_attempt(self, record: Received) -> int | None:
        """See `Source`."""
        token: _Token = record.token
        return token.attempt if token.orphan else None

    async def begin(self, begun: Sequence[Begun]) -> None:
        """See `Source`."""
        live = [item for item in begun if item.received.token.is_live]
        if live:
            await self._attempts.write(
                [Note(i.received.position, i.attempt, i.received.token.counted) for i in live]
            )

    async def aclose(self) -> None:
        """See `Source`. What is given back is noted first: a server before 4.3 counts it.

        The channels are closed with the consumers on them. A consumer that were cancelled first
        would make way for the next owner while messages before its own were still here.
        """
        if self._closed:
            return
        self._closed = True
        if self._filling is not None:
            self._filling.cancel()
        try:
            if not self._lost:
                with suppress(TimeoutError, OSError, AMQPError, BrokerError):
                    await bounded(self._note_unsettled(), CLOSE_TIMEOUT)
        finally:
            await asyncio.gather(*(lane.aclose() for lane in self._lanes))
            if self._filling is not None:
                await self._filling.aclose()

    async def _advance(self) -> None:
        try:
            if self._filling is not None:
                self._filling.check()
            for lane in self._lanes:
                await lane.advance()
        except Exception as error:
            if not self._lost:
                self._lost = True
                await self._listener.revoke(frozenset(lane.number for lane in self._lanes), True)
            raise SourceLost(str(error)) from error

    async def _collect(self, limit: int) -> list[Received]:
        """What is there, up to `limit`, from each partition in turn."""
        records: list[Received] = []
        for lane in list(self._lanes):
            if lane.consumer.untaken and len(records) < limit:
                taken = await lane.take(limit - len(records))
                try:
                    records += await self._records(lane, taken)
                except BaseException:
                    lane.consumer.put_back(taken)
                    raise
        if records:  # Others first, the next time.
            self._lanes.append(self._lanes.pop(0))
        return records

    async def _records(self, lane: Lane, deliveries: Sequence[Delivery]) -> list[Received]:
        if any(one.redelivered for one in deliveries):
            await self._attempts.read()
        records = [self._record(lane, one) for one in deliveries]
        self._held.update({(lane, record.token.tag): record for record in records})
        return records

    def _record(self, lane: Lane, delivery: Delivery) -> Received:
        record = convert.received(
            delivery, token=None, partition=lane.number, nameless=convert.fingerprint
        )
        assert record is not None
        if record.fresh and not delivery.redelivered:
            record.token = _Token(lane, lane.consumer, delivery.tag, 1, 0)
            return record
        counted, orphan = record.redeliveries, delivery.redelivered
        attempt = attempt_of(record)
        if orphan:
            first = attempt - counted
            attempt = self._attempts.shown(record.position) or 0
            if attempt:
                record.redeliveries = attempt - first
                record.not_before = self._attempts.due(record.position)
            else:
                attempt = first + convert.earlier(delivery, record.headers)
        due = record.not_before
        record.token = _Token(lane, lane.consumer, delivery.tag, attempt, counted, due, orphan)
        return record

    async def _note_unsettled(self) -> None:
        noted: set[tuple[Lane, int]] = set()
        for _ in range(ROUNDS):  # A round takes its time, in which more may come.
            for lane in self._lanes:
                await self._records(lane, await lane.take(len(lane.consumer.untaken)))
            new = {key: record for key, record in self._held.items() if key not in noted}
            await self._attempts.write(
                [
                    Note(
                        record.position,
                        record.token.attempt,
                        record.token.counted,
                        record.token.due,
                    )
                    for record in new.values()
                    if record.token.is_live
                ]
            )
            noted.update(new)
