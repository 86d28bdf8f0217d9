"""`Publisher`: stores batches of records with one idempotent producer at a time.

Records go out as ready-made batches, one future a batch: measured at three to four times the rate
of `send()` with one future a record.

A producer is replaced as soon as one of its batches fails or is not confirmed in time. aiokafka
counts a refused batch's sequence numbers as used, so that the broker would refuse everything that
follows it in the partition (OutOfOrderSequenceNumber, for ever); and it would go on sending what
its caller has long been told was not confirmed (#1101).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anymq.driver import Outcome, PublishTimeout, Record, partition_of

from .client.batch_writer import RecordBatch
from .client.internals import AIOKafkaProducer, abandon_producer, forget_topic, kafka
from .connection import MAX_BATCH, Clients, stop_producer
from .group.pending import now_ms
from .messages import written_key

CLOSE_GRACE = 2.0
METADATA_WAIT = 1.0
METADATA_PAUSE = 0.2
LOOK_AGAIN = 1.0
# Records without a key are spread over the partitions in runs of about this many.
RUN = 16

Item = tuple[str, Record]
"""The native topic, and what goes there."""


@dataclass(slots=True)
class Session:
    """A producer and how many calls are using it."""

    producer: AIOKafkaProducer
    users: int = 0
    retired: bool = False


class Batch:
    """Records of one partition that are stored, or refused, together."""

    __slots__ = ("alone", "indexes", "partition", "records", "topic", "turn")

    def __init__(
        self, topic: str, partition: int, records: RecordBatch, turn: int, *, alone: bool
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.turn = turn
        self.alone = alone
        self.indexes: list[int] = []


class Call:
    """What one call of `publish` is about; `again` has the places of what is to be repeated."""

    __slots__ = ("again", "deadline", "outcomes", "records", "topics")

    def __init__(self, topics: Sequence[str], records: Sequence[Record], deadline: float) -> None:
        self.topics = topics
        self.records = records
        self.deadline = deadline
        self.outcomes: list[Outcome] = [None] * len(records)
        self.again: list[int] = []


class Publisher:
    """Every call ends within the publish timeout, whatever the broker does."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._timeout = clients.options.publish_timeout
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._closed = False

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
        await self._publish(call, range(len(records)), together=True)
        if again := call.again:
            call.again = []
            try:
                await self._publish(call, again, together=False)
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
                        await self._clients.start(producer)
                    if self._closed:
                        raise kafka.KafkaConnectionError("the connection was closed")
                except BaseException as error:
                    abandon_producer(producer)
                    if isinstance(error, TimeoutError):
                        raise kafka.KafkaConnectionError("no broker answers") from None
                    raise
                self._session = Session(producer)
            return self._session

    async def aclose(self) -> None:
        """Close the producer, by force if it does not end by itself; start none from now on."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            session.retired = True
            await stop_producer(session.producer, CLOSE_GRACE)

    async def _publish(self, call: Call, indexes: Sequence[int], *, together: bool) -> None:
        session = await self.open()
        session.users += 1
        try:
            batches = await self._fill(session, call, indexes, together=together)
            await self._send(session, batches, call)
        finally:
            session.users -= 1
            if session.retired and not session.users:
                abandon_producer(session.producer)

    def _retire(self, session: Session) -> None:
        session.retired = True
        if self._session is session:
            self._session = None

    async def _fill(
        self, session: Session, call: Call, indexes: Sequence[int], *, together: bool
    ) -> list[Batch]:
        """Sort the records into batches; those of a topic that is not there get their outcome."""
        deadline = asyncio.get_running_loop().time() + METADATA_WAIT
        millis = int(now_ms())
        batches: list[Batch] = []
        spreads: dict[str, _Spread | kafka.KafkaError] = {}
        spread: _Spread | kafka.KafkaError | None = None
        current: str | None = None
        topics, records = call.topics, call.records
        for index in indexes:
            topic, record = topics[index], records[index]
            if topic != current:
                current, spread = topic, spreads.get(topic)
                if spread is None:
                    spread = await self._spread(session.producer, topic, len(records), deadline)
                    spreads[topic] = spread
            if not isinstance(spread, _Spread):
                call.outcomes[index] = spread
                continue
            key = record.key if record.original is None else written_key(record)
            partition = spread.place(key) if key is not None or spread.only < 0 else spread.only
            batch = spread.latest.get(partition) if together else None
            if batch is None or not batch.records.add(record):
                opened = RecordBatch(MAX_BATCH, millis, self._clients.options.compression)
                opened.add(record)
                turn = batch.turn + 1 if batch is not None else 0
                batch = Batch(topic, partition, opened, turn, alone=not together)
                spread.latest[partition] = batch
                batches.append(batch)
            batch.indexes.append(index)
        if len(batches) > 1:
            # The first of every partition, then the second: aiokafka holds one a partition at a
            # time.
            batches.sort(key=_turn)
        return batches

    async def _spread(
        self, producer: AIOKafkaProducer, topic: str, count: int, deadline: float
    ) -> _Spread | kafka.KafkaError:
        try:
            return _Spread(*await _partitions(producer, topic, deadline), count)
        except kafka.KafkaError as error:
            return error

    async def _send(self, session: Session, batches: list[Batch], call: Call) -> None:
        flying: dict[asyncio.Future[Any], Batch] = {}
        missing: list[Batch] = list(batches)
        try:
            async with asyncio.timeout_at(call.deadline):
                for batch in batches:
                    try:
                        future = await session.producer.send_batch(
                            batch.records, batch.topic, partition=batch.partition
                        )
                    except (kafka.KafkaError, AssertionError) as error:
                        # An assertion: the topic has been made anew with fewer partitions.
                        failure = error if isinstance(error, kafka.KafkaError) else None
                        self._fail(session, batch, failure or _unknown(batch.topic), call)
                        missing.remove(batch)
                    else:
                        flying[future] = batch
                while flying:
                    done, _ = await asyncio.wait(flying, timeout=LOOK_AGAIN)
                    for future in done or self._vanished(session, flying):
                        batch = flying.pop(future)
                        self._finish(session, batch, future, call)
                        missing.remove(batch)
        except TimeoutError:
            for batch in missing:
                timeout = PublishTimeout(
                    f"Kafka did not confirm within {self._timeout:g} s; "
                    "the message may have been stored all the same"
                )
                self._fail(session, batch, timeout, call)
        finally:
            for future in flying:
                future.add_done_callback(_forget)

    def _vanished(
        self, session: Session, flying: dict[asyncio.Future[Any], Batch]
    ) -> list[asyncio.Future[Any]]:
        """Those whose topic is no longer there: aiokafka would repeat them until they expire."""
        cluster = session.producer.client.cluster
        return [
            future
            for future, batch in flying.items()
            if cluster.partitions_for_topic(batch.topic) is None
        ]

    def _finish(
        self, session: Session, batch: Batch, future: asyncio.Future[Any], call: Call
    ) -> None:
        if not future.done():
            future.add_done_callback(_forget)
            self._fail(session, batch, _unknown(batch.topic), call)
            return
        error = future.exception()
        if error is not None:
            self._fail(session, batch, error, call)
            return
        first = future.result().offset
        if first >= 0:
            outcomes, partition = call.outcomes, batch.partition
            for offset, index in enumerate(batch.indexes, first):
                outcomes[index] = f"{partition}:{offset}"

    def _fail(self, session: Session, batch: Batch, error: BaseException, call: Call) -> None:
        self._retire(session)
        if not batch.alone and _may_pass(error, len(batch.indexes)):
            call.again += batch.indexes
            return
        for index in batch.indexes:
            call.outcomes[index] = error


def _may_pass(error: BaseException, records: int) -> bool:
    """Whether the records of a refused batch may be stored when they are sent one by one."""
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
        # The broker's limit is one for whole batches.
        return records > 1
    # Not stored, but counted: a batch before it was refused.
    return isinstance(error, kafka.OutOfOrderSequenceNumber)


class _Spread:
    """Chooses partitions for one topic during one call."""

    __slots__ = ("_available", "_count", "_placed", "_start", "_ways", "latest", "only")

    def __init__(self, count: int, available: list[int], records: int) -> None:
        self._count = count
        self._available = available
        self._ways = min(len(available), 1 + records // RUN)
        self._start = random.randrange(len(available))
        self._placed = 0
        self.only = available[0] if len(available) == 1 else -1
        """Where all without a key go; -1 for several."""
        self.latest: dict[int, Batch] = {}
        """The batch of each partition that is being filled."""

    def place(self, key: str | bytes | None) -> int:
        """By the key as every Kafka client does it; without one, on a few partitions in turn."""
        if key is not None:
            return partition_of(key, self._count)
        self._placed += 1
        turn = self._start + self._placed % self._ways
        return self._available[turn % len(self._available)]


async def _partitions(
    producer: AIOKafkaProducer, topic: str, deadline: float
) -> tuple[int, list[int]]:
    """Return how many partitions `topic` has, and those that have a leader."""
    client, cluster = producer.client, producer.client.cluster
    found = cluster.partitions_for_topic(topic)
    if not found:
        answered = False
        client.add_topic(topic)
        try:
            async with asyncio.timeout_at(deadline):
                while not found:
                    answered |= bool(await client.force_metadata_update())
                    found = cluster.partitions_for_topic(topic)
                    if topic in cluster.unauthorized_topics:
                        raise kafka.TopicAuthorizationFailedError(topic)
                    if not found:
                        await asyncio.sleep(METADATA_PAUSE)
        except TimeoutError:
            # Else it would be asked for, and complained about, for ever.
            forget_topic(producer, topic)
            if answered:
                raise _unknown(topic) from None
            raise kafka.KafkaConnectionError("no broker answers") from None
    available = sorted(cluster.available_partitions_for_topic(topic) or found)
    return len(found), available


def _turn(batch: Batch) -> int:
    return batch.turn


def _unknown(topic: str) -> kafka.UnknownTopicOrPartitionError:
    return kafka.UnknownTopicOrPartitionError(topic)


def _forget(future: asyncio.Future[Any]) -> None:
    """Look at the outcome nobody waits for, so that asyncio does not complain."""
    if not future.cancelled():
        future.exception()
