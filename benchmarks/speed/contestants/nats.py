"""nats-py on JetStream: the idiomatic and the tuned baseline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

from ..contestant import BenchTopic, Contestant, Handle, Item, Publishing
from .address import plain
from .body import reader
from .durability import DURABILITY
from .headers import Headers

FETCH = 500
FETCH_WAIT = 1.0
AHEAD = 1000
EXPIRES = 30.0
TIMEOUT = 30.0


def stream_of(topic: BenchTopic) -> str:
    """Return the name of the topic's stream, which may not contain dots."""
    return topic.name.replace(".", "-")


async def make_stream(topic: BenchTopic) -> None:
    """Create the stream."""
    config = StreamConfig(name=stream_of(topic), subjects=[topic.name], storage=StorageType.FILE)
    async with _connected(topic) as client:
        await client.jsm().add_stream(config)


class _Usual(Publishing):
    def __init__(self, client: Client, topic: BenchTopic) -> None:
        self._stream = client.jetstream(timeout=TIMEOUT)
        self._subject = topic.name
        self._inbox = _Inbox(client, topic)

    async def one(self, item: Item) -> None:
        await self._stream.publish(self._subject, item.body)

    async def many(self, items: Sequence[Item]) -> None:
        await self._inbox.many(items)


class _Inbox(Publishing):
    """Receives the server's answers on one inbox, with one future per call."""

    def __init__(self, client: Client, topic: BenchTopic) -> None:
        self._client = client
        self._subject = topic.name
        self._inbox = client.new_inbox()
        self._headers = Headers(
            topic.name, prefix="ce-", content_type="ce-datacontenttype", keyed=True
        )
        self._subscribing: asyncio.Task[Any] | None = None
        self._calls: dict[str, _Call] = {}
        self._count = 0

    async def one(self, item: Item) -> None:
        await self.many([item])

    async def many(self, items: Sequence[Item]) -> None:
        if not items:
            return
        if self._subscribing is None:
            subscribe = self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
            self._subscribing = asyncio.create_task(subscribe)
        await self._subscribing
        self._count += 1
        reply = f"{self._inbox}.{self._count}"
        call = self._calls[reply] = _Call(len(items))
        try:
            async with asyncio.timeout(TIMEOUT):
                for item, id, headers in self._headers.of(items):
                    headers["Nats-Msg-Id"] = id
                    await self._client.publish(self._subject, item.body, reply, headers)
                await call.answered
        finally:
            del self._calls[reply]

    async def _on_answer(self, message: Msg) -> None:
        call = self._calls.get(message.subject)
        if call is not None:
            call.take(message)


class _Call:
    """The pending answers to the messages of one call."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, message: Msg) -> None:
        """Record one answer."""
        self._missing -= 1
        if self.answered.done():
            return
        if b'"seq"' not in message.data or b'"error"' in message.data:
            refusal = RuntimeError(f"not stored: {message.data!r} {message.headers}")
            self.answered.set_exception(refusal)
        elif not self._missing:
            self.answered.set_result(None)


class Raw(Contestant):
    """One awaited call per message."""

    name = "raw"
    backend = "nats"
    durability = DURABILITY["nats"]
    how = (
        "nats-py: js.publish(), body only, without the headers that anymq sends; "
        "pull_subscribe_bind(), fetch(500), ack() each, of messages that carry those headers"
    )
    can = frozenset({"publish", "consume", "typed", "latency"})

    async def prepare(self) -> None:
        await make_stream(self.topic)
        config = ConsumerConfig(
            durable_name=self.topic.group,
            ack_policy=AckPolicy.EXPLICIT,
            max_ack_pending=10 * AHEAD,
        )
        async with _connected(self.topic) as client:
            await client.jsm().add_consumer(stream_of(self.topic), config)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        async with _connected(self.topic) as client:
            yield _Usual(client, self.topic)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        take = reader(handle, typed=typed)
        async with _connected(self.topic) as client:
            pull = await client.jetstream().pull_subscribe_bind(
                durable=self.topic.group, stream=stream_of(self.topic)
            )
            while True:
                try:
                    messages = await pull.fetch(FETCH, timeout=FETCH_WAIT)
                except nats.errors.TimeoutError:
                    continue
                for at, message in enumerate(messages):
                    take(message.data)
                    await message.ack()
                    if done():
                        for left in messages[at + 1 :]:
                            await left.nak()
                        return


class RawBest(Raw):
    """Direct use of inboxes and pull requests, without a wait per message."""

    name = "raw best"
    how = (
        "nats-py: publish() with an inbox of its own for the answers, with the headers that anymq "
        "sends; requests for the next messages ahead of need, one +ACK each"
    )
    can = frozenset({"publish_many", "consume", "typed"})

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        async with _connected(self.topic, unchecked=True) as client:
            yield _Inbox(client, self.topic)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        async with _connected(self.topic, unchecked=True) as client:
            pull = _Pull(client, self.topic, reader(handle, typed=typed), done)
            await pull.run()


class _Pull:
    """Keeps between half of `AHEAD` and twice `AHEAD` messages requested."""

    def __init__(
        self, client: Client, topic: BenchTopic, take: Handle, done: Callable[[], bool]
    ) -> None:
        self._client = client
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(topic)}.{topic.group}"
        self._inbox = client.new_inbox()
        self._take = take
        self._done = done
        self._asked = 0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Handle until done."""
        subscription: Any = await self._client.subscribe(self._inbox, cb=self._arrived)
        try:
            await self._ask()
            await self._ended
        finally:
            if not self._ended.done():
                self._ended.cancel()
            await subscription.drain()

    async def _ask(self) -> None:
        self._asked += AHEAD
        request = {"batch": AHEAD, "expires": int(EXPIRES * 1e9)}
        await self._client.publish(self._next, json.dumps(request).encode(), self._inbox)

    async def _arrived(self, message: Msg) -> None:
        if self._ended.done():
            if message.reply:
                await self._client.publish(message.reply, b"-NAK")
            return
        if not message.reply:
            return await self._refused(message)
        self._asked -= 1
        try:
            self._take(message.data)
        except Exception as error:
            self._ended.set_exception(error)
            return
        await self._client.publish(message.reply, b"+ACK")
        if self._done():
            self._ended.set_result(None)
        elif self._asked <= AHEAD // 2:
            await self._ask()

    async def _refused(self, message: Msg) -> None:
        """Replace a pull request that ended before it was filled."""
        headers = message.headers or {}
        if headers.get("Status") not in ("404", "408", "409"):
            return
        self._asked -= int(headers.get("Nats-Pending-Messages", AHEAD))
        if self._asked <= AHEAD // 2:
            await self._ask()


@asynccontextmanager
async def _connected(topic: BenchTopic, *, unchecked: bool = False) -> AsyncIterator[Client]:
    """Yield a client; `unchecked` disables its validation of every subject."""
    client = await nats.connect(plain(topic.url).split(","), skip_subject_validation=unchecked)
    try:
        yield client
        await client.flush()
    finally:
        await client.close()
