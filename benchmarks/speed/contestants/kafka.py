"""aiokafka: the idiomatic and the tuned baseline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar

from aiokafka import (  # type: ignore[import-untyped]
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]
from aiokafka.partitioner import DefaultPartitioner  # type: ignore[import-untyped]

from ..contestant import BenchTopic, Contestant, Handle, Item, Publishing
from .address import hosts
from .body import reader
from .durability import DURABILITY
from .headers import Headers

PORT = 9092
COMMIT_EVERY = 500
BATCH_BYTES = 1_000_000
POLL_MS = 200

Fetched = dict[Any, list[Any]]
"""Records by partition, as returned by `getmany`."""


def _servers(topic: BenchTopic) -> Any:
    return hosts(topic.url, PORT)  # aiokafka accepts a list but declares a string


async def make_topic(topic: BenchTopic) -> None:
    """Create the topic with the server's default number of replicas."""
    admin = AIOKafkaAdminClient(bootstrap_servers=_servers(topic))
    await admin.start()
    try:
        new = NewTopic(topic.name, topic.partitions, -1, replica_assignments={})
        answer: Any = await admin.create_topics([new])
        for name, code, *_ in answer.topic_errors:
            error = kafka.for_code(code)
            if error not in (kafka.NoError, kafka.TopicAlreadyExistsError):
                raise error(name)
    finally:
        await admin.close()


class _Usual(Publishing):
    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self.producer = producer
        self.topic = topic
        self._headers = Headers(topic, prefix="ce_", content_type="content-type", keyed=False)
        self._partitioner: Any = DefaultPartitioner()
        self._turn = 0

    async def one(self, item: Item) -> None:
        key = None if item.key is None else item.key.encode()
        await self.producer.send_and_wait(self.topic, item.body, key=key)

    async def many(self, items: Sequence[Item]) -> None:
        await asyncio.gather(*[await self._send(*filled) for filled in await self._fill(items)])

    async def _send(self, partition: int, batch: Any) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await self.producer.send_batch(
            batch, self.topic, partition=partition
        )
        return sent

    async def _fill(self, items: Sequence[Item]) -> list[tuple[int, Any]]:
        partitions: list[int] = sorted(await self.producer.partitions_for(self.topic))
        self._turn += 1
        turn = partitions[self._turn % len(partitions)]
        full: list[tuple[int, Any]] = []
        open_: dict[int, Any] = {}
        for item, _, headers in self._headers.of(items):
            key = None if item.key is None else item.key.encode()
            partition = turn if key is None else self._partitioner(key, partitions, partitions)
            content = [(name, value.encode()) for name, value in headers.items()]
            batch = open_.get(partition)
            if batch is not None:
                if batch.append(key=key, value=item.body, timestamp=None, headers=content):
                    continue
                full.append((partition, batch))
            batch = open_[partition] = self.producer.create_batch()
            batch.append(key=key, value=item.body, timestamp=None, headers=content)
        return full + list(open_.items())


class _Best(_Usual):
    async def one(self, item: Item) -> None:
        key = None if item.key is None else item.key.encode()
        for _, _, headers in self._headers.of([item]):
            content = [(name, value.encode()) for name, value in headers.items()]
            await self.producer.send_and_wait(self.topic, item.body, key=key, headers=content)


class _CommitOnRevoke(ConsumerRebalanceListener):  # type: ignore[misc]
    """Commits the handled offsets before another member is assigned the partitions."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    def on_partitions_revoked(self, revoked: Any) -> Any:
        return _commit(self._consumer)

    def on_partitions_assigned(self, assigned: Any) -> Any:
        return None


class Raw(Contestant):
    """One awaited call per message."""

    name = "raw"
    backend = "kafka"
    durability = DURABILITY["kafka"]
    how = (
        "aiokafka: send_and_wait(), body and key only, without the headers that anymq sends, "
        "batches of up to 1 MB; async for, commit() every 500 messages, which carry those headers"
    )
    can = frozenset({"publish", "consume", "typed", "latency", "ordered"})
    _publishing: ClassVar[type[_Usual]] = _Usual

    async def prepare(self) -> None:
        await make_topic(self.topic)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        producer = AIOKafkaProducer(
            bootstrap_servers=_servers(self.topic),
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=2 * BATCH_BYTES,
        )
        await producer.start()
        try:
            yield self._publishing(producer, self.topic.name)
        finally:
            await producer.stop()

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        take = reader(handle, typed=typed)
        consumer = await self._consumer()
        count = 0
        try:
            async for record in consumer:
                take(record.value or b"")
                count += 1
                if count % COMMIT_EVERY == 0:
                    await _commit(consumer)
                if done():
                    break
        finally:
            await _commit(consumer)
            await consumer.stop()

    async def _consumer(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=_servers(self.topic),
            group_id=f"{self.topic.name}.{self.topic.group}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        consumer.subscribe([self.topic.name], listener=_CommitOnRevoke(consumer))
        return consumer


class RawBest(Raw):
    """Batches built in advance, and fetched and committed as such."""

    name = "raw best"
    how = (
        "aiokafka: create_batch() and send_batch(), a batch of up to 1 MB for each list, with the "
        "headers that anymq sends; getmany(), one commit() of it all"
    )
    can = frozenset({"publish_many", "consume", "typed", "ordered"})
    _publishing = _Best

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        take = reader(handle, typed=typed)
        consumer = await self._consumer()
        handled: dict[TopicPartition, int] = {}
        try:
            ended = False
            while not ended:
                fetched: Fetched = await consumer.getmany(timeout_ms=POLL_MS)
                ended = _handle(fetched, take, done, handled)
                await _commit(consumer, handled)
        finally:
            await _commit(consumer, handled)
            await consumer.stop()


def _handle(
    fetched: Fetched, take: Handle, done: Callable[[], bool], handled: dict[TopicPartition, int]
) -> bool:
    """Handle fetched records and record the offsets; return whether `done`."""
    for partition, records in fetched.items():
        for record in records:
            take(record.value)
            handled[partition] = record.offset + 1
            if done():
                return True
    return False


async def _commit(
    consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int] | None = None
) -> None:
    """Commit and clear `offsets`; without them, commit everything that was consumed."""
    noted = None
    if offsets is not None:
        mine = consumer.assignment()
        noted = {partition: offset for partition, offset in offsets.items() if partition in mine}
        if not noted:
            return
    # If another member owns the partitions now, it handles the messages again.
    with suppress(kafka.CommitFailedError, kafka.IllegalStateError):
        await consumer.commit(noted)
    if offsets is not None:
        offsets.clear()
