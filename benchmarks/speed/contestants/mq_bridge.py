"""mq-bridge, a Rust core with a blocking Python interface, called in threads."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..contestant import Contestant, Handle, Item, Publishing
from . import kafka, nats, rabbitmq, redis
from .address import hosts, plain
from .body import reader
from .durability import DURABILITY
from .headers import Headers

if TYPE_CHECKING:
    from mq_bridge import Publisher

POLL = 500
POLL_MS = 200
KEY = "ce-partitionkey"


class _Publishing(Publishing):
    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._headers = Headers(topic, prefix="ce-", content_type="content-type", keyed=True)

    async def one(self, item: Item) -> None:
        await self.many([item])

    async def many(self, items: Sequence[Item]) -> None:
        await asyncio.to_thread(self._send, items)

    def _send(self, items: Sequence[Item]) -> None:
        from mq_bridge import Message

        messages = [Message(item.body, headers) for item, _, headers in self._headers.of(items)]
        self._publisher.send_batch(messages)


class MQBridge(Contestant):
    """Batches in both directions; each batch is settled as one."""

    name = "mq-bridge"
    how = "mq-bridge: send_batch() with the headers that anymq sends; poll(500), commit() of it all"
    can = frozenset({"publish_many", "consume"})

    @classmethod
    def missing(cls) -> str | None:
        return None if find_spec("mq_bridge") else "the package mq-bridge"

    @abstractmethod
    def output(self) -> dict[str, Any]:
        """Return the configuration of the publisher."""

    @abstractmethod
    def input(self) -> dict[str, Any]:
        """Return the configuration of the consumer."""

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        from mq_bridge import Publisher

        publisher = await asyncio.to_thread(Publisher.from_config, self.output())
        yield _Publishing(publisher, self.topic.name)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        take = reader(handle, typed=typed)
        ended = threading.Event()
        work = asyncio.ensure_future(asyncio.to_thread(self._consume, take, done, ended))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            ended.set()
            await work
            raise

    def _consume(self, take: Handle, done: Callable[[], bool], ended: threading.Event) -> None:
        from mq_bridge import Consumer

        with Consumer.from_config(self.input()) as consumer:
            while not ended.is_set():
                batch = consumer.poll(POLL, POLL_MS)
                if not batch:
                    continue
                for message in batch:
                    take(message.payload)
                    if done():
                        ended.set()  # the rest of its batch is settled too, so it is handled
                consumer.commit()


class OnKafka(MQBridge):
    """Based on librdkafka."""

    backend = "kafka"
    durability = DURABILITY["kafka"]

    async def prepare(self) -> None:
        await kafka.make_topic(self.topic)

    def output(self) -> dict[str, Any]:
        options = [["acks", "all"], ["enable.idempotence", "true"]]
        more = {"create_topic": False, "partition_key": KEY, "producer_options": options}
        return {"kafka": self._common() | more}

    def input(self) -> dict[str, Any]:
        group = f"{self.topic.name}.{self.topic.group}"
        options = [["auto.offset.reset", "earliest"]]
        return {"kafka": self._common() | {"group_id": group, "consumer_options": options}}

    def _common(self) -> dict[str, Any]:
        return {"url": ",".join(hosts(self.topic.url, kafka.PORT)), "topic": self.topic.name}


class OnRabbitMQ(MQBridge):
    """Publishes only, because its consumer always declares a classic queue."""

    backend = "rabbitmq"
    durability = DURABILITY["rabbitmq"]
    how = (
        "mq-bridge: send_batch() with the headers that anymq sends; it cannot consume from a "
        "quorum queue"
    )
    can = frozenset({"publish_many"})

    async def prepare(self) -> None:
        await rabbitmq.Raw(self.topic).prepare()

    def output(self) -> dict[str, Any]:
        url = plain(self.topic.url)
        if url.endswith("/"):
            url += "%2f"  # its client reads an empty path as a virtual host without a name
        queue = rabbitmq.queue_of(self.topic)
        return {"amqp": {"url": url, "queue": queue, "no_declare_queue": True}}

    def input(self) -> dict[str, Any]:
        """Raise: `consume` does not use this configuration."""
        raise NotImplementedError

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        """Consume with aiormq, so that the published messages can be counted."""
        await rabbitmq.RawBest(self.topic).consume(handle, done, typed=typed)


class OnNATS(MQBridge):
    """Creates a durable consumer of its own."""

    backend = "nats"
    durability = DURABILITY["nats"]

    async def prepare(self) -> None:
        await nats.make_stream(self.topic)

    def output(self) -> dict[str, Any]:
        return {"nats": self._common() | {"deduplicate": True}}

    def input(self) -> dict[str, Any]:
        return {"nats": self._common()}

    def _common(self) -> dict[str, Any]:
        topic = self.topic
        return {"url": plain(topic.url), "subject": topic.name, "stream": nats.stream_of(topic)}


class OnRedis(MQBridge):
    """A consumer group on a stream."""

    backend = "redis"
    durability = DURABILITY["redis"]

    async def prepare(self) -> None:
        await redis.Raw(self.topic).prepare()

    def output(self) -> dict[str, Any]:
        return {"redis_streams": self._common()}

    def input(self) -> dict[str, Any]:
        more = {"group": self.topic.group, "read_from_start": True, "block_ms": POLL_MS}
        return {"redis_streams": self._common() | more}

    def _common(self) -> dict[str, Any]:
        return {"url": plain(self.topic.url), "stream": self.topic.name}
