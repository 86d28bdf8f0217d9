"""The idiomatic baseline with aio-pika, and the tuned one with aiormq below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aio_pika
import aiormq
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractExchange
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic

from ..contestant import BenchTopic, Contestant, Handle, Item, Publishing
from .address import plain
from .body import reader
from .durability import DURABILITY
from .headers import CONTENT_TYPE, Headers

PREFETCH = 500
ACK_EVERY = 100
ACK_WITHIN = 0.02
TIMEOUT = 30.0


def queue_of(topic: BenchTopic) -> str:
    """Return the group's queue, to which the default exchange routes."""
    return f"{topic.name}.{topic.group}"


class _Usual(Publishing):
    """Publishes with aio-pika; `many` uses an aiormq channel, which it enters into `stack`."""

    def __init__(
        self, exchange: AbstractExchange, topic: BenchTopic, stack: AsyncExitStack
    ) -> None:
        self._exchange = exchange
        self._topic = topic
        self._queue = queue_of(topic)
        self._stack = stack
        self._many: _Pipelined | None = None

    async def one(self, item: Item) -> None:
        message = Message(item.body, delivery_mode=DeliveryMode.PERSISTENT)
        await self._exchange.publish(message, routing_key=self._queue)

    async def many(self, items: Sequence[Item]) -> None:
        if self._many is None:
            channel = await self._stack.enter_async_context(_low_channel(self._topic))
            self._many = _Pipelined(channel, self._topic)
        await self._many.many(items)


class _Pipelined(Publishing):
    """Writes all messages, then awaits all confirmations."""

    def __init__(self, channel: Channel, topic: BenchTopic) -> None:
        self._channel = channel
        self._queue = queue_of(topic)
        self._headers = Headers(topic.name, prefix="cloudEvents:", content_type=None, keyed=True)

    async def one(self, item: Item) -> None:
        await self.many([item])

    async def many(self, items: Sequence[Item]) -> None:
        now = datetime.now(UTC)
        async with asyncio.timeout(TIMEOUT):
            answers = await asyncio.gather(
                *[
                    self._channel.basic_publish(
                        item.body,
                        routing_key=self._queue,
                        properties=_properties(id, headers, now),
                        mandatory=True,
                        wait=False,
                    )
                    for item, id, headers in self._headers.of(items)
                ]
            )
        refused = [answer for answer in answers if not isinstance(answer, Basic.Ack)]
        if refused:
            raise RuntimeError(
                f"RabbitMQ refused {len(refused)} messages; first answer: {refused[0]}"
            )


def _properties(id: str, headers: dict[str, str], now: datetime) -> Basic.Properties:
    return Basic.Properties(
        content_type=CONTENT_TYPE,
        headers={**headers},
        delivery_mode=2,
        message_id=id,
        timestamp=now,
    )


class Raw(Contestant):
    """One awaited call per message."""

    name = "raw"
    backend = "rabbitmq"
    counted_by = "raw best"
    durability = DURABILITY["rabbitmq"]
    how = (
        "aio-pika: exchange.publish(), body only, without the headers that anymq sends; "
        "queue.iterator() with process(), prefetch 500, of messages that carry those headers"
    )
    can = frozenset({"publish", "consume", "typed", "latency"})

    async def prepare(self) -> None:
        async with await aio_pika.connect(plain(self.topic.url)) as connection:
            channel = await connection.channel()
            await channel.declare_queue(
                queue_of(self.topic), durable=True, arguments={"x-queue-type": "quorum"}
            )

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        async with AsyncExitStack() as stack:
            connection = await aio_pika.connect_robust(plain(self.topic.url))
            await stack.enter_async_context(connection)
            channel = await connection.channel(publisher_confirms=True)
            yield _Usual(channel.default_exchange, self.topic, stack)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        take = reader(handle, typed=typed)
        async with await aio_pika.connect_robust(plain(self.topic.url)) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.get_queue(queue_of(self.topic))
            async with queue.iterator() as messages:
                async for message in messages:
                    async with message.process():
                        take(message.body)
                    if done():
                        break


class RawBest(Raw):
    """Confirmations and acknowledgements in batches."""

    name = "raw best"
    counted_by = ""
    how = (
        "aiormq: basic_publish() of all, then their confirmations, with the headers that anymq "
        "sends; basic_consume(), prefetch 500, basic_ack(multiple=True) every 100 or 20 ms"
    )
    can = frozenset({"publish_many", "consume", "typed"})

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        async with _low_channel(self.topic) as channel:
            yield _Pipelined(channel, self.topic)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        async with _low_channel(self.topic) as channel:
            await channel.basic_qos(prefetch_count=PREFETCH)
            bulk = _Bulk(channel, reader(handle, typed=typed), done)
            tag = await channel.basic_consume(queue_of(self.topic), bulk.take)
            try:
                await bulk.until_done()
            finally:
                bulk.stop()
                await channel.basic_cancel(tag.consumer_tag or "")
                await bulk.ack(wait=True)


class _Bulk:
    """Handles deliveries on arrival, and acknowledges them in batches."""

    def __init__(self, channel: Channel, take: Handle, done: Callable[[], bool]) -> None:
        self._channel = channel
        self._take = take
        self._done = done
        self._ended = asyncio.Event()
        self._tag = self._acked = 0
        self._error: Exception | None = None

    async def take(self, message: DeliveredMessage) -> None:
        """Handle one message; after the last one, leave it unsettled, to be requeued on close."""
        if self._ended.is_set():
            return
        try:
            self._take(message.body)
        except Exception as error:
            self._error = error
            self._ended.set()
            return
        self._tag = message.delivery_tag or self._tag
        if self._done():
            self._ended.set()
        elif self._tag - self._acked >= ACK_EVERY:
            await self.ack()

    async def ack(self, *, wait: bool = False) -> None:
        """Acknowledge all handled messages; with `wait`, return once the call is written."""
        if self._tag > self._acked:
            self._acked = self._tag
            await self._channel.basic_ack(self._tag, multiple=True, wait=wait)

    async def until_done(self) -> None:
        """Wait until `done`, acknowledging incomplete batches every `ACK_WITHIN` seconds."""
        while not self._ended.is_set():
            await self.ack()
            await asyncio.sleep(ACK_WITHIN)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop handling messages."""
        self._ended.set()


@asynccontextmanager
async def _low_channel(topic: BenchTopic) -> AsyncIterator[Any]:
    """Yield an aiormq channel with publisher confirms."""
    connection = await aiormq.connect(plain(topic.url))
    try:
        channel = await connection.channel(publisher_confirms=True)
        try:
            yield channel
        finally:
            await channel.close()
    finally:
        await connection.close()
