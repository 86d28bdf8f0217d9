"""redis-py on streams: the idiomatic and the tuned baseline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError

from ..contestant import BenchTopic, Contestant, Handle, Item, Publishing
from .address import plain
from .body import reader
from .durability import DURABILITY
from .headers import Headers

BATCH = 500
BLOCK_MS = 200
CONNECTIONS = 16
"""The fastest of all sizes tried, from 8 to 256, for hundreds of tasks."""

Entry = tuple[bytes, dict[bytes, bytes]]
Entries = list[Entry]


class _Usual(Publishing):
    def __init__(self, client: Redis, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._headers = Headers(topic, prefix="ce-", content_type="content-type", keyed=True)

    async def one(self, item: Item) -> None:
        await self._client.xadd(self._topic, {"data": item.body})

    async def many(self, items: Sequence[Item]) -> None:
        for first in range(0, len(items), BATCH):
            pipeline = self._client.pipeline(transaction=False)
            for item, _, headers in self._headers.of(items[first : first + BATCH]):
                fields: dict[Any, Any] = {**headers, "data": item.body}
                pipeline.xadd(self._topic, fields)
            await pipeline.execute()


class _Best(_Usual):
    async def one(self, item: Item) -> None:
        await self.many([item])


class Raw(Contestant):
    """One awaited call per message."""

    name = "raw"
    backend = "redis"
    counted_by = "raw best"
    durability = DURABILITY["redis"]
    how = (
        "redis-py: xadd(), body only, without the headers that anymq sends, from a pool of 16 "
        "connections; xreadgroup(count=500), xack() each, of messages that carry those headers"
    )
    can = frozenset({"publish", "consume", "typed", "latency"})

    async def prepare(self) -> None:
        async with _connected(self.topic) as client:
            try:
                await client.xgroup_create(self.topic.name, self.topic.group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        async with _connected(self.topic) as client:
            yield _Usual(client, self.topic.name)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        take = reader(handle, typed=typed)
        topic, group = self.topic.name, self.topic.group
        async with _connected(self.topic) as client:
            handled = None
            ended = False
            try:
                async for entries in _batches(client, self.topic):
                    for id, fields in entries:
                        take(fields[b"data"])
                        handled = id
                        await client.xack(topic, group, id)
                        handled = None
                        ended |= done()
                    if (
                        ended
                    ):  # the rest of the batch is pending for this consumer, so it is handled too
                        return
            finally:
                if handled is not None:  # the call may have been cancelled
                    await client.xack(topic, group, handled)


class RawBest(Raw):
    """Pipelines, and one XACK per read."""

    name = "raw best"
    counted_by = ""
    how = (
        "redis-py: pipelines of 500 xadd() with the headers that anymq sends; "
        "xreadgroup(count=500), one xack() of them all"
    )
    can = frozenset({"publish_many", "consume", "typed"})

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        async with _connected(self.topic) as client:
            yield _Best(client, self.topic.name)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        take = reader(handle, typed=typed)
        topic, group = self.topic.name, self.topic.group
        async with _connected(self.topic) as client:
            handled: list[bytes] = []
            try:
                async for entries in _batches(client, self.topic):
                    ended = _handle(entries, take, done, handled)
                    await client.xack(topic, group, *handled)
                    handled.clear()
                    if ended:
                        return
            finally:
                if handled:
                    await client.xack(topic, group, *handled)


def _handle(entries: Entries, take: Handle, done: Callable[[], bool], handled: list[bytes]) -> bool:
    """Handle the entries and record their ids; return whether `done`."""
    ended = False
    for id, fields in entries:
        take(fields[b"data"])
        handled.append(id)
        ended |= done()
    return ended


async def _batches(client: Redis, topic: BenchTopic) -> AsyncIterator[Entries]:
    consumer = f"bench-{token_hex(6)}"
    task = asyncio.current_task()
    while True:
        # Before Python 3.12, `wait_for` inside redis-py can swallow a cancellation.
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        answer: Any = await client.xreadgroup(
            topic.group, consumer, {topic.name: ">"}, count=BATCH, block=BLOCK_MS
        )
        if answer:
            _, entries = answer[0]
            yield entries


@asynccontextmanager
async def _connected(topic: BenchTopic) -> AsyncIterator[Redis]:
    pool = BlockingConnectionPool.from_url(
        plain(topic.url), max_connections=CONNECTIONS, timeout=None
    )
    client = Redis.from_pool(pool)
    try:
        await client.ping()  # connects
        yield client
    finally:
        await client.aclose()
