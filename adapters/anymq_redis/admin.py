"""What the server knows of topics and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from anymq.driver import (
    GroupInfo,
    MemberInfo,
    NotFound,
    PartitionInfo,
    PoisonInfo,
    TopicInfo,
    moment,
    ordered,
)

from .client.codec import pack
from .connection import Commands
from .counting import age_of, answers, attendance, count, count_for, inform, pairs
from .operations import groups
from .options import RedisOptions
from .ordered import RedisLog
from .positions import id_at, time_of
from .scripts import POISON
from .scripts.keys import GroupKeys
from .topology import RedisTopic

_WORST = 100
_LOOKED_AT = b"1000"


async def describe_topic(commands: Commands, topic: RedisTopic, options: RedisOptions) -> TopicInfo:
    """Describe a topic; `bytes` is what its streams take in the server's memory."""
    keys = topic.keys
    infos = await inform(commands, keys.streams)
    delayed, (age, bound), *sizes = answers(
        await commands.run(
            pack(b"ZCARD", keys.delayed),
            pack(b"HMGET", keys.about, b"retention", b"bytes"),
            *(pack(b"MEMORY", b"USAGE", stream) for stream in keys.streams),
        )
    )
    partitions = tuple(_partition(topic, *numbered) for numbered in enumerate(infos))
    ages = [at for item in partitions if item.first and (at := time_of(item.first)) is not None]
    return TopicInfo(
        name=topic.spec.name,
        native=topic.spec.native,
        partitions=partitions,
        messages=sum(item.messages or 0 for item in partitions),
        bytes=sum(size or 0 for size in sizes),
        oldest=moment(min(ages, default=None)),
        delayed=delayed,
        retention=int(age) / 1000 if age else options.retention,
        retention_bytes=int(bound) if bound else None,
    )


async def describe_group(commands: Commands, topic: RedisTopic, keys: GroupKeys) -> GroupInfo:
    """Describe a group of either kind; raises `NotFound` if there is none."""
    if await commands.call(b"HEXISTS", topic.keys.cells, b"g:" + keys.group):
        return await _describe_ordered(commands, topic, keys)
    if keys.group.decode() in await groups(commands, topic):
        return await _describe_plain(commands, topic, keys)
    raise NotFound(f"topic {topic.spec.name!r} has no group {keys.group.decode()!r}")


async def _describe_plain(commands: Commands, topic: RedisTopic, keys: GroupKeys) -> GroupInfo:
    streams = topic.keys.streams
    every = (keys.retry, *streams)
    retried, delayed, *listed = answers(
        await commands.run(
            pack(b"XLEN", keys.retry),
            pack(b"ZCARD", keys.delayed),
            *(pack(b"XINFO", b"GROUPS", stream) for stream in every),
            *(pack(b"XINFO", b"CONSUMERS", stream, keys.group) for stream in every),
        ),
        absent=[],
    )
    own, *infos = [_of_group(listing, keys) for listing in listed[: len(every)]]
    holding = _holding(listed[len(every) :])
    behind = [await count_for(commands, *pair) for pair in zip(streams, infos, strict=True)]
    waiting = delayed + max(0, retried - own.get(b"pending", 0))
    pending = [info.get(b"pending", 0) for info in infos]
    in_flight = sum(pending) + own.get(b"pending", 0)
    lags = [_sum(found.count, held) for found, held in zip(behind, pending, strict=True)]
    present, longest = await attendance(commands, keys, holding)
    poison, idle, oldest = await _poison(commands, topic, keys)
    return GroupInfo(
        topic=topic.spec.name,
        group=keys.group.decode(),
        native=keys.group.decode(),
        ordered=False,
        members=tuple(MemberInfo(name=name, in_flight=holding[name]) for name in present),
        partitions=tuple(PartitionInfo(number=n, lag=lag) for n, lag in enumerate(lags)),
        lag=_sum(*(found.count for found in behind), in_flight, waiting),
        lag_seconds=await age_of(commands, [oldest, *(found.first for found in behind)]),
        in_flight=in_flight,
        waiting=waiting,
        oldest_pending=max(longest, idle) if in_flight else 0.0,
        poison=poison,
    )


async def _describe_ordered(commands: Commands, topic: RedisTopic, keys: GroupKeys) -> GroupInfo:
    states = await ordered.state(RedisLog(commands, topic, keys))
    lags: dict[int, int | None] = {}
    firsts: list[str] = []
    for number, one in states.items():
        stream = topic.keys.streams[number]
        behind = await count(commands, stream, id_at(one.cursor))
        lags[number] = None if behind.count is None else max(0, behind.count - len(one.done))
        firsts.append(behind.first)
    present, _ = await attendance(commands, keys, {})
    return ordered.describe(
        topic.spec,
        keys.group.decode(),
        states=states,
        lags=lags,
        lag_seconds=await age_of(commands, firsts),
        members=[MemberInfo(name=name) for name in present],
    )


def _partition(topic: RedisTopic, number: int, info: Mapping[bytes, Any]) -> PartitionInfo:
    first, last = (info.get(name) for name in (b"first-entry", b"last-entry"))
    prefix = topic.keys.prefix(number)
    return PartitionInfo(
        number=number,
        messages=info.get(b"length", 0),
        first=(prefix + first[0]).decode() if first else None,
        last=(prefix + last[0]).decode() if last else None,
    )


def _of_group(listing: Iterable[Any], keys: GroupKeys) -> dict[bytes, Any]:
    every = map(pairs, listing)
    return next((info for info in every if info[b"name"] == keys.group), {})


def _holding(listings: Iterable[Iterable[Any]]) -> Counter[str]:
    """Return what consumers hold, on all streams together."""
    holding = Counter[str]()
    for listing in listings:
        for consumer in map(pairs, listing):
            holding[consumer[b"name"].decode()] += consumer[b"pending"]
    return holding


async def _poison(
    commands: Commands, topic: RedisTopic, keys: GroupKeys
) -> tuple[tuple[PoisonInfo, ...], float, str]:
    """Return the worst, and the longest time for which something has been pending unextended.

    And an id with the time of the oldest that has been handed out; empty if there is none.
    """
    prefixes = [topic.keys.prefix(number) for number in range(topic.partitions)]
    found, idle, oldest = await commands.eval(
        POISON,
        [keys.delayed, keys.payloads, keys.retry, *topic.keys.streams],
        [keys.group, _LOOKED_AT, b"", *prefixes],
    )
    infos = [
        PoisonInfo(position=position.decode(), attempts=number, member=member.decode() or None)
        for position, number, member in found
    ]
    worst = tuple(sorted(infos, key=lambda info: -info.attempts)[:_WORST])
    return worst, idle / 1000, "" if oldest == b"0" else oldest.decode()


def _sum(*numbers: int | None) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
