"""What a broker has stored, for tests of the command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anymq
from anymq import Broker
from anymq.operating.topic_access import Stored

T = TypeVar("T")


def stored(url: str, topic: str) -> list[Stored]:
    """Return the messages of a topic in its order."""

    async def browse(broker: Broker) -> list[Stored]:
        return [item async for item in broker.admin.browse(topic)]

    return with_broker(url, browse)


def bodies(url: str, topic: str) -> list[str]:
    """Return the bodies of a topic's messages, sorted."""
    return sorted(item.message.body.decode() for item in stored(url, topic))


def topics(url: str) -> list[str]:
    """Return the topics of a broker."""
    return with_broker(url, lambda broker: broker.admin.topics())


def with_broker(url: str, work: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
    """Return the result of `work`, called with a broker."""

    async def connected() -> T:
        async with anymq.connect(url) as broker:
            return await work(broker)

    return asyncio.run(connected())
