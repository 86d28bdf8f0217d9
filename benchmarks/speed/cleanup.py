"""Delete what a run left on the broker, whoever of the contestants made it.

Everything of a run has the run's own token in its name, so nothing else is ever touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

import anymq
from anymq.url import URL

from .contestant import Place

USES_STORE = "anymq+redis"
"""The contestant that leaves notes in `STORE_VARIABLE`."""


async def delete_topic(broker: anymq.Broker, backend: str, place: Place) -> None:
    """Delete the topic of `place`, its groups, and whatever else has its name in theirs."""
    with suppress(anymq.AnymqError):
        await broker.admin.delete(place.topic)
    if backend in _REST:
        await _REST[backend](broker.native, place)


async def delete_claims(url: str, place: Place) -> None:
    """Delete what the group of `place` has noted in an idempotency store in Redis."""
    async with Redis.from_url(url.partition("?")[0]) as client:
        await _redis(client, place)


async def _kafka(native: Any, place: Place) -> None:
    from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]

    hosts: Any = [f"{host}:{port or 9092}" for host, port in URL.parse(place.url).hosts]
    admin = AIOKafkaAdminClient(bootstrap_servers=hosts)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if place.topic in name]
        if names:
            await admin.delete_topics(names)
    finally:
        await admin.close()


async def _nats(native: Any, place: Place) -> None:
    jetstream = native.jetstream()
    for stream in await jetstream.streams_info():
        named = [stream.config.name, *(stream.config.subjects or ())]
        if any(place.topic in name for name in named):
            await jetstream.delete_stream(stream.config.name)


async def _redis(native: Any, place: Place) -> None:
    names = [name async for name in native.scan_iter(match=f"*{place.topic}*", count=1000)]
    for start in range(0, len(names), 1000):
        await native.unlink(*names[start : start + 1000])


async def _rabbitmq(native: Any, place: Place) -> None:
    # There is no list to look into; deleting what is not there is no error.
    channel = await native.channel()
    for name in (place.topic, f"{place.topic}.{place.group}"):
        await channel.queue_delete(name)
        await channel.exchange_delete(name)
    await channel.close()


_REST: dict[str, Callable[[Any, Place], Awaitable[None]]] = {
    "kafka": _kafka,
    "nats": _nats,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}
