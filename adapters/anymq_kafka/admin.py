"""What Kafka knows of topics and groups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from anymq.driver import (
    GroupInfo,
    MemberInfo,
    PartitionInfo,
    PoisonInfo,
    TopicInfo,
    TopicSpec,
    moment,
)

from .client.internals import TopicPartition, kafka
from .connection import Clients
from .delays import AUXILIARY, GROUP, TOPICS
from .group.assignor import ORDERED, UNORDERED
from .groups import Group, Groups
from .lag import Remaining, remaining
from .positions import partitions_of, reader, times_at
from .retry import retry_topics
from .topology import Topology

POISON = 100
_MODES = {ORDERED: True, UNORDERED: False}


async def topics(topology: Topology) -> list[str]:
    """Return the topics that are not auxiliary: no segment of theirs begins with an underscore."""
    names = await topology.names()
    return sorted(
        name for name in names if not any(part.startswith("_") for part in name.split("."))
    )


async def groups(topology: Topology, topic: str) -> list[str]:
    """Return the groups that have a place in `topic`."""
    found = await Groups(topology).reading(await partitions_of(topology, topic))
    return [name for name in found if not name.startswith(AUXILIARY)]


async def describe_topic(clients: Clients, topology: Topology, topic: TopicSpec) -> TopicInfo:
    tps = await partitions_of(topology, topic.native)
    async with reader(clients) as consumer, asyncio.timeout(clients.options.request_timeout):
        begins = await consumer.beginning_offsets(tps)
        ends = await consumer.end_offsets(tps)
        firsts = await consumer.offsets_for_times(dict.fromkeys(tps, 0))
    settings = await topology.settings(topic.native)
    sizes = await topology.sizes(topic.native, len(tps))
    # Offsets count messages unless some in between are gone.
    countable = "compact" not in settings.get("cleanup.policy", "")
    moments = [first.timestamp for first in firsts.values() if first is not None]
    waiting = await remaining(clients, topology, GROUP, TOPICS)
    return TopicInfo(
        name=topic.name,
        native=topic.native,
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
        # Those that wait are of all topics.
        delayed=None if any(place.count for place in waiting.values()) else 0,
        retention=_bound(settings, "retention.ms", 1 / 1000),
        retention_bytes=_whole(_bound(settings, "retention.bytes", len(tps))),
    )


async def describe_group(
    clients: Clients, topology: Topology, topic: TopicSpec, native: str
) -> GroupInfo:
    known = await Groups(topology).describe(native)
    left = await remaining(clients, topology, native, [topic.native])
    if not left:
        raise kafka.UnknownTopicOrPartitionError(topic.native)
    if not any(place.placed for place in left.values()):
        raise kafka.GroupIdNotFound(native)
    retries = await remaining(clients, topology, native, retry_topics(native))
    waiting = sum(place.count for place in retries.values())
    members = known.members if known is not None else ()
    owners = {tp: member.name for member in members for tp in member.partitions}
    idle = 0 if not members else None
    return GroupInfo(
        topic=topic.name,
        group=native,
        native=native,
        ordered=_MODES.get(known.protocol) if known is not None else None,
        members=tuple(
            MemberInfo(
                name=member.name,
                partitions=tuple(
                    tp.partition for tp in member.partitions if tp.topic == topic.native
                ),
                host=member.host,
            )
            for member in members
        ),
        partitions=tuple(
            PartitionInfo(number=tp.partition, owner=owners.get(tp), lag=place.count)
            for tp, place in left.items()
        ),
        lag=sum(place.count for place in left.values()) + waiting,
        lag_seconds=await _age(clients, left | retries),
        in_flight=idle,
        waiting=waiting,
        oldest_pending=idle,
        poison=_poison(known, left, owners),
    )


async def _age(clients: Clients, left: dict[TopicPartition, Remaining]) -> float:
    """Return the age of the oldest message that is not settled, or waits for a retry."""
    begins = {tp: place.begin for tp, place in left.items() if place.count}
    moments = await times_at(clients, begins)
    return max([0.0, *(time.time() - moment / 1000 for moment in moments.values())])


def _poison(
    known: Group | None,
    left: dict[TopicPartition, Remaining],
    owners: Mapping[TopicPartition, str],
) -> tuple[PoisonInfo, ...] | None:
    """Return what an ordered group has noted beside its offsets; other groups note nothing."""
    found = [
        PoisonInfo(position=f"{tp.partition}:{offset}", attempts=count, member=owners.get(tp))
        for tp, place in left.items()
        for offset, count in place.counts.items()
        if count > 1
    ]
    if not found and (known is None or known.protocol != ORDERED):
        return None
    return tuple(sorted(found, key=lambda item: -item.attempts)[:POISON])


def _bound(settings: dict[str, str], name: str, factor: float) -> float | None:
    value = int(settings.get(name, "-1"))
    deletes = "delete" in settings.get("cleanup.policy", "delete")
    return value * factor if value >= 0 and deletes else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
