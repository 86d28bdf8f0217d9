"""anymq as its guide shows it: the default chain, with and without idempotency."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from anymq import App, Broker, Idempotency, Topic, connect

from ..contestant import BenchTopic, Contestant, Handle, Item, Publishing
from .body import subscriber
from .durability import DURABILITY

STORE_VARIABLE = "ANYMQ_BENCH_STORE"
"""Environment variable with the URL of the Redis store of `anymq+redis`."""

BACKFILL_TIMEOUT = 5.0
POLL_INTERVAL = 0.1

ALL_ABILITIES = frozenset({"publish", "publish_many", "consume", "typed", "latency", "ordered"})


class _Publishing(Publishing):
    def __init__(self, broker: Broker, topic: Topic[bytes]) -> None:
        self._broker = broker
        self._anymq_topic = topic

    async def one(self, item: Item) -> None:
        await self._broker.publish(self._anymq_topic, item.body, key=item.key)

    async def many(self, items: Sequence[Item]) -> None:
        bodies = [item.body for item in items]
        keys = iter([item.key for item in items])
        keyed = any(item.key is not None for item in items)

        def key(_: bytes) -> str:
            return next(keys) or ""

        outcomes = await self._broker.publish_many(
            self._anymq_topic, bodies, key=key if keyed else None
        )
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


class Anymq(Contestant):
    """The default chain: acknowledge, retry, dead-letter."""

    name = "anymq"
    how = "anymq: publish(), publish_many(); an App's subscriber with the default chain"
    can = ALL_ABILITIES

    def __init__(self, topic: BenchTopic) -> None:
        super().__init__(topic)
        self._anymq_topic: Topic[bytes] = Topic(topic.name, partitions=topic.partitions)

    def idempotency(self) -> Idempotency | None:
        """Return the idempotency middleware, None by default."""
        return None

    async def prepare(self) -> None:
        async with connect(self.topic.url) as broker:
            topic = self.topic
            async with broker.subscribe(
                self._anymq_topic, group=topic.group, ordered=topic.ordered
            ):
                await self._await_backfill(broker)

    async def _await_backfill(self, broker: Broker) -> None:
        """Wait until a new group on RabbitMQ has completed its backfill."""
        if self.backend != "rabbitmq":
            return
        from aiormq.exceptions import ChannelNotFoundEntity

        job = f"{self.topic.name}.{self.topic.group}._fill"
        loop = asyncio.get_running_loop()
        end = loop.time() + BACKFILL_TIMEOUT
        while loop.time() < end:
            channel = await broker.native.channel()
            try:
                await channel.declare_queue(job, passive=True)
            except ChannelNotFoundEntity:
                return
            await channel.close()
            await asyncio.sleep(POLL_INTERVAL)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Publishing]:
        async with connect(self.topic.url) as broker:
            yield _Publishing(broker, self._anymq_topic)

    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        app = App(self.topic.url)
        handler, enough = subscriber(handle, done, typed=typed)
        register: Callable[[Any], Any] = app.subscriber(
            self._anymq_topic,
            group=self.topic.group,
            ordered=self.topic.ordered,
            idempotency=self.idempotency(),
        )
        register(handler)
        async with app:
            await enough.wait()


class Idempotent(Anymq):
    """The default chain with an idempotency store in memory."""

    name = "anymq+idempotency"
    how = f"{Anymq.how} and Idempotency('memory://')"
    can = frozenset({"consume"})

    def idempotency(self) -> Idempotency | None:
        return Idempotency("memory://")


class IdempotentRedis(Anymq):
    """The default chain with an idempotency store shared by all processes."""

    name = "anymq+redis"
    how = f"{Anymq.how} and Idempotency('redis://…')"
    can = frozenset({"consume"})

    @classmethod
    def missing(cls) -> str | None:
        if cls.backend == "redis" or STORE_VARIABLE in os.environ:
            return None
        return f"the URL of a Redis server, in {STORE_VARIABLE}"

    def idempotency(self) -> Idempotency | None:
        return Idempotency(os.environ.get(STORE_VARIABLE, self.topic.url))


def anymq_on(backend: str) -> list[type[Contestant]]:
    """Return anymq's contestants on `backend`."""
    families = [Anymq, Idempotent]
    if backend != "memory":
        families.append(IdempotentRedis)
    durability = DURABILITY[backend]
    if backend == "rabbitmq":
        durability = f"{durability}; and the topic's log, a stream"
    values = {"backend": backend, "durability": durability, "__doc__": None}
    made: list[Any] = [
        type(f"{one.__name__}On{backend.title()}", (one,), dict(values)) for one in families
    ]
    return made
