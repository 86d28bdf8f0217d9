"""Topics and groups for operators: list, describe, lag, seek, purge and delete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anymq.driver import (
    MOST_POISON,
    GroupInfo,
    MemberInfo,
    PartitionInfo,
    PoisonInfo,
    Start,
    StateError,
    TopicInfo,
    moment,
    offsets,
)

from .client.compat import TopicPartition, kafka
from .connection import Clients, lone_consumer
from .delays import AUXILIARY, GROUP, TOPICS, DelayMover, retry_topics
from .group.assignor import ORDERED, UNORDERED
from .group.committer import REFUSED
from .positions import check_start, start_offsets, times_at
from .topology import Group, Groups, Topology, partitions_in, partitions_of

_IS_ORDERED = {ORDERED: True, UNORDERED: False}
_ALL_RECORDS = -1


@dataclass(frozen=True)
class Backlog:
    """The `count` unsettled records of a group in one partition, from `begin` up to `end`.

    `committed` is False if the group has never committed there. `redeliveries` has the counts that
    an ordered group has committed, by offset.
    """

    begin: int
    end: int
    count: int
    committed: bool
    redeliveries: dict[int, int]


async def backlog(
    clients: Clients, topology: Topology, group: str, topics: Iterable[str]
) -> dict[TopicPartition, Backlog]:
    """Return the group's backlog in those of `topics` that exist."""
    tps = partitions_in(await topology.counts(topics))
    if not tps:
        return {}
    # Before the ends, because records may be stored and settled meanwhile.
    commits = await Groups(topology).committed(group, tps)
    async with lone_consumer(clients) as consumer:
        begins = await consumer.beginning_offsets(tps)
        ends = await consumer.end_offsets(tps)
    found: dict[TopicPartition, Backlog] = {}
    for tp in tps:
        commit = commits.get(tp)
        offset, metadata = (commit.offset, commit.metadata) if commit is not None else (0, "")
        begin, end = max(offset, begins[tp]), ends[tp]
        done = sum(
            max(0, min(stop, end) - max(start, begin))
            for start, stop in offsets.decode(offset, metadata)
        )
        counts = offsets.decode_counts(offset, metadata)
        found[tp] = Backlog(
            begin,
            end,
            max(0, end - begin - done),
            commit is not None,
            {offset: count for offset, count in counts.items() if offset >= begin},
        )
    return found


async def topics(topology: Topology) -> list[str]:
    """Return the topics of applications: no segment of their names begins with an underscore."""
    names = await topology.names()
    return sorted(
        name for name in names if not any(part.startswith("_") for part in name.split("."))
    )


async def groups(topology: Topology, topic: str) -> list[str]:
    """Return the groups that have committed offsets in `topic`."""
    found = await Groups(topology).reading(await partitions_of(topology, topic))
    return [name for name in found if not name.startswith(AUXILIARY)]


async def describe_topic(clients: Clients, topology: Topology, topic: str) -> TopicInfo:
    """Return the statistics of `topic`."""
    tps = await partitions_of(topology, topic)
    async with lone_consumer(clients) as consumer, asyncio.timeout(clients.options.request_timeout):
        begins = await consumer.beginning_offsets(tps)
        ends = await consumer.end_offsets(tps)
        firsts = await consumer.offsets_for_times(dict.fromkeys(tps, 0))
    settings = await topology.settings(topic)
    sizes = await topology.sizes(topic, len(tps))
    # Offsets do not count messages if compaction has removed some between them.
    countable = "compact" not in settings.get("cleanup.policy", "")
    moments = [first.timestamp for first in firsts.values() if first is not None]
    delayed = await backlog(clients, topology, GROUP, TOPICS)
    return TopicInfo(
        native=topic,
        partitions=tuple(
            PartitionInfo(
                number=tp.partition,
                messages=ends[tp] - begins[tp] if countable else None,
                first=f"{tp.partition}:{begins[tp]}" if ends[tp] > begins[tp] else None,
                last=f"{tp.partition}:{ends[tp] - 1}" if ends[tp] > begins[tp] else None,
            )
            for tp in tps
        ),
        messages=sum(ends[tp] - begins[tp] for tp in tps) if countable else None,
        bytes=sum(sizes) if sizes is not None else None,
        oldest=moment(min(moments) / 1000) if moments else None,
        # All topics share the tiers, so the number is unknown unless they are empty.
        delayed=None if any(partition.count for partition in delayed.values()) else 0,
        retention=_bound(settings, "retention.ms", 1 / 1000),
        retention_bytes=_whole(_bound(settings, "retention.bytes", len(tps))),
    )


async def describe_group(
    clients: Clients, topology: Topology, topic: str, native: str
) -> GroupInfo:
    """Return the statistics of the group `native` in `topic`; raises if there is none."""
    known = await Groups(topology).describe(native)
    unsettled = await backlog(clients, topology, native, [topic])
    if not unsettled:
        raise kafka.UnknownTopicOrPartitionError(topic)
    if not any(partition.committed for partition in unsettled.values()):
        raise kafka.GroupIdNotFound(native)
    retries = await backlog(clients, topology, native, retry_topics(native))
    waiting = sum(partition.count for partition in retries.values())
    members = known.members if known is not None else ()
    owners = {tp: member.name for member in members for tp in member.partitions}
    idle = 0 if not members else None
    return GroupInfo(
        native=native,
        ordered=_IS_ORDERED.get(known.protocol) if known is not None else None,
        members=tuple(
            MemberInfo(
                name=member.name,
                partitions=tuple(tp.partition for tp in member.partitions if tp.topic == topic),
                host=member.host,
            )
            for member in members
        ),
        partitions=tuple(
            PartitionInfo(number=tp.partition, owner=owners.get(tp), lag=partition.count)
            for tp, partition in unsettled.items()
        ),
        lag=sum(partition.count for partition in unsettled.values()) + waiting,
        lag_seconds=await _age(clients, unsettled | retries),
        in_flight=idle,
        waiting=waiting,
        oldest_pending=idle,
        poison=_poison(known, unsettled, owners),
    )


async def _age(clients: Clients, unsettled: Mapping[TopicPartition, Backlog]) -> float:
    """Return the age of the oldest unsettled message in seconds."""
    begins = {tp: partition.begin for tp, partition in unsettled.items() if partition.count}
    times = await times_at(clients, begins)
    return max([0.0, *(time.time() - time_ms / 1000 for time_ms in times.values())])


def _poison(
    known: Group | None,
    unsettled: Mapping[TopicPartition, Backlog],
    owners: Mapping[TopicPartition, str],
) -> tuple[PoisonInfo, ...] | None:
    """Return the poison messages of an ordered group; None for others, which commit no counts."""
    found = [
        PoisonInfo(position=f"{tp.partition}:{offset}", attempts=count, member=owners.get(tp))
        for tp, partition in unsettled.items()
        for offset, count in partition.redeliveries.items()
        if count > 1
    ]
    if not found and (known is None or known.protocol != ORDERED):
        return None
    return tuple(sorted(found, key=lambda item: -item.attempts)[:MOST_POISON])


def _bound(settings: Mapping[str, str], name: str, factor: float) -> float | None:
    value = int(settings.get(name, "-1"))
    deletes = "delete" in settings.get("cleanup.policy", "delete")
    return value * factor if value >= 0 and deletes else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


async def seek(clients: Clients, topology: Topology, topic: str, group: str, to: Start) -> None:
    """Reset the group to `to`, and forget its retries."""
    check_start(to)
    tps = await partitions_of(topology, topic)
    known = Groups(topology)
    if not await known.committed(group, tps):
        raise kafka.GroupIdNotFound(group)
    await _check_no_members(known, group)
    retries = partitions_in(await topology.counts(retry_topics(group)))
    async with lone_consumer(clients) as consumer, asyncio.timeout(clients.options.request_timeout):
        begins = await start_offsets(clients, consumer, tps, to)
        ends = await consumer.end_offsets(retries) if retries else {}
    try:
        await known.commit(group, {**begins, **ends})
    except REFUSED as error:
        raise _has_members(group) from error


async def delete_group(topology: Topology, group: str) -> None:
    """Delete the group and its retry topics."""
    known = Groups(topology)
    await _check_no_members(known, group)
    try:
        await known.delete(group)
    except kafka.NonEmptyGroup as error:
        raise _has_members(group) from error
    await topology.delete(retry_topics(group))


async def delete_topic(topology: Topology, mover: DelayMover, topic: str) -> None:
    """Delete the topic, its delayed records, and those of its groups that read nothing else."""
    names = await _groups_of(topology, topic)
    await mover.purge(topic)
    retries = [name for group in names for name in retry_topics(group)]
    await topology.delete([topic, *retries])
    known = Groups(topology)
    for group in names:
        if not await known.topics(group) - {topic, *retries}:
            try:
                await known.delete(group)
            except kafka.NonEmptyGroup:
                # Its members will notice the deletion. The offsets are gone with the topic.
                continue


async def purge(topology: Topology, mover: DelayMover, topic: str) -> None:
    """Delete all records of the topic, those waiting for a retry, and delayed ones."""
    await mover.purge(topic)
    names = await _groups_of(topology, topic)
    counts = await topology.counts([topic, *(name for g in names for name in retry_topics(g))])
    await topology.trim(dict.fromkeys(partitions_in(counts), _ALL_RECORDS))


async def _groups_of(topology: Topology, topic: str) -> list[str]:
    tps = partitions_in(await topology.counts([topic]))
    return await Groups(topology).reading(tps)


async def _check_no_members(known: Groups, group: str) -> None:
    found = await known.describe(group)
    if found is not None and found.members:
        raise _has_members(group)


def _has_members(group: str) -> StateError:
    return StateError(f"the group {group} has live members")
