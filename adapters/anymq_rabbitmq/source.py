"""`QueueSource`: one member of a group, a consumer on the group's queue."""

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
    Received,
    Source,
    SourceLost,
    TransientError,
    attempt_of,
    new_id,
)

from . import convert
from .attempts import Attempts, Note
from .consumer import Consumer, Delivery
from .delays import Delays
from .fill import Filling
from .link import Link, bounded
from .publisher import Outgoing, Publisher
from .topology import counts

GIVE_BACK_TIMEOUT = 1.5
LARGE, DOUBLED_BYTES = 8, 4 * 1024 * 1024
"""A window of so many messages, of fewer bytes, is doubled, not to follow each step of the core's.
"""
SHRINK = 16
"""It becomes smaller when the core's is smaller by this."""
# Since then basic.nack gives a message back without counting that as a failure.
_UNCOUNTED_NACK = (4, 3)


class QueueSource(Source):
    """A consumer on the group's queue.

    Nack and release publish a copy to the group's queue alone, wait for its confirmation, and
    acknowledge the original. Tokens belong to the channel: once it is gone they settle nothing.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        queue: str,
        life: int,
        link: Link,
        publisher: Publisher,
        delays: Delays,
        filling: Filling | None,
        most: int,
        listener: Listener,
        attempts: Attempts | None = None,
    ) -> None:
        self.counts_starts = attempts is not None
        self._attempts = attempts
        self._consumer = consumer
        self._queue = queue
        self._life = life
        self._link = link
        self._publisher = publisher
        self._delays = delays
        self._filling = filling
        self._most = most
        self._listener = listener
        self._size = 0.0
        self._closed = False

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """See `Source`. Whatever ends the channel raises `SourceLost` at once."""
        if self._filling is not None:
            self._filling.check()
        if error := self._consumer.error:
            raise SourceLost(str(error)) from error
        if limit < 1:
            return ()
        try:
            await self._follow(limit)
            deliveries = await self._consumer.take(limit, wait)
        except Exception as error:
            raise SourceLost(str(error)) from error
        if deliveries:
            self._size = sum([len(one.body) for one in deliveries]) / len(deliveries)
        if self._attempts is not None and any(one.redelivered for one in deliveries):
            await self._read_notes(self._attempts, deliveries)
        records: list[Received] = []
        named: list[Delivery] = []
        nameless: list[Delivery] = []
        for delivery in deliveries:
            record = convert.received(delivery, token=delivery)
            if record is None:
                nameless.append(delivery)
            else:
                records.append(record)
                named.append(delivery)
        if nameless:
            await self._name(nameless, named)
        return records

    async def undelivered(self) -> object:
        """See `Source`. A server that has forgotten a consumer does not always say so."""
        if self._consumer.full:
            return None
        ready, consumers = await counts(self._link, self._queue)
        return (self._queue, ready, consumers) if ready else None

    async def _follow(self, limit: int) -> None:
        """Let the server's window follow the core's: what it pushes here no other member gets."""
        consumer = self._consumer
        held = len(consumer.unsettled) - len(consumer.untaken)
        wanted = min(max(1, limit + held), self._most)
        if wanted > consumer.window:
            small = 0 < self._size * wanted < DOUBLED_BYTES
            window = 2 * wanted if wanted >= LARGE and small else wanted
            await consumer.widen(min(window, self._most))
        elif wanted * SHRINK < consumer.window and consumer.full:
            await consumer.narrow(wanted)

    async def ack(self, records: Sequence[Received]) -> None:
        """See `Source`."""
        if not await self._consumer.ack(self._tags(records)):
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
        first = (
            attempt_of(record) - record.redeliveries + convert.earlier(record.token, record.headers)
        )
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
        return convert.came_before(record)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """See `Source`."""
        live = [nack for nack in nacks if self._is_live(nack.received)]
        messages = [await self._copy(nack) for nack in live]
        await self._move([nack.received for nack in live], messages)

    async def release(self, nacks: Sequence[Nack]) -> None:
        """See `Source`."""
        if not any(self._is_live(nack.received) for nack in nacks):
            return
        await self._consumer.pause()
        if self._link.version >= _UNCOUNTED_NACK:
            # The queue knows nothing of attempts that were made in place: a copy says them.
            same = [nack for nack in nacks if nack.attempt == nack.native_attempt - 1]
            await self._consumer.requeue(self._tags(nack.received for nack in same))
            nacks = [nack for nack in nacks if nack.attempt != nack.native_attempt - 1]
        live = [nack for nack in nacks if self._is_live(nack.received)]
        messages = [self._straight(nack) for nack in live]
        await self._move([nack.received for nack in live], messages)

    async def aclose(self) -> None:
        """See `Source`. What the core never saw goes back uncounted too, if there is time."""
        if self._closed:
            return
        self._closed = True
        if self._filling is not None:
            self._filling.cancel()
        try:
            await self._give_back(await self._consumer.stop())
        finally:
            await self._consumer.aclose()
            if self._filling is not None:
                await self._filling.aclose()

    def _is_live(self, record: Received) -> bool:
        delivery: Delivery = record.token
        return delivery.consumer is self._consumer and self._consumer.holds(delivery.tag)

    def _tags(self, records: Iterable[Received]) -> list[int]:
        consumer = self._consumer
        deliveries: Iterable[Delivery] = (record.token for record in records)
        return [one.tag for one in deliveries if one.consumer is consumer]

    def _straight(self, nack: Nack) -> Outgoing:
        return convert.outgoing(nack.copy, exchange="", routing_key=self._queue)

    async def _copy(self, nack: Nack) -> Outgoing:
        if nack.delay <= 0:
            return self._straight(nack)
        exchange, key = await self._delays.route(self._queue, nack.delay, life=self._life)
        return convert.outgoing(nack.copy, exchange=exchange, routing_key=key)

    async def _move(self, originals: Sequence[Received], copies: Sequence[Outgoing]) -> None:
        outcomes = await self._publisher.publish(copies)
        stored = [
            original
            for original, outcome in zip(originals, outcomes, strict=True)
            if outcome is None
        ]
        await self.ack(stored)
        for outcome in outcomes:
            if isinstance(outcome, NotFound | ChannelNotFoundEntity):
                # Somebody has deleted the delay queues: they are made again at the next try.
                self._delays.forget()
                raise TransientError(str(outcome)) from outcome
            if outcome is not None:
                raise outcome

    async def _read_notes(self, attempts: Attempts, deliveries: Sequence[Delivery]) -> None:
        try:
            await attempts.read()
        except BaseException:
            self._consumer.put_back(deliveries)
            raise

    async def _name(self, nameless: Sequence[Delivery], others: Sequence[Delivery]) -> None:
        """Give each of these messages an id: they come back with it.

        A message of another publisher that bears none cannot be told from the next one like it,
        nor be known again when it is redelivered. So it is put back with an id first.
        """
        copies = [convert.copy(d, self._queue, message_id=new_id()) for d in nameless]
        try:
            await self._publisher.publish_all(copies)
        except BaseException:
            self._consumer.put_back(sorted([*nameless, *others], key=lambda d: d.tag))
            raise
        await self._consumer.ack([delivery.tag for delivery in nameless])

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        if self._link.version >= _UNCOUNTED_NACK:
            await self._consumer.requeue([delivery.tag for delivery in deliveries])
            return
        with suppress(TimeoutError, OSError, AMQPError, BrokerError):
            if self._attempts is not None and any(one.redelivered for one in deliveries):
                await bounded(self._attempts.read(), GIVE_BACK_TIMEOUT)
            copies = [self._uncounted(delivery) for delivery in deliveries]
            await bounded(self._publisher.publish_all(copies), GIVE_BACK_TIMEOUT)
            await self._consumer.ack([delivery.tag for delivery in deliveries])

    def _uncounted(self, delivery: Delivery) -> Outgoing:
        """A copy that shows the starts that are known, and not the server's deliveries."""
        record = convert.received(delivery, token=delivery)
        known = None if record is None else self.known_attempt(record)
        if record is None or known is None:
            return convert.copy(delivery, self._queue)
        count = known - attempt_of(record) + record.redeliveries
        return convert.copy(delivery, self._queue, count=count)
