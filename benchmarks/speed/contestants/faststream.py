"""FastStream on its four brokers, as its documentation shows it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from faststream.redis import RedisBroker, StreamSub

from ..contestant import BenchTopic, Contestant, Handle, Item, Publishing
from . import kafka, nats, rabbitmq, redis
from .address import hosts, plain
from .body import Handler, subscriber
from .durability import DURABILITY
from .headers import CONTENT_TYPE

Send = Callable[[Item], Awaitable[object]]

AT_ONCE = 256
"""Concurrent publishes in place of a batch call, which FastStream lacks."""


class _Publishing(Publishing):
    def __init__(self, send: Send) -> None:
        self._send = send

    async def one(self, item: Item) -> None:
        await self._send(item)

    async def many(self, items: Sequence[Item]) -> None:
        rest = iter(items)

        async def some() -> None:
            for item in rest:
                await self._send(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(items))):
                group.create_task(some())


class FastStream(Contestant):
    """A subscriber that handles one message at a time and acknowledges it afterwards."""

    name = "faststream"
    can = frozenset({"publish", "consume", "typed"})

    @abstractmethod
    def broker(self) -> Any:
        """Create a broker without a logger, which would write two lines per message."""

    @abstractmethod
    def sender(self, broker: Any) -> Send:
        """Return a function that publishes one message and awaits its confirmation."""

    @abstractmethod
    def subscribe(self, broker: Any, handler: Handler) -> None:
        """Register the handler."""

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        broker = self.broker()
        await broker.start()
        try:
            yield _Publishing(self.sender(broker))
        finally:
            await broker.stop()

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        handler, enough = subscriber(handle, done, typed=typed)
        broker = self.broker()
        self.subscribe(broker, handler)
        await broker.start()
        try:
            await enough.wait()
        finally:
            await broker.stop()


class OnKafka(FastStream):
    """Commits the offset after each handler."""

    backend = "kafka"
    counted_by = "raw best"
    durability = DURABILITY["kafka"]
    how = (
        "FastStream: publish(), batches of up to 1 MB; subscriber with AckPolicy.ACK, a commit a "
        "message"
    )

    async def prepare(self) -> None:
        await kafka.make_topic(self.topic)

    def broker(self) -> KafkaBroker:
        return KafkaBroker(
            hosts(self.topic.url, kafka.PORT),
            acks="all",
            enable_idempotence=True,
            max_batch_size=kafka.BATCH_BYTES,
            max_request_size=2 * kafka.BATCH_BYTES,
            graceful_timeout=10.0,
            logger=None,
        )

    def sender(self, broker: KafkaBroker) -> Send:
        def send(item: Item) -> Awaitable[object]:
            key = None if item.key is None else item.key.encode()
            return broker.publish(item.body, self.topic.name, key=key, headers=_headers(item))

        return send

    def subscribe(self, broker: KafkaBroker, handler: Handler) -> None:
        broker.subscriber(
            self.topic.name,
            group_id=_group(self.topic),
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.ACK,
        )(handler)


class OnRabbitMQ(FastStream):
    """A channel with publisher confirms, and a quorum queue."""

    backend = "rabbitmq"
    counted_by = "raw best"
    durability = DURABILITY["rabbitmq"]
    how = "FastStream: publish(persist=True); subscriber with prefetch 500, acked after its handler"

    async def prepare(self) -> None:
        await rabbitmq.Raw(self.topic).prepare()

    def broker(self) -> RabbitBroker:
        return RabbitBroker(
            plain(self.topic.url),
            default_channel=Channel(prefetch_count=rabbitmq.PREFETCH),
            graceful_timeout=10.0,
            logger=None,
        )

    def sender(self, broker: RabbitBroker) -> Send:
        queue = self._queue()

        def send(item: Item) -> Awaitable[object]:
            return broker.publish(item.body, queue, persist=True, content_type=_kind(item))

        return send

    def subscribe(self, broker: RabbitBroker, handler: Handler) -> None:
        broker.subscriber(self._queue(), ack_policy=AckPolicy.NACK_ON_ERROR)(handler)

    def _queue(self) -> RabbitQueue:
        return RabbitQueue(rabbitmq.queue_of(self.topic), queue_type=QueueType.QUORUM, durable=True)


class OnNATS(FastStream):
    """A pull consumer on JetStream."""

    backend = "nats"
    counted_by = "raw best"
    durability = DURABILITY["nats"]
    how = "FastStream: publish(stream=…); subscriber with PullSub(500), acked after its handler"

    async def prepare(self) -> None:
        await nats.Raw(self.topic).prepare()

    def broker(self) -> NatsBroker:
        servers = plain(self.topic.url).split(",")
        return NatsBroker(servers, graceful_timeout=10.0, logger=None)

    def sender(self, broker: NatsBroker) -> Send:
        stream = nats.stream_of(self.topic)

        def send(item: Item) -> Awaitable[object]:
            return broker.publish(
                item.body,
                self.topic.name,
                headers=_headers(item),
                stream=stream,
                timeout=nats.TIMEOUT,
            )

        return send

    def subscribe(self, broker: NatsBroker, handler: Handler) -> None:
        broker.subscriber(
            self.topic.name,
            stream=JStream(nats.stream_of(self.topic), declare=False),
            durable=self.topic.group,
            pull_sub=PullSub(batch_size=nats.FETCH, timeout=nats.FETCH_WAIT),
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )(handler)


class OnRedis(FastStream):
    """A consumer group on a stream."""

    backend = "redis"
    durability = DURABILITY["redis"]
    how = (
        "FastStream: publish(stream=…), 16 at a time, which is faster than more; "
        "StreamSub(max_records=500), acked after its handler"
    )

    async def prepare(self) -> None:
        await redis.Raw(self.topic).prepare()

    def broker(self) -> RedisBroker:
        options: dict[str, Any] = {"graceful_timeout": 10.0, "logger": None}
        return RedisBroker(plain(self.topic.url), **options)

    def sender(self, broker: RedisBroker) -> Send:
        connections = asyncio.Semaphore(redis.CONNECTIONS)

        async def send(item: Item) -> None:
            async with connections:
                await broker.publish(item.body, stream=self.topic.name, headers=_headers(item))

        return send

    def subscribe(self, broker: RedisBroker, handler: Handler) -> None:
        broker.subscriber(
            stream=StreamSub(
                self.topic.name,
                group=self.topic.group,
                consumer=f"bench-{token_hex(6)}",
                max_records=redis.BATCH,
                polling_interval=redis.BLOCK_MS,
                last_id=">",
            ),
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )(handler)


def _group(topic: BenchTopic) -> str:
    return f"{topic.name}.{topic.group}"


def _kind(item: Item) -> str:
    return "application/json" if item.body.startswith(b"{") else CONTENT_TYPE


def _headers(item: Item) -> dict[str, str]:
    return {"content-type": _kind(item)}
