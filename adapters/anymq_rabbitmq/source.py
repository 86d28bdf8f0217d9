"""`QueueSource`: one member of an unordered group, a consumer of the group's queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from anymq.driver import (
    Begun,
    BrokerError,
    Listener,
    Nack,
    NotFound,
    Outcome,
    Received,
    Source,
    SourceLost,
    TransientError,
    attempt_of,
    new_id,
    settle_stored,
)

from . import messages
from .client.fetcher import Delivery, Fetcher
from .client.internals import bounded
from .client.protocol import queue_counts
from .connection import Connection
from .delays import DelayLadder
from .groups.attempts import Attempts, Note
from .groups.backfill import BackfillTask
from .publisher import Outgoing, Publisher

RELEASE_TIMEOUT = 1.5
"""Seconds of each step to return buffered messages when the source is closed."""
LEAST_DOUBLED, MOST_DOUBLED_BYTES = 8, 4 * 1024 * 1024
"""A window of at least so many messages and fewer bytes is doubled, so that the server's window
does not follow each step of the core's."""
SHRINK_RATIO = 16
"""The server's window becomes smaller when it is more than this many times the core's."""
UNCOUNTED_NACK_VERSION = (4, 3)
"""Since this version basic.nack returns a message without counting it as a failure."""


class QueueSource(Source):
    """A consumer of the group's queue.

    `nack` and `release` publish a copy to the group's queue alone, wait for its confirmation, and
    acknowledge the original. Tokens belong to the channel: once it is gone they settle nothing.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        queue: str,
        generation: int,
        connection: Connection,
        publisher: Publisher,
        ladder: DelayLadder,
        backfill: BackfillTask | None,
        most: int,
        listener: Listener,
        attempts: Attempts | None = None,
    ) -> None:
        """`most` bounds the server's window; `attempts` is None for an operator's queue."""
        self.counts_starts = attempts is not None
        self._attempts = attempts
        self._fetcher = fetcher
        self._queue = queue
        self._generation = generation
        self._connection = connection
        self._publisher = publisher
        self._ladder = ladder
        self._backfill = backfill
        self._most = most
        self._listener = listener
        self._size = 0.0
        """The average size of the last deliveries, in bytes."""
        self._closed = False

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """See `Source`. Raises `SourceLost` at once when the channel ends."""
        if self._backfill is not None:
            self._backfill.check()
        if error := self._fetcher.error:
            raise SourceLost(str(error)) from error
        if limit < 1:
            return ()
        try:
            await self._follow_credit(limit)
            deliveries = await self._fetcher.take(limit, wait)
        except Exception as error:
            raise SourceLost(str(error)) from error
        if deliveries:
            self._size = sum([len(one.body) for one in deliveries]) / len(deliveries)
        if self._attempts is not None and any(one.redelivered for one in deliveries):
            await self._read_attempts(self._attempts, deliveries)
        records: list[Received] = []
        named: list[Delivery] = []
        nameless: list[Delivery] = []
        for delivery in deliveries:
            record = messages.received(delivery, token=delivery)
            if record is None:
                nameless.append(delivery)
            else:
                records.append(record)
                named.append(delivery)
        if nameless:
            await self._give_ids(nameless, named)
        return records

    async def undelivered(self) -> object:
        """See `Source`. A server that has forgotten a consumer does not always report it."""
        if self._fetcher.full:
            return None
        ready, consumers = await queue_counts(self._connection, self._queue)
        return (self._queue, ready, consumers) if ready else None

    async def ack(self, records: Sequence[Received]) -> None:
        """See `Source`."""
        if not await self._fetcher.ack(self._tags(records)):
            self._listener.dropped(records)
            return
        attempts = self._attempts
        if attempts is not None and attempts.noted:
            over = [one.position for one in records if attempts.knows(one.position)]
            if over:
                await attempts.write([Note(position, 0, 0) for position in over])

    def known_attempt(self, record: Received) -> int | None:
        """See `Source`."""
        if self._attempts is None or not record.token.redelivered:
            return None
        earlier = messages.earlier_deliveries(record.token, record.headers)
        first = attempt_of(record) - record.redeliveries + earlier
        return max(first, self._attempts.shown(record.position) or 0)

    async def begin(self, begun: Sequence[Begun]) -> None:
        """See `Source`."""
        live = [item for item in begun if self._is_live(item.received)]
        if live and self._attempts is not None:
            await self._attempts.write(
                [Note(i.received.position, i.attempt, i.received.redeliveries) for i in live]
            )

    def may_be_again(self, record: Received) -> bool:
        """See `Source`. A position is the id that the publisher wrote."""
        return messages.was_redelivered(record)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """See `Source`."""
        live = [nack for nack in nacks if self._is_live(nack.received)]
        copies = [await self._delayed_copy(nack) for nack in live]
        await self._move([nack.received for nack in live], copies)

    async def release(self, nacks: Sequence[Nack]) -> None:
        """See `Source`."""
        if not any(self._is_live(nack.received) for nack in nacks):
            return
        await self._fetcher.pause()
        if self._connection.version >= UNCOUNTED_NACK_VERSION:
            # The queue does not know attempts that were made in process; a copy carries them.
            same = [nack for nack in nacks if nack.redeliveries == nack.received.redeliveries]
            await self._fetcher.requeue(self._tags(nack.received for nack in same))
            nacks = [nack for nack in nacks if nack.redeliveries != nack.received.redeliveries]
        live = [nack for nack in nacks if self._is_live(nack.received)]
        copies = [self._copy(nack) for nack in live]
        await self._move([nack.received for nack in live], copies)

    async def aclose(self) -> None:
        """See `Source`. Buffered messages are returned uncounted too, if there is time."""
        if self._closed:
            return
        self._closed = True
        if self._backfill is not None:
            self._backfill.cancel()
        try:
            await self._return_buffered(await self._fetcher.stop())
        finally:
            await self._fetcher.aclose()
            if self._backfill is not None:
                await self._backfill.aclose()

    async def _follow_credit(self, limit: int) -> None:
        """Let the server's window follow the core's: what it sends here, no other member gets."""
        fetcher = self._fetcher
        taken = len(fetcher.unsettled) - len(fetcher.buffered)
        wanted = min(max(1, limit + taken), self._most)
        if wanted > fetcher.window:
            small = 0 < self._size * wanted < MOST_DOUBLED_BYTES
            window = 2 * wanted if wanted >= LEAST_DOUBLED and small else wanted
            await fetcher.widen(min(window, self._most))
        elif wanted * SHRINK_RATIO < fetcher.window and fetcher.full:
            await fetcher.narrow(wanted)

    def _is_live(self, record: Received) -> bool:
        delivery: Delivery = record.token
        return delivery.fetcher is self._fetcher and self._fetcher.holds(delivery.tag)

    def _tags(self, records: Iterable[Received]) -> list[int]:
        fetcher = self._fetcher
        deliveries: Iterable[Delivery] = (record.token for record in records)
        return [one.tag for one in deliveries if one.fetcher is fetcher]

    def _copy(self, nack: Nack) -> Outgoing:
        return messages.outgoing(nack.copy, exchange="", routing_key=self._queue)

    async def _delayed_copy(self, nack: Nack) -> Outgoing:
        if nack.delay <= 0:
            return self._copy(nack)
        exchange, key = await self._ladder.route(
            self._queue, nack.delay, generation=self._generation
        )
        return messages.outgoing(nack.copy, exchange=exchange, routing_key=key)

    async def _move(self, originals: Sequence[Received], copies: Sequence[Outgoing]) -> None:
        outcomes = await self._publisher.publish(copies)
        await settle_stored(originals, [self._checked(one) for one in outcomes], self.ack)

    def _checked(self, outcome: Outcome) -> Outcome:
        """Return the outcome of a copy; a missing delay queue is transient: it is made again."""
        if not isinstance(outcome, NotFound | ChannelNotFoundEntity):
            return outcome
        self._ladder.forget()
        transient = TransientError(str(outcome))
        transient.__cause__ = outcome
        return transient

    async def _read_attempts(self, attempts: Attempts, deliveries: Sequence[Delivery]) -> None:
        try:
            await attempts.read()
        except BaseException:
            self._fetcher.put_back(deliveries)
            raise

    async def _give_ids(self, nameless: Sequence[Delivery], others: Sequence[Delivery]) -> None:
        """Replace each of these messages by a copy with an id.

        A message of another publisher without an id cannot be told from the next equal one, nor be
        recognised when it is redelivered.
        """
        copies = [messages.copy(d, self._queue, message_id=new_id()) for d in nameless]
        try:
            await self._publisher.publish_all(copies)
        except BaseException:
            self._fetcher.put_back(sorted([*nameless, *others], key=lambda d: d.tag))
            raise
        await self._fetcher.ack([delivery.tag for delivery in nameless])

    async def _return_buffered(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        if self._connection.version >= UNCOUNTED_NACK_VERSION:
            await self._fetcher.requeue([delivery.tag for delivery in deliveries])
            return
        with suppress(TimeoutError, OSError, AMQPError, BrokerError):
            if self._attempts is not None and any(one.redelivered for one in deliveries):
                await bounded(self._attempts.read(), RELEASE_TIMEOUT)
            copies = [self._uncounted_copy(delivery) for delivery in deliveries]
            await bounded(self._publisher.publish_all(copies), RELEASE_TIMEOUT)
            await self._fetcher.ack([delivery.tag for delivery in deliveries])

    def _uncounted_copy(self, delivery: Delivery) -> Outgoing:
        """Return a copy that shows the known starts of handlers, not the server's deliveries."""
        record = messages.received(delivery, token=delivery)
        known = None if record is None else self.known_attempt(record)
        if record is None or known is None:
            return messages.copy(delivery, self._queue)
        return messages.copy(delivery, self._queue, count=Begun(record, known).redeliveries)
