"""Queries of `TestBroker` on a real broker: the messages of a topic, and pending work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from ..connect import connect
from ..driver.info import GroupInfo
from ..errors import NotFound
from ..message import Message
from ..native_names import NativeNames
from ..operating.letter import Letter

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consuming.subscription import Subscription

T = TypeVar("T")


def read(url: str, topic: str, names: NativeNames) -> list[Message] | None:
    """Return the messages of `topic`; None if it does not exist."""

    async def browse(broker: Broker) -> list[Message]:
        return [stored.message async for stored in broker.admin.browse(topic)]

    try:
        found = _ask(url, names, browse)
    except NotFound:
        return None
    # Partitions are read one after another.
    if all(message.time for message in found):
        found.sort(key=lambda message: message.time or 0)
    return found


def letters(
    url: str, topic: str, group: str | None, stored_in: str, names: NativeNames
) -> list[Letter]:
    """Return the dead letters of `group` on `topic`, which are in the topic `stored_in`."""
    return _ask(
        url,
        names,
        lambda broker: broker.admin.dead_letters(topic, group, stored_in=stored_in).list(),
    )


def _ask(url: str, names: NativeNames, question: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
    """Return the answer to `question`.

    It is asked in a thread, over a connection of its own, and this call blocks until the result is
    there. So it needs no `await`, as on the memory broker.
    """

    # Names of its own, because a topic that is looked at is not one that was used.
    own = NativeNames(names, prefix=names.prefix)

    async def ask() -> T:
        async with connect(url, names=own, isolated=True) as broker:
            return await question(broker)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


async def delete_topics(url: str, names: NativeNames) -> None:
    """Delete the topics that were used under the prefix of `names`, with their groups."""
    async with connect(url, names=names, isolated=True) as broker:
        await asyncio.gather(*(broker.admin.delete(topic) for topic in sorted(names.used)))


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
