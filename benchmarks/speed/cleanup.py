"""Deletion of the topics, groups and claims that a run created, whichever contestant created them.

Their names contain the token of the run, so nothing else is deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

import anymq
from anymq import URL

from .contestant import BenchTopic

USES_STORE = "anymq+redis"
"""The contestant that leaves claims in the store at `STORE_VARIABLE`."""


async def delete_topic(broker: anymq.Broker, backend: str, topic: BenchTopic) -> None:
    """Delete the topic, its groups, and everything else whose name contains the topic's."""
    with suppress(anymq.AnymqError):
        await broker.admin.delete(topic.name)
    if backend in _REST:
        await _REST[backend](broker.native, topic)


async def delete_claims(url: str, topic: BenchTopic) -> None:
    """Delete the claims of the topic's group from the idempotency store at a Redis URL."""
    async with Redis.from_url(url.partition("?")[0]) as client:
        await _redis(client, topic)


async def _kafka(native: Any, topic: BenchTopic) -> None:
    from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]

    hosts: Any = [f"{host}:{port or 9092}" for host, port in URL.parse(topic.url).hosts]
    admin = AIOKafkaAdminClient(bootstrap_servers=hosts)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if topic.name in name]
        if names:
            await admin.delete_topics(names)
    finally:
        await admin.close()


async def _nats(native: Any, topic: BenchTopic) -> None:
    jetstream = native.jetstream()
    for stream in await jetstream.streams_info():
        named = [stream.config.name, *(stream.config.subjects or ())]
        if any(topic.name in name for name in named):
            await jetstream.delete_stream(stream.config.name)


async def _redis(native: Any, topic: BenchTopic) -> None:
    names = [name async for name in native.scan_iter(match=f"*{topic.name}*", count=1000)]
    for start in range(0, len(names), 1000):
        await native.unlink(*names[start : start + 1000])


async def _rabbitmq(native: Any, topic: BenchTopic) -> None:
    # AMQP cannot list names; deleting a missing queue or exchange is not an error.
    channel = await native.channel()
    for name in (topic.name, f"{topic.name}.{topic.group}"):
        await channel.queue_delete(name)
        await channel.exchange_delete(name)
    await channel.close()


_REST: dict[str, Callable[[Any, BenchTopic], Awaitable[None]]] = {
    "kafka": _kafka,
    "nats": _nats,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}
