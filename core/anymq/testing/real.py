"""Queries of `TestBroker` on a real broker: the messages of a topic, and pending work."""

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
    """Return the messages of `topic`; raises `NotFound`.

    It reads in a thread, over a connection of its own, and blocks until it has the result. So it
    needs no `await`, as on the memory broker.
    """

    async def browse() -> list[Message]:
        async with connect(url, names=names, isolated=True) as broker:
            return [stored.message async for stored in broker.admin.browse(topic)]

    with ThreadPoolExecutor(1) as thread:
        messages = thread.submit(asyncio.run, browse()).result()
    if all(message.time for message in messages):
        messages.sort(
            key=lambda message: message.time or 0
        )  # Partitions are read one after another.
    return messages


async def is_busy(broker: Broker, subscription: Subscription) -> bool:
    """Whether `subscription` has messages that are due, as far as the broker can tell."""
    if subscription.paused:
        return False
    if subscription.in_flight:
        return True
    if subscription.group is None:
        return False
    info = await broker.admin.describe(subscription.topic, subscription.group)
    return _left(info) > 0


def _left(info: GroupInfo) -> int:
    """Return the lag without the messages that wait for a retry; else the queued messages."""
    if info.lag is not None:
        return info.lag - (info.waiting or 0)
    return sum(partition.lag or 0 for partition in info.partitions or ())
