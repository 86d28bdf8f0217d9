"""Looking at topics and groups by what AMQP tells: which of them are there, and how they are made.

How many messages a queue has ready is all it says of its contents: what members hold, what waits
in the delay queues, and what is in a log, nobody can ask for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.driver import GroupInfo, PartitionInfo, TopicInfo, TopicSpec

from . import topology
from .group import Group
from .link import Link

AT_ONCE = 8
_AGE = re.compile(r"(\d+)([YMDhms])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "D": 86400, "M": 30 * 86400, "Y": 365 * 86400}


async def describe_topic(link: Link, topic: TopicSpec, count: int) -> TopicInfo:
    """What is known of a topic of `count` partitions."""
    kept = await topology.log_arguments(link, topology.exchange_of(topic))
    age = _AGE.fullmatch(str(kept.get("x-max-age", "")))
    return TopicInfo(
        name=topic.name,
        native=topic.native,
        partitions=tuple(PartitionInfo(number=number) for number in range(count)),
        retention=float(int(age[1]) * _SECONDS[age[2]]) if age else None,
        retention_bytes=kept.get("x-max-length-bytes"),
    )


async def describe_group(link: Link, topic: TopicSpec, native: str, group: Group) -> GroupInfo:
    """What is known of a group; the lag of a partition is what its members have not got yet."""
    ready: list[int] = []
    consumers = 0
    for queue in group.live:
        messages, members = await topology.counts(link, queue)
        ready.append(messages)
        consumers = max(consumers, members)
    for queue in () if consumers else group.histories:  # Members read these before the others.
        with suppress(ChannelNotFoundEntity):
            consumers = max(consumers, (await topology.counts(link, queue))[1])
    return GroupInfo(
        topic=topic.name,
        group=native,
        native=native,
        ordered=group.partitions is not None,
        members=None if consumers else (),
        partitions=tuple(PartitionInfo(number=n, lag=lag) for n, lag in enumerate(ready)),
    )


async def present(names: Iterable[str], look: Callable[[str], Awaitable[None]]) -> list[str]:
    """Those of `names` that `look` finds, sorted."""
    room = asyncio.Semaphore(AT_ONCE)

    async def is_there(name: str) -> bool:
        async with room:
            try:
                await look(name)
            except ChannelNotFoundEntity:
                return False
            return True

    ordered = sorted(names)
    found = await asyncio.gather(*map(is_there, ordered))
    return [name for name, there in zip(ordered, found, strict=True) if there]
