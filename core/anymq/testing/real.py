"""What `TestBroker` asks a real broker: what is on a topic, and whether there is still work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..connect import connect
from ..driver.info import GroupInfo
from ..message import Message

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consuming.subscription import Subscription


def read(url: str, topic: str, names: Mapping[str, str] | None) -> list[Message]:
    """Return what `topic` holds; raises `NotFound`.

    In a thread, over a connection of its own: so it can be called without an `await`, as on the
    memory broker. The test waits for it.
    """

    async def browse() -> list[Message]:
        async with connect(url, names=names) as broker:
            return [stored.message async for stored in broker.admin.browse(topic)]

    with ThreadPoolExecutor(1) as thread:
        messages = thread.submit(asyncio.run, browse()).result()
    if all(message.time for message in messages):
        messages.sort(key=lambda message: message.time or 0)  # Partitions are read in turn.
    return messages


async def is_busy(broker: Broker, subscription: Subscription) -> bool:
    """Whether there is something that `subscription` can handle now, as far as can be known."""
    if subscription.paused:
        return False
    if subscription.in_flight:
        return True
    if subscription.group is None:
        return False
    info = await broker.admin.describe(subscription.topic, subscription.group)
    return _left(info) > 0


def _left(info: GroupInfo) -> int:
    """Return how many messages do not wait for a retry; without a lag, how many wait in queues."""
    if info.lag is not None:
        return info.lag - (info.waiting or 0)
    return sum(partition.lag or 0 for partition in info.partitions or ())
