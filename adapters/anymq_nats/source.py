"""`GroupSource`: one member of an unordered group."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from time import monotonic, time

import nats.errors
import nats.js.errors

from anymq.driver import (
    Begun,
    Nack,
    Received,
    Rejected,
    Source,
    StoreRecords,
    SubscribeSpec,
    attempt_of,
    logger,
    settle_stored,
)

from .client.protocol import ACK, NAK, PROGRESS, TERM, delayed_nak, parse_headers, settlements
from .connection import Connection
from .delays import compare_clocks, scheduled
from .jetstream.lease_store import AttemptStore
from .jetstream.pending import PullRequests
from .jetstream.presence import Presence
from .messages import Delivered, Publication
from .options import NatsOptions
from .publisher import Publisher
from .topology import Consumer, Stream, make_cells, make_consumer

_log = logger("anymq.nats")

_CLOSE_SECONDS = 1.0


async def open_group(
    connection: Connection,
    publisher: Publisher,
    stream: Stream,
    spec: SubscribeSpec,
    options: NatsOptions,
) -> GroupSource:
    """Join an unordered group."""
    consumer = await make_consumer(connection, stream, spec)
    attempts = None
    if spec.create and consumer.private is not None:
        make = partial(make_cells, connection, stream, options)
        attempts = AttemptStore(connection, publisher, consumer, make)
    source = GroupSource(
        connection,
        publisher,
        consumer,
        member=spec.member,
        prefetch_bytes=spec.prefetch_bytes,
        attempts=attempts,
    )
    await _warn_of_gap(connection, consumer)
    await source.open()
    return source


class GroupSource(Source):
    """One member of an unordered group: pulls from its durable consumer and settles.

    The server applies a settlement to the stream sequence, whichever member has the message by
    then. So leases are watched here, from the latest moment at which they may have begun, and a
    settlement after the end of a lease is dropped.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        consumer: Consumer,
        *,
        member: str,
        prefetch_bytes: int,
        attempts: AttemptStore | None = None,
    ) -> None:
        self.counts_starts = attempts is not None
        self._attempts = attempts
        self._connection = connection
        self._publisher = publisher
        self._consumer = consumer
        self._pull = PullRequests(
            connection,
            consumer.stream.name,
            consumer.name,
            consumer.max_batch,
            lease=consumer.lease,
            max_bytes=prefetch_bytes // 2,  # because two requests overlap
        )
        self._presence = Presence(connection, consumer.stream.name, consumer.name, member)
        self._closed = False

    async def open(self) -> None:
        """Subscribe to the inbox, and answer for this member."""
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
        if self._attempts is not None and any([item.redeliveries for item in taken]):
            await self._load_attempts(self._attempts, taken)
            now = monotonic()
        return [item for item in taken if now < item.expires]

    async def undelivered(self) -> object:
        return await self._pull.undelivered()

    async def ack(self, records: Sequence[Received]) -> None:
        await self._settle(ACK, records)

    async def extend(self, records: Sequence[Received]) -> None:
        live = _live(records)
        if live:
            await self._extend(self._connection, live)

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        connection = self._connection.separate()
        live = _live(records)
        try:
            await connection.open(connection.timeout)
            await self._extend(connection, live)
        finally:
            await connection.aclose()
        return True

    def known_attempt(self, record: Received) -> int | None:
        if self._attempts is None or not record.redeliveries:
            return None
        token: Delivered = record.token
        return max(attempt_of(record) - record.redeliveries, token.begun)

    async def begin(self, begun: Sequence[Begun]) -> None:
        live = [item for item in begun if _live([item.received])]
        if live and self._attempts is not None:
            await self._attempts.save({item.received.position: item.attempt for item in live})
            for item in live:
                item.received.token.begun = item.attempt

    async def nack(self, nacks: Sequence[Nack]) -> None:
        copied: list[Nack] = []
        plain: list[Received] = []
        delayed: list[tuple[Received, float]] = []
        begun: list[Begun] = []
        for item in nacks:
            # A delayed NAK may end early if the server is killed, because the server stores it in
            # whole seconds, and 0.1 s late. A copy is stored before it is confirmed. Where starts
            # are counted, the server's count of deliveries is not the attempt.
            counted = self.counts_starts or item.attempt != item.native_attempt
            if self._can_copy(item) and (item.delay > 0 or counted):
                copied.append(item)
            elif item.delay > 0:
                delayed.append((item.received, item.delay))
                begun.append(Begun(item.received, item.attempt))
            else:
                plain.append(item.received)
        await self._settle(NAK, plain)
        await self.begin(begun)
        await self._delay(delayed)
        await self._replace(copied)

    async def release(self, nacks: Sequence[Nack]) -> None:
        # Every NAK counts as an attempt, so an uncounted redelivery needs a copy.
        if self._consumer.private is None:
            await self._settle(NAK, [item.received for item in nacks])
        else:
            await self._replace(nacks)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        rejected = [item for item in rejected if _live([item.received])]
        if not rejected:
            return
        outcomes = await store([item.letter for item in rejected])
        records = [item.received for item in rejected]
        await settle_stored(records, outcomes, partial(self._settle, TERM))

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._presence.close()
        try:
            await self._return_buffered()
        finally:
            self._pull.close()

    def _can_copy(self, item: Nack) -> bool:
        return self._consumer.private is not None and (
            item.delay <= 0 or self._consumer.stream.schedules
        )

    async def _settle(self, verb: bytes, records: Iterable[Received]) -> None:
        """Send `verb` for the live ones among `records`; return when the server has read it."""
        live = _live(records)
        if live:
            await self._connection.flush(settlements(verb, [item.reply for item in live]))
            for item in live:
                item.settled = True
            begun = [item.position for item in live if item.begun]
            if begun and verb != NAK and self._attempts is not None:
                await self._attempts.delete(begun)

    async def _extend(self, connection: Connection, live: Sequence[Delivered]) -> None:
        start = monotonic()
        await connection.flush(settlements(PROGRESS, [item.reply for item in live]))
        for item in live:
            item.expires = start + self._consumer.lease

    async def _load_attempts(self, attempts: AttemptStore, taken: Sequence[Delivered]) -> None:
        again = [item for item in taken if item.redeliveries]
        try:
            found = await attempts.load([item.position for item in again])
        except BaseException:
            self._pull.buffer.extendleft(reversed(taken))
            raise
        for item, attempt in zip(again, found, strict=True):
            item.begun = attempt

    async def _delay(self, items: Sequence[tuple[Received, float]]) -> None:
        live = [(item, delay) for record, delay in items for item in _live([record])]
        if live:
            data = b"".join([delayed_nak(item.reply, delay) for item, delay in live])
            await self._connection.flush(data)
            for item, _ in live:
                item.settled = True

    async def _replace(self, nacks: Sequence[Nack]) -> None:
        """Store a copy of each for this group alone, and acknowledge those that are stored."""
        nacks = [item for item in nacks if _live([item.received])]
        if any(item.delay > 0 for item in nacks):
            await compare_clocks(self._connection, self._consumer.stream)
        outcomes = await self._publisher.send([self._copy(item) for item in nacks])
        await settle_stored([item.received for item in nacks], outcomes, self.ack)

    def _copy(self, item: Nack) -> Publication:
        private = self._consumer.private or ""
        copy = item.copy
        if item.delay <= 0:
            original = copy.original
            return Publication(
                private, copy.unique, copy.body, copy.own, copy.common, original=original
            )
        consumer, due = self._consumer, time() + item.delay
        return scheduled(
            self._connection, consumer.stream, copy, due, owner=consumer.name, target=private
        )

    async def _return_buffered(self) -> None:
        """Return the messages that no `receive` has returned, if the server answers within 1 s."""
        client = self._connection.client
        self._pull.mute()
        if not client.is_connected:
            return
        try:
            await self._connection.flush(timeout=_CLOSE_SECONDS)
            left = list(self._pull.buffer)
            uncounted = [item for item in left if self._can_return_uncounted(item)]
            counted = [item for item in left if not self._can_return_uncounted(item)]
            await self._publisher.send([self._copy_of(item) for item in uncounted])
            data = settlements(ACK, [item.reply for item in uncounted])
            data += settlements(NAK, [item.reply for item in counted])
            if data:
                await self._connection.flush(data, timeout=_CLOSE_SECONDS)
        except (nats.errors.Error, OSError):
            return  # the server redelivers them when their leases end

    def _can_return_uncounted(self, item: Delivered) -> bool:
        """Return whether a copy can replace it: a first delivery whose message has an id."""
        has_id = b"\nce-id:" in (item.block or b"")
        return self._consumer.private is not None and has_id and not item.redeliveries

    def _copy_of(self, item: Delivered) -> Publication:
        unique = str(uuid.uuid4())
        headers = parse_headers(item.block or b"").items()
        own = {name: value for name, value in headers if not name.lower().startswith("nats-")}
        return Publication(self._consumer.private or "", unique, item.body, own, original=item)


def _live(records: Iterable[Received]) -> list[Delivered]:
    """Return the unsettled deliveries whose lease has not ended."""
    now = monotonic()
    items: list[Delivered] = [record.token for record in records]
    return [item for item in items if not item.settled and now < item.expires]


async def _warn_of_gap(connection: Connection, consumer: Consumer) -> None:
    """Log messages of the stream that retention deleted before the group had settled them.

    The server skips them silently. Some may have been copies for other groups. Messages deleted
    while members of the group are reading cannot be recognised.
    """
    stream, done = consumer.stream, consumer.done
    if not done:
        return
    try:
        oldest = int((await connection.api(f"STREAM.INFO.{stream.name}"))["state"]["first_seq"])
    except (nats.errors.Error, nats.js.errors.Error) as error:
        _log.debug("check for deleted messages of consumer %s failed: %r", consumer.name, error)
        return
    if done + 1 < oldest:
        _log.warning(
            "messages of %s may have been deleted by retention before the group %s "
            "had read them: the sequences %d to %d are gone",
            stream.subject,
            consumer.name,
            done + 1,
            oldest - 1,
        )
