"""`Publisher`: stores batches of records with one idempotent producer at a time.

Records are sent as ready-made batches with one future each. That reaches three to four times the
rate of `send()` with one future a record.

The producer is replaced when one of its batches fails or is not confirmed in time. aiokafka counts
the sequence numbers of a refused batch as used, so the broker would refuse all later batches of the
partition (OutOfOrderSequenceNumber). And it would go on sending records whose publish has already
been reported as timed out (#1101).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anymq.driver import Outcome, PublishTimeout, Record, partition_of

from .client.batch_writer import BatchWriter
from .client.compat import AIOKafkaProducer, kafka
from .client.internals import abandon_producer, forget_topic
from .connection import MAX_BATCH_BYTES, Clients, stop_producer
from .messages import now_ms, raw_key

CLOSE_SECONDS = 2.0
METADATA_SECONDS = 1.0
"""For the first metadata of a topic."""
METADATA_PAUSE_SECONDS = 0.2
TOPIC_CHECK_SECONDS = 1.0
"""Without a confirmation, after which the topics of a call are checked for existence."""
RECORDS_PER_PARTITION = 16
"""Records without a key are spread over the partitions in groups of about this many."""


@dataclass(slots=True)
class ProducerSession:
    """A producer, and the number of calls that use it. A retired one ends with its last call."""

    producer: AIOKafkaProducer
    calls: int = 0
    retired: bool = False


class PartitionBatch:
    """Records of one partition that are stored, or refused, together.

    `indexes` are the places of its records in the call. `round` is 0 for the first batch of its
    partition in a call, 1 for the second. With `alone` it holds one record of a refused batch.
    """

    __slots__ = ("alone", "indexes", "partition", "records", "round", "topic")

    def __init__(
        self, topic: str, partition: int, records: BatchWriter, round: int, *, alone: bool
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.round = round
        self.alone = alone
        self.indexes: list[int] = []


class PublishCall:
    """One call of `publish`: its records and outcomes, and the indexes of those to send again."""

    __slots__ = ("again", "deadline", "outcomes", "records", "topics")

    def __init__(self, topics: Sequence[str], records: Sequence[Record], deadline: float) -> None:
        self.topics = topics
        self.records = records
        self.deadline = deadline
        self.outcomes: list[Outcome] = [None] * len(records)
        self.again: list[int] = []


class Publisher:
    """Stores records. Every call ends within `publish_timeout`, even if the broker is dead."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._timeout = clients.options.publish_timeout
        self._session: ProducerSession | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def producer(self) -> AIOKafkaProducer | None:
        """The producer in use; None before the first call, and after a failure."""
        return self._session.producer if self._session is not None else None

    async def publish(self, topics: Sequence[str], records: Sequence[Record]) -> list[Outcome]:
        """Store `records`, each in the native topic at its index, and return their outcomes.

        Raises only if no producer could be started.
        """
        call = PublishCall(topics, records, asyncio.get_running_loop().time() + self._timeout)
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

    async def open(self) -> ProducerSession:
        """Return the session in use, or start a producer for a new one."""
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
                self._session = ProducerSession(producer)
            return self._session

    async def aclose(self) -> None:
        """Close the producer, by force if it does not stop in time. Later calls fail."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            session.retired = True
            await stop_producer(session.producer, CLOSE_SECONDS)

    async def _publish(self, call: PublishCall, indexes: Sequence[int], *, together: bool) -> None:
        session = await self.open()
        session.calls += 1
        try:
            batches = await self._fill(session, call, indexes, together=together)
            await self._send(session, batches, call)
        finally:
            session.calls -= 1
            if session.retired and not session.calls:
                abandon_producer(session.producer)

    def _retire(self, session: ProducerSession) -> None:
        session.retired = True
        if self._session is session:
            self._session = None

    async def _fill(
        self, session: ProducerSession, call: PublishCall, indexes: Sequence[int], *, together: bool
    ) -> list[PartitionBatch]:
        """Return the records in batches. Those of an unknown topic get an error as outcome."""
        deadline = asyncio.get_running_loop().time() + METADATA_SECONDS
        timestamp_ms = int(now_ms())
        batches: list[PartitionBatch] = []
        partitioners: dict[str, _Partitioner | kafka.KafkaError] = {}
        partitioner: _Partitioner | kafka.KafkaError | None = None
        current: str | None = None
        topics, records = call.topics, call.records
        for index in indexes:
            topic, record = topics[index], records[index]
            if topic != current:
                current, partitioner = topic, partitioners.get(topic)
                if partitioner is None:
                    partitioner = await self._partitioner(
                        session.producer, topic, len(records), deadline
                    )
                    partitioners[topic] = partitioner
            if not isinstance(partitioner, _Partitioner):
                call.outcomes[index] = partitioner
                continue
            key = record.key if record.original is None else raw_key(record)
            if key is not None or partitioner.only < 0:
                partition = partitioner.partition_for(key)
            else:
                partition = partitioner.only
            batch = partitioner.latest.get(partition) if together else None
            if batch is None or not batch.records.add(record):
                opened = BatchWriter(
                    MAX_BATCH_BYTES, timestamp_ms, self._clients.options.compression
                )
                opened.add(record)
                round = batch.round + 1 if batch is not None else 0
                batch = PartitionBatch(topic, partition, opened, round, alone=not together)
                partitioner.latest[partition] = batch
                batches.append(batch)
            batch.indexes.append(index)
        if len(batches) > 1:
            # aiokafka holds one batch of a partition at a time. So the first batches of all
            # partitions are sent before the second ones.
            batches.sort(key=_round)
        return batches

    async def _partitioner(
        self, producer: AIOKafkaProducer, topic: str, count: int, deadline: float
    ) -> _Partitioner | kafka.KafkaError:
        try:
            return _Partitioner(*await _partitions(producer, topic, deadline), count)
        except kafka.KafkaError as error:
            return error

    async def _send(
        self, session: ProducerSession, batches: list[PartitionBatch], call: PublishCall
    ) -> None:
        in_flight: dict[asyncio.Future[Any], PartitionBatch] = {}
        missing: list[PartitionBatch] = list(batches)
        try:
            async with asyncio.timeout_at(call.deadline):
                for batch in batches:
                    try:
                        future = await session.producer.send_batch(
                            batch.records, batch.topic, partition=batch.partition
                        )
                    except (kafka.KafkaError, AssertionError) as error:
                        # AssertionError: the topic was recreated with fewer partitions.
                        failure = error if isinstance(error, kafka.KafkaError) else None
                        self._fail(session, batch, failure or _unknown(batch.topic), call)
                        missing.remove(batch)
                    else:
                        in_flight[future] = batch
                while in_flight:
                    done, _ = await asyncio.wait(in_flight, timeout=TOPIC_CHECK_SECONDS)
                    for future in done or self._deleted(session, in_flight):
                        batch = in_flight.pop(future)
                        self._finish(session, batch, future, call)
                        missing.remove(batch)
        except TimeoutError:
            for batch in missing:
                timeout = PublishTimeout(
                    f"Kafka did not confirm within {self._timeout:g} s: "
                    "the message may or may not have been stored"
                )
                self._fail(session, batch, timeout, call)
        finally:
            for future in in_flight:
                future.add_done_callback(_retrieve)

    def _deleted(
        self, session: ProducerSession, in_flight: dict[asyncio.Future[Any], PartitionBatch]
    ) -> list[asyncio.Future[Any]]:
        """Return the batches whose topic was deleted: aiokafka repeats them until they expire."""
        cluster = session.producer.client.cluster
        return [
            future
            for future, batch in in_flight.items()
            if cluster.partitions_for_topic(batch.topic) is None
        ]

    def _finish(
        self,
        session: ProducerSession,
        batch: PartitionBatch,
        future: asyncio.Future[Any],
        call: PublishCall,
    ) -> None:
        if not future.done():
            future.add_done_callback(_retrieve)
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

    def _fail(
        self,
        session: ProducerSession,
        batch: PartitionBatch,
        error: BaseException,
        call: PublishCall,
    ) -> None:
        self._retire(session)
        if not batch.alone and _is_worth_repeating(error, len(batch.indexes)):
            call.again += batch.indexes
            return
        for index in batch.indexes:
            call.outcomes[index] = error


def _is_worth_repeating(error: BaseException, records: int) -> bool:
    """Whether the records of a refused batch may be stored if they are sent one by one."""
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
        # The broker limits the size of whole batches.
        return records > 1
    # An earlier batch of the partition was refused, and its sequence numbers are used up.
    return isinstance(error, kafka.OutOfOrderSequenceNumber)


class _Partitioner:
    """Chooses the partitions of one topic's records during one call."""

    __slots__ = ("_available", "_chosen", "_count", "_start", "_ways", "latest", "only")

    def __init__(self, count: int, available: list[int], records: int) -> None:
        self._count = count
        self._available = available
        self._ways = min(len(available), 1 + records // RECORDS_PER_PARTITION)
        self._start = random.randrange(len(available))
        self._chosen = 0
        self.only = available[0] if len(available) == 1 else -1
        """The partition of all records without a key; -1 if they are spread over several."""
        self.latest: dict[int, PartitionBatch] = {}
        """By partition the batch that is being filled."""

    def partition_for(self, key: str | bytes | None) -> int:
        """Return the partition of `key`, as every Kafka client does; without a key the next one."""
        if key is not None:
            return partition_of(key, self._count)
        self._chosen += 1
        index = self._start + self._chosen % self._ways
        return self._available[index % len(self._available)]


async def _partitions(
    producer: AIOKafkaProducer, topic: str, deadline: float
) -> tuple[int, list[int]]:
    """Return the number of partitions of `topic`, and those that have a leader."""
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
                        await asyncio.sleep(METADATA_PAUSE_SECONDS)
        except TimeoutError:
            # Otherwise aiokafka would request it, and log a warning, again and again.
            forget_topic(producer, topic)
            if answered:
                raise _unknown(topic) from None
            raise kafka.KafkaConnectionError("no broker answers") from None
    available = sorted(cluster.available_partitions_for_topic(topic) or found)
    return len(found), available


def _round(batch: PartitionBatch) -> int:
    return batch.round


def _unknown(topic: str) -> kafka.UnknownTopicOrPartitionError:
    return kafka.UnknownTopicOrPartitionError(topic)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception of an abandoned future, which asyncio would log otherwise."""
    if not future.cancelled():
        future.exception()
