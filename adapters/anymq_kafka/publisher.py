"""`Publisher`: stores batches of records with one idempotent producer at a time.

Records go out as ready-made batches, one future a batch: measured at three to four times the rate
of `send()` with one future a record. aiokafka sends a broker one request at a time; what comes
meanwhile joins the batch that waits, of whatever call it is, and goes with the next one.

A producer is replaced as soon as one of its batches fails or is not confirmed in time. aiokafka
counts a refused batch's sequence numbers as used, so that the broker would refuse everything that
follows it in the partition (OutOfOrderSequenceNumber, for ever); and it would go on sending what
its caller has long been told was not confirmed (#1101).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anymq.driver import Outcome, Record
from anymq.errors import PublishTimeout
from anymq.partitions import partition_of

from .aio import (
    AIOKafkaProducer,
    TopicPartition,
    abandon_producer,
    append_batch,
    forget_topic,
    kafka,
    start_client,
)
from .batches import RecordBatch
from .clients import MAX_BATCH, Clients, stop_producer
from .held import now_ms

CLOSE_GRACE = 2.0
METADATA_WAIT = 1.0
METADATA_PAUSE = 0.2
LOOK_AGAIN = 1.0
# Records without a key are spread over the partitions in runs of about this many.
RUN = 16
# Of records above this one at a time: all that waits goes in one request, and one over the broker's
# socket.request.max.bytes (100 MiB) costs the connection.
LARGE = 4 * 1024 * 1024

Item = tuple[str, Record]
"""The native topic, and what goes there."""


class Batch:
    """Records of one partition that are stored, or refused, together."""

    __slots__ = ("alone", "records", "shares", "tp")

    def __init__(self, tp: TopicPartition, records: RecordBatch, *, alone: bool) -> None:
        self.tp = tp
        self.records = records
        self.alone = alone
        self.shares: list[Share] = []


@dataclass(slots=True)
class Session:
    """A producer, how many calls are using it, and how many batches are on their way."""

    producer: AIOKafkaProducer
    users: int = 0
    batches: int = 0
    retired: bool = False
    waiting: dict[TopicPartition, Batch] = field(default_factory=dict[TopicPartition, Batch])
    """The latest batch of each partition, if others may join it."""


class Call:
    """What one call of `publish` is about; `again` has the places of what is to be repeated."""

    __slots__ = ("again", "deadline", "flying", "outcomes", "records", "topics", "waiter")

    def __init__(self, topics: Sequence[str], records: Sequence[Record], deadline: float) -> None:
        self.topics = topics
        self.records = records
        self.deadline = deadline
        self.outcomes: list[Outcome] = [None] * len(records)
        self.again: list[int] = []
        self.flying: set[Share] = set()
        self.waiter: asyncio.Future[None] | None = None


class Share:
    """What one batch has of one call: the records at `indexes`, behind `before` others."""

    __slots__ = ("batch", "before", "call", "indexes")

    def __init__(self, batch: Batch, call: Call, before: int, indexes: Sequence[int]) -> None:
        self.batch = batch
        self.call = call
        self.before = before
        self.indexes = indexes


class Publisher:
    """Every call ends within the publish timeout, whatever the broker does."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._timeout = clients.options.publish_timeout
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._large = asyncio.Lock()

    @property
    def producer(self) -> AIOKafkaProducer | None:
        """The producer in use."""
        return self._session.producer if self._session is not None else None

    async def publish(self, items: Sequence[Item]) -> list[Outcome]:
        """Store `items`, as `store` does."""
        return await self.store([topic for topic, _ in items], [record for _, record in items])

    async def store(self, topics: Sequence[str], records: Sequence[Record]) -> list[Outcome]:
        """Store `records`, each in its topic; one outcome each. Raises only if no producer could be
        started."""
        call = Call(topics, records, asyncio.get_running_loop().time() + self._timeout)
        if len(records) != 1 or len(records[0].body) <= LARGE:
            return await self._store(call)
        try:
            async with asyncio.timeout_at(call.deadline):
                await self._large.acquire()
        except TimeoutError:
            return [self._overdue()]
        try:
            return await self._store(call)
        finally:
            self._large.release()

    async def _store(self, call: Call) -> list[Outcome]:
        records = call.records
        await self._publish(call, range(len(records)), together=True)
        if again := call.again:
            call.again = []
            try:
                await self._publish(call, sorted(again), together=False)
            except (kafka.KafkaError, OSError) as error:
                for index in again:
                    if call.outcomes[index] is None:
                        call.outcomes[index] = error
        return call.outcomes

    async def open(self) -> Session:
        """Return a session whose producer has been started, making one if need be."""
        async with self._opening:
            if self._session is None:
                producer = self._clients.producer()
                try:
                    async with asyncio.timeout(self._timeout):
                        await start_client(producer)
                except BaseException as error:
                    abandon_producer(producer)
                    if isinstance(error, TimeoutError):
                        raise kafka.KafkaConnectionError("no broker answers") from None
                    raise
                self._session = Session(producer)
            return self._session

    async def aclose(self) -> None:
        """Close the producer, by force if it does not end by itself."""
        session, self._session = self._session, None
        if session is not None:
            session.retired = True
            await stop_producer(session.producer, CLOSE_GRACE)

    async def _publish(self, call: Call, indexes: Sequence[int], *, together: bool) -> None:
        session = self._session or await self.open()
        session.users += 1
        try:
            await self._hand_over(session, call, indexes, together=together)
            await self._settled(session, call)
        finally:
            call.flying.clear()
            session.users -= 1
            if session.retired and not session.users:
                abandon_producer(session.producer)

    def _retire(self, session: Session) -> None:
        session.retired = True
        if self._session is session:
            self._session = None

    async def _hand_over(
        self, session: Session, call: Call, indexes: Sequence[int], *, together: bool
    ) -> None:
        """Give the records to the producer; those of a topic that is not there get their
        outcome."""
        deadline = asyncio.get_running_loop().time() + METADATA_WAIT
        # What can be sent at once waits for no others: they are gathered while it is stored.
        joined = together and session.batches > 0
        for topic, its in _by_topic(call.topics, indexes):
            try:
                partitions = _known(session.producer, topic)
                if partitions is None:
                    partitions = await _partitions(session.producer, topic, deadline)
            except kafka.KafkaError as error:
                for index in its:
                    call.outcomes[index] = error
                continue
            for partition, chosen in _placed(call.records, its, *partitions):
                tp = TopicPartition(topic, partition)
                try:
                    if together:
                        self._append(session, call, tp, chosen, joined=joined)
                    else:
                        for index in chosen:
                            self._append(session, call, tp, (index,), alone=True)
                except kafka.KafkaError as error:
                    self._retire(session)
                    for index in chosen:
                        call.outcomes[index] = error

    def _append(
        self,
        session: Session,
        call: Call,
        tp: TopicPartition,
        indexes: Sequence[int],
        *,
        joined: bool = False,
        alone: bool = False,
    ) -> None:
        """Put the records into the batch that waits, and as many more as it takes."""
        millis = int(now_ms())
        batch = session.waiting.get(tp) if joined else None
        while indexes:
            if batch is not None:
                before = batch.records.record_count()
                taken = batch.records.extend(_at(indexes, call.records), millis)
                if taken:
                    share = Share(batch, call, before, indexes[:taken])
                    batch.shares.append(share)
                    call.flying.add(share)
                    indexes = indexes[taken:]
                    continue
            batch = self._open(session, tp, alone=alone)
            if joined:
                session.waiting[tp] = batch

    def _open(self, session: Session, tp: TopicPartition, *, alone: bool) -> Batch:
        """Return a batch behind all others of the partition."""
        batch = Batch(tp, RecordBatch(MAX_BATCH, self._clients.options.compression), alone=alone)
        stored = append_batch(session.producer, batch.records, tp)
        stored.add_done_callback(partial(self._finish, session, batch))
        session.batches += 1
        return batch

    async def _settled(self, session: Session, call: Call) -> None:
        """Wait until every batch of the call has been stored or refused, or is given up."""
        loop = asyncio.get_running_loop()
        while call.flying:
            call.waiter = loop.create_future()
            soon = min(call.deadline, loop.time() + LOOK_AGAIN)
            timer = loop.call_at(soon, _wake, call)
            try:
                await call.waiter
            finally:
                timer.cancel()
            for share in list(call.flying):
                if loop.time() >= call.deadline:
                    self._fail(session, share, self._overdue())
                elif _vanished(session, share.batch.tp.topic):
                    self._fail(session, share, _unknown(share.batch.tp.topic))

    def _finish(self, session: Session, batch: Batch, stored: asyncio.Future[Any]) -> None:
        session.batches -= 1
        if session.waiting.get(batch.tp) is batch:
            del session.waiting[batch.tp]
        if stored.cancelled():
            return
        error = stored.exception()
        for share in batch.shares:
            call = share.call
            if share not in call.flying:
                continue  # given up
            if error is not None:
                self._fail(session, share, error)
            else:
                _note(share, stored.result().offset)
            if not call.flying:
                _wake(call)

    def _overdue(self) -> PublishTimeout:
        return PublishTimeout(
            f"Kafka did not confirm within {self._timeout:g} s; "
            "the message may have been stored all the same"
        )

    def _fail(self, session: Session, share: Share, error: BaseException) -> None:
        self._retire(session)
        call, batch = share.call, share.batch
        call.flying.discard(share)
        if not batch.alone and _may_pass(error, batch.records.record_count()):
            call.again += share.indexes
            return
        for index in share.indexes:
            call.outcomes[index] = error


def _note(share: Share, offset: int) -> None:
    """The batch has been stored at `offset`; negative if the broker does not know any more."""
    call, partition = share.call, share.batch.tp.partition
    call.flying.discard(share)
    if offset >= 0:
        outcomes = call.outcomes
        for place, index in enumerate(share.indexes, offset + share.before):
            outcomes[index] = f"{partition}:{place}"


def _wake(call: Call) -> None:
    if call.waiter is not None and not call.waiter.done():
        call.waiter.set_result(None)


def _vanished(session: Session, topic: str) -> bool:
    """Whether the topic is no longer there: aiokafka would repeat the batch until it expires."""
    return session.producer.client.cluster.partitions_for_topic(topic) is None


def _may_pass(error: BaseException, records: int) -> bool:
    """Whether the records of a refused batch may be stored when they are sent one by one."""
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
        # The broker's limit is one for whole batches.
        return records > 1
    # Not stored, but counted: a batch before it was refused.
    return isinstance(error, kafka.OutOfOrderSequenceNumber)


def _at(indexes: Sequence[int], records: Sequence[Record]) -> Sequence[Record]:
    if isinstance(indexes, range):
        return records[indexes.start : indexes.stop]
    return [records[index] for index in indexes]


def _by_topic(topics: Sequence[str], indexes: Sequence[int]) -> Iterable[tuple[str, Sequence[int]]]:
    if len(set(topics)) == 1:
        return ((topics[0], indexes),)
    found: dict[str, list[int]] = {}
    for index in indexes:
        found.setdefault(topics[index], []).append(index)
    return found.items()


def _placed(
    records: Sequence[Record], indexes: Sequence[int], count: int, available: list[int]
) -> Iterable[tuple[int, Sequence[int]]]:
    """By the key as every Kafka client does it; without one, on a few partitions in turn."""
    if count == 1:
        return ((available[0], indexes),)
    ways = min(len(available), 1 + len(indexes) // RUN)
    start = random.randrange(len(available))
    placed = 0
    found: dict[int, list[int]] = {}
    for index in indexes:
        key = records[index].key
        if key is not None:
            partition = partition_of(key, count)
        else:
            placed += 1
            partition = available[(start + placed % ways) % len(available)]
        found.setdefault(partition, []).append(index)
    return found.items()


def _known(producer: AIOKafkaProducer, topic: str) -> tuple[int, list[int]] | None:
    """Return how many partitions `topic` has, and those that have a leader; None if unknown."""
    cluster = producer.client.cluster
    found = cluster.partitions_for_topic(topic)
    if not found:
        return None
    return len(found), sorted(cluster.available_partitions_for_topic(topic) or found)


async def _partitions(
    producer: AIOKafkaProducer, topic: str, deadline: float
) -> tuple[int, list[int]]:
    """Ask for the same until `deadline`."""
    client, cluster = producer.client, producer.client.cluster
    answered = False
    client.add_topic(topic)
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                answered |= bool(await client.force_metadata_update())
                if found := _known(producer, topic):
                    return found
                if topic in cluster.unauthorized_topics:
                    raise kafka.TopicAuthorizationFailedError(topic)
                await asyncio.sleep(METADATA_PAUSE)
    except TimeoutError:
        # Else it would be asked for, and complained about, for ever.
        forget_topic(producer, topic)
        if answered:
            raise _unknown(topic) from None
        raise kafka.KafkaConnectionError("no broker answers") from None


def _unknown(topic: str) -> kafka.UnknownTopicOrPartitionError:
    return kafka.UnknownTopicOrPartitionError(topic)
