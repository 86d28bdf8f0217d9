"""Operating topics and groups: read them without a group, seek, delete, purge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from anymq.driver import Received, Start, StateError, logger

from .client.fetcher import Fetched, Found
from .client.internals import AIOKafkaConsumer, TopicPartition, kafka
from .connection import Clients
from .delays import Delays
from .group.committer import REFUSED
from .groups import Groups
from .messages import Unreadable
from .positions import Places, check, partitions_of, places_for, reader
from .retry import retry_topics
from .topology import Topology

log = logger("anymq.kafka")

READ, SLICE = 500, 0.25
_ALL = -1


async def browse(
    clients: Clients, topology: Topology, topic: str, start: Start
) -> AsyncIterator[Sequence[Received]]:
    """Yield what `topic` holds from `start` to its end as of now."""
    check(start)
    tps = await partitions_of(topology, topic)
    async with reader(clients) as consumer:
        async with asyncio.timeout(clients.options.request_timeout):
            places = await places_for(clients, consumer, tps, start)
            ends: Places = await consumer.end_offsets(tps)
        left = {tp: ends[tp] for tp in tps if places[tp] < ends[tp]}
        consumer.assign(list(left))
        for tp in left:
            consumer.seek(tp, places[tp])
        fetched = Fetched(consumer, clients.options.max_decompressed)
        while left:
            for tp, records in await _read(clients, consumer, fetched, left):
                if isinstance(records[0], Unreadable):
                    log.warning("%s is left out: %s", tp.topic, records[0].reason)
                elif batch := [record for record in records if record.offset < ends[tp]]:
                    yield batch
            # By position: the log may end with what is no record.
            for tp in [tp for tp in left if not fetched.is_open(tp)]:
                if await consumer.position(tp) >= ends[tp]:
                    consumer.pause(tp)
                    del left[tp]


async def _read(
    clients: Clients, consumer: AIOKafkaConsumer, fetched: Fetched, left: Places
) -> Found:
    """Return the next records; empty if the position has moved over what is no record."""
    found: Found = []
    async with asyncio.timeout(clients.options.request_timeout):
        before = {tp: await consumer.position(tp) for tp in left}
        while not found and before == {tp: await consumer.position(tp) for tp in left}:
            found = await fetched.read(SLICE, READ)
    return found


async def seek(clients: Clients, topology: Topology, topic: str, group: str, to: Start) -> None:
    """Let the group begin at `to`; its retries are forgotten."""
    check(to)
    tps = await partitions_of(topology, topic)
    groups = Groups(topology)
    if not await groups.committed(group, tps):
        raise kafka.GroupIdNotFound(group)
    await _without_members(groups, group)
    retries = await topology.counts(retry_topics(group))
    rest = [TopicPartition(name, n) for name, count in retries.items() for n in range(count)]
    async with reader(clients) as consumer, asyncio.timeout(clients.options.request_timeout):
        places = await places_for(clients, consumer, tps, to)
        ends = await consumer.end_offsets(rest) if rest else {}
    try:
        await groups.commit(group, {**places, **ends})
    except REFUSED as error:
        raise _live(group) from error


async def delete_group(topology: Topology, group: str) -> None:
    """Delete the group and its retry topics."""
    groups = Groups(topology)
    await _without_members(groups, group)
    try:
        await groups.delete(group)
    except kafka.NonEmptyGroup as error:
        raise _live(group) from error
    await topology.delete(retry_topics(group))


async def delete_topic(topology: Topology, delays: Delays, topic: str) -> None:
    """Delete the topic, what is delayed for it, and those of its groups that read nothing else."""
    groups = await _groups_of(topology, topic)
    await delays.purge(topic)
    retries = [name for group in groups for name in retry_topics(group)]
    await topology.delete([topic, *retries])
    known = Groups(topology)
    for group in groups:
        if not await known.topics(group) - {topic, *retries}:
            try:
                await known.delete(group)
            except kafka.NonEmptyGroup:
                # Its members are about to notice; the offsets have gone with the topic.
                continue


async def purge(topology: Topology, delays: Delays, topic: str) -> None:
    """Delete all records of the topic and of its groups' retry topics, and what is delayed."""
    await delays.purge(topic)
    groups = await _groups_of(topology, topic)
    counts = await topology.counts([topic, *(name for g in groups for name in retry_topics(g))])
    await topology.trim(
        {TopicPartition(name, n): _ALL for name, count in counts.items() for n in range(count)}
    )


async def _groups_of(topology: Topology, topic: str) -> list[str]:
    count = await topology.partitions(topic) or 0
    return await Groups(topology).reading([TopicPartition(topic, n) for n in range(count)])


async def _without_members(groups: Groups, group: str) -> None:
    known = await groups.describe(group)
    if known is not None and known.members:
        raise _live(group)


def _live(group: str) -> StateError:
    return StateError(f"the group {group} has live members")
