"""`OrderedQueueSource`: one member of an ordered group, with a consumer for each partition."""

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

from . import messages
from .client.fetcher import Delivery, Fetcher
from .client.internals import bounded
from .groups.attempts import Attempts, Note
from .groups.backfill import BackfillTask
from .groups.partition_consumer import PartitionConsumer

CLOSE_TIMEOUT = 1.5
"""Seconds to note unsettled messages when the source is closed."""
NOTE_ROUNDS = 2
"""Rounds of noting: messages that come during the first are noted in the second."""


@dataclass(slots=True)
class _Token:
    partition: PartitionConsumer
    fetcher: Fetcher
    tag: int
    attempt: int
    counted: int
    due: Due | None = None
    orphan: bool = False
    """Whether another member received the message and did not settle it."""

    @property
    def is_live(self) -> bool:
        return self.partition.fetcher is self.fetcher and self.fetcher.holds(self.tag)


class OrderedQueueSource(OrderedSource):
    """Reads the partitions that the server assigns to this member.

    The server hands a partition over when its owner has settled all its deliveries, or is gone;
    then the unsettled ones are delivered again, in order. So a member whose connection lives never
    loses a partition, and `revoke` is called only when the connection is lost.
    """

    counts_starts = True

    def __init__(
        self,
        partitions: Sequence[PartitionConsumer],
        *,
        attempts: Attempts,
        backfill: BackfillTask | None,
        listener: Listener,
    ) -> None:
        self._partitions = list(partitions)
        self._attempts = attempts
        self._backfill = backfill
        self._listener = listener
        self._in_flight: dict[tuple[PartitionConsumer, int], Received] = {}
        self._changed = asyncio.Event()
        self._lost = False
        self._closed = False
        for partition in partitions:
            partition.on_change = self._changed.set

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """See `OrderedSource`. The end of one partition's channel ends all: `SourceLost`."""
        over = False

        def end() -> None:  # Not by the clock: a timer may fire a little before its time.
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
        """See `Reader`. The server delivers a queue to one member only, so all that shows a stall
        is a queue without any consumer."""
        found = [await partition.undelivered() for partition in self._partitions]
        return [each for each in found if each is not None] or None

    async def ack(self, records: Sequence[Received]) -> None:
        """See `GroupReader`."""
        tags: dict[PartitionConsumer, list[int]] = {}
        settled: list[Note] = []
        late: list[Received] = []
        for record in records:
            token: _Token = record.token
            self._in_flight.pop((token.partition, token.tag), None)
            if token.is_live:
                tags.setdefault(token.partition, []).append(token.tag)
                if self._attempts.knows(record.position):
                    settled.append(Note(record.position, 0, 0))
            else:
                late.append(record)
        if late:
            self._listener.dropped(late)
        for partition, some in tags.items():
            await partition.fetcher.ack(some)
        self._changed.set()
        if settled:
            await self._attempts.write(settled)

    def may_be_again(self, record: Received) -> bool:
        """See `GroupReader`. A position is the id that the publisher wrote."""
        return messages.was_redelivered(record)

    async def keep(self, nacks: Sequence[Nack]) -> None:
        """See `OrderedSource`."""
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
        """See `GroupReader`."""
        token: _Token = record.token
        return token.attempt if token.orphan else None

    async def begin(self, begun: Sequence[Begun]) -> None:
        """See `GroupReader`."""
        live = [item for item in begun if item.received.token.is_live]
        if live:
            await self._attempts.write(
                [Note(i.received.position, i.attempt, i.received.token.counted) for i in live]
            )

    async def aclose(self) -> None:
        """See `Reader`. Unsettled messages are noted first, because servers before 4.3 count them.

        The channels are closed with the consumers on them. If a consumer were cancelled first, the
        next owner would start while earlier messages were still here.
        """
        if self._closed:
            return
        self._closed = True
        if self._backfill is not None:
            self._backfill.cancel()
        try:
            if not self._lost:
                with suppress(TimeoutError, OSError, AMQPError, BrokerError):
                    await bounded(self._note_unsettled(), CLOSE_TIMEOUT)
        finally:
            await asyncio.gather(*(partition.aclose() for partition in self._partitions))
            if self._backfill is not None:
                await self._backfill.aclose()

    async def _advance(self) -> None:
        try:
            if self._backfill is not None:
                self._backfill.check()
            for partition in self._partitions:
                await partition.advance()
        except Exception as error:
            if not self._lost:
                self._lost = True
                numbers = frozenset(partition.number for partition in self._partitions)
                await self._listener.revoke(numbers, True)
            raise SourceLost(str(error)) from error

    async def _collect(self, limit: int) -> list[Received]:
        """Return up to `limit` buffered records, from each partition in turn."""
        records: list[Received] = []
        for partition in list(self._partitions):
            if partition.fetcher.buffered and len(records) < limit:
                taken = await partition.take(limit - len(records))
                try:
                    records += await self._records(partition, taken)
                except BaseException:
                    partition.fetcher.put_back(taken)
                    raise
        if records:  # The next call starts with another partition.
            self._partitions.append(self._partitions.pop(0))
        return records

    async def _records(
        self, partition: PartitionConsumer, deliveries: Sequence[Delivery]
    ) -> list[Received]:
        if any(one.redelivered for one in deliveries):
            await self._attempts.read()
        records = [self._record(partition, one) for one in deliveries]
        self._in_flight.update({(partition, record.token.tag): record for record in records})
        return records

    def _record(self, partition: PartitionConsumer, delivery: Delivery) -> Received:
        record = messages.received(
            delivery, token=None, partition=partition.number, name_for=messages.fingerprint
        )
        assert record is not None
        if record.fresh and not delivery.redelivered:
            record.token = _Token(partition, partition.fetcher, delivery.tag, 1, 0)
            return record
        counted, orphan = record.redeliveries, delivery.redelivered
        attempt = attempt_of(record)
        if orphan:
            if noted := self._attempts.shown(record.position):
                attempt = noted
                record.redeliveries = Begun(record, noted).redeliveries
                record.not_before = self._attempts.due(record.position)
            else:
                # The server's count includes deliveries that no handler has started.
                attempt += messages.earlier_deliveries(delivery, record.headers) - counted
        record.token = _Token(
            partition,
            partition.fetcher,
            delivery.tag,
            attempt,
            counted,
            record.not_before,
            orphan,
        )
        return record

    async def _note_unsettled(self) -> None:
        noted: set[tuple[PartitionConsumer, int]] = set()
        for _ in range(NOTE_ROUNDS):
            for partition in self._partitions:
                await self._records(
                    partition, await partition.take(len(partition.fetcher.buffered))
                )
            new = {key: record for key, record in self._in_flight.items() if key not in noted}
            await self._attempts.write(
                [
                    Note(record.position, token.attempt, token.counted, token.due)
                    for record in new.values()
                    if (token := record.token).is_live
                ]
            )
            noted.update(new)
