"""Administration: topics and groups listed, described, moved and deleted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anymq.driver import (
    MOST_POISON,
    GroupInfo,
    MemberInfo,
    NotFound,
    PartitionInfo,
    PoisonInfo,
    Start,
    StateError,
    TopicInfo,
    moment,
    ordered,
)

from .client.codec import pack
from .connection import Commands
from .messages import time_of
from .options import RedisOptions
from .ordered import RedisLog
from .positions import entry_id, start_ids
from .scripts import COUNT, POISON, PURGE, REMOVE_GROUP
from .scripts.keys import GroupKeys, group_keys
from .scripts.maintenance import ABSENT_SECONDS
from .topology import RedisTopic, answers, pairs, stream_infos

_ABOUT = re.compile(r"\{(.+)\}\._topic")
_AUXILIARY = re.compile(r"\{.+\}(\..+)?\._(retry|p\d+)")
_SCAN_KEYS = b"1000"
_COUNT_PAGE_ENTRIES = 10_000
"""The most entries that one call counts, because the server runs nothing else meanwhile."""
_MAX_COUNT_CALLS = 100
_POISON_ENTRIES = b"1000"
"""The most entries of each stream in which poison messages are looked for."""


async def list_topics(commands: Commands) -> list[str]:
    """Return all streams but auxiliary ones, and declared topics that have no stream yet."""
    found = {key for key in await _scan(commands, b"*", b"stream") if not _AUXILIARY.fullmatch(key)}
    declared = await _scan(commands, b"*_topic", b"hash")
    found |= {match[1] for key in declared if (match := _ABOUT.fullmatch(key))}
    return sorted(found)


async def list_groups(commands: Commands, topic: RedisTopic) -> list[str]:
    """Return the names of the topic's groups, ordered or not."""
    command = pack(b"XINFO", b"GROUPS", topic.keys.streams[0])
    unordered, cells = await commands.run(command, pack(b"HKEYS", topic.keys.cells))
    if isinstance(cells, BaseException):
        raise cells
    names = {name.removeprefix(b"g:") for name in cells if name.startswith(b"g:")}
    if not isinstance(unordered, BaseException):
        names |= {info[1] for info in unordered}
    elif "no such key" not in str(unordered):
        raise unordered
    return sorted(name.decode() for name in names)


async def describe_topic(commands: Commands, topic: RedisTopic, options: RedisOptions) -> TopicInfo:
    """Describe a topic; `bytes` is the size of its streams in the server's memory."""
    keys = topic.keys
    infos = await stream_infos(commands, keys.streams)
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
    """Describe a group, ordered or not; raises `NotFound` if it does not exist."""
    if await commands.call(b"HEXISTS", topic.keys.cells, b"g:" + keys.group):
        return await _describe_ordered(commands, topic, keys)
    if keys.group.decode() in await list_groups(commands, topic):
        return await _describe_unordered(commands, topic, keys)
    raise _no_group(topic, keys)


async def seek(commands: Commands, topic: RedisTopic, keys: GroupKeys, to: Start) -> None:
    """Reset the group to `to`; deliveries in flight and delayed copies are discarded."""
    if await _remove(commands, topic, keys, start_ids(to, topic.partitions)):
        await ordered.seek(RedisLog(commands, topic, keys), to)


async def delete_group(commands: Commands, topic: RedisTopic, keys: GroupKeys) -> None:
    """Delete the group and its copies; no error if it does not exist."""
    try:
        await _remove(commands, topic, keys, [])
    except NotFound:
        return


async def delete_topic(commands: Commands, topic: RedisTopic) -> None:
    """Delete the topic's streams, its delayed records, and all of its groups."""
    keys = topic.keys
    every = [*keys.streams, keys.about, keys.delayed, keys.payloads, keys.cells]
    for group in await _keys_of_groups(commands, topic):
        every += (group.retry, group.delayed, group.payloads, group.members, group.starts)
    await commands.call(b"DEL", *every)


async def purge(commands: Commands, topic: RedisTopic) -> None:
    """Delete all messages; the groups remain."""
    every = [topic.keys.delayed, topic.keys.payloads, *topic.keys.streams]
    for group in await _keys_of_groups(commands, topic):
        every += (group.retry, group.delayed, group.payloads)
    await commands.eval(PURGE, every, [b"%d" % topic.partitions])


async def _describe_unordered(commands: Commands, topic: RedisTopic, keys: GroupKeys) -> GroupInfo:
    streams = topic.keys.streams
    every = (keys.retry, *streams)
    copies, delayed, *listed = answers(
        await commands.run(
            pack(b"XLEN", keys.retry),
            pack(b"ZCARD", keys.delayed),
            *(pack(b"XINFO", b"GROUPS", stream) for stream in every),
            *(pack(b"XINFO", b"CONSUMERS", stream, keys.group) for stream in every),
        ),
        absent=[],
    )
    of_retry, *infos = [_info_of_group(listing, keys) for listing in listed[: len(every)]]
    held = _held_by_member(listed[len(every) :])
    remaining = [await _undelivered(commands, *pair) for pair in zip(streams, infos, strict=True)]
    waiting = delayed + max(0, copies - of_retry.get(b"pending", 0))
    pending = [info.get(b"pending", 0) for info in infos]
    in_flight = sum(pending) + of_retry.get(b"pending", 0)
    lags = [_sum(found.count, open) for found, open in zip(remaining, pending, strict=True)]
    present, longest = await _presence(commands, keys, held)
    poison, idle, oldest = await _poison(commands, topic, keys)
    return GroupInfo(
        native=keys.group.decode(),
        ordered=False,
        members=tuple(MemberInfo(name=name, in_flight=held[name]) for name in present),
        partitions=tuple(PartitionInfo(number=n, lag=lag) for n, lag in enumerate(lags)),
        lag=_sum(*(found.count for found in remaining), in_flight, waiting),
        lag_seconds=await _age(commands, [oldest, *(found.first for found in remaining)]),
        in_flight=in_flight,
        waiting=waiting,
        oldest_pending=max(longest, idle) if in_flight else 0.0,
        poison=poison,
    )


async def _describe_ordered(commands: Commands, topic: RedisTopic, keys: GroupKeys) -> GroupInfo:
    states = await ordered.state(RedisLog(commands, topic, keys))
    lags: dict[int, int | None] = {}
    firsts: list[str] = []
    for number, state in states.items():
        stream = topic.keys.streams[number]
        remaining = await _count(commands, stream, entry_id(state.cursor))
        lags[number] = (
            None if remaining.count is None else max(0, remaining.count - len(state.done))
        )
        firsts.append(remaining.first)
    present, _ = await _presence(commands, keys, {})
    return ordered.describe(
        topic.spec,
        keys.group.decode(),
        states=states,
        lags=lags,
        lag_seconds=await _age(commands, firsts),
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


def _info_of_group(listing: Iterable[Any], keys: GroupKeys) -> dict[bytes, Any]:
    every = map(pairs, listing)
    return next((info for info in every if info[b"name"] == keys.group), {})


def _held_by_member(listings: Iterable[Iterable[Any]]) -> Counter[str]:
    """Return the number of pending entries by consumer, in all streams together."""
    held = Counter[str]()
    for listing in listings:
        for consumer in map(pairs, listing):
            held[consumer[b"name"].decode()] += consumer[b"pending"]
    return held


@dataclass(slots=True)
class _Remaining:
    """The undelivered entries of a partition: their number, None if over 1,000,000, and the first.

    `first` is the id of that entry, empty without one.
    """

    count: int | None
    first: str


async def _count(commands: Commands, stream: bytes, after: bytes) -> _Remaining:
    """Count the entries that follow the id `after`."""
    total, first = 0, ""
    for _ in range(_MAX_COUNT_CALLS):
        args = (after, b"%d" % _COUNT_PAGE_ENTRIES)
        found, after, reached = await commands.eval(COUNT, [stream], args)
        total += found
        first = first or reached.decode()
        if found < _COUNT_PAGE_ENTRIES:
            return _Remaining(total, first)
    return _Remaining(None, first)


async def _undelivered(commands: Commands, stream: bytes, group: Mapping[bytes, Any]) -> _Remaining:
    """Count the entries that the group has not been delivered, or take the server's own count."""
    after: bytes = group.get(b"last-delivered-id", b"0-0")
    lag = group.get(b"lag")
    if lag is None:
        return await _count(commands, stream, after)
    entries = await commands.call(b"XRANGE", stream, b"(" + after, b"+", b"COUNT", b"1")
    return _Remaining(lag, entries[0][0].decode() if entries else "")


async def _age(commands: Commands, ids: Sequence[str]) -> float:
    """Return the age of the oldest of `ids`, in seconds by the server's clock; 0 for none."""
    times = [at for id in ids if (at := time_of(id)) is not None]
    return max(0.0, await _now(commands) - min(times)) if times else 0.0


async def _presence(
    commands: Commands, keys: GroupKeys, held: Mapping[str, int]
) -> tuple[list[str], float]:
    """Return the members that are present, and the longest time that one has held a delivery.

    Only members with pending entries, by `held`, count for the time. It is in seconds.
    """
    now = await _now(commands)
    heartbeats = await commands.call(b"HGETALL", keys.members)
    present: list[str] = []
    longest = 0.0
    for name, text in pairs(heartbeats).items():
        member, (at, since, *_) = name.decode(), text.decode().split(" ")
        if now - int(at) / 1000 < ABSENT_SECONDS:
            present.append(member)
        if since and held.get(member):
            longest = max(longest, now - int(since) / 1000)
    return sorted(present), longest


async def _poison(
    commands: Commands, topic: RedisTopic, keys: GroupKeys
) -> tuple[tuple[PoisonInfo, ...], float, str]:
    """Return the poison messages, the longest time without a renewed lease, and the oldest entry.

    The time is in seconds. The entry is the oldest that is pending or a copy: an id with its time,
    empty without one.
    """
    prefixes = [topic.keys.prefix(number) for number in range(topic.partitions)]
    found, idle, oldest = await commands.eval(
        POISON,
        [keys.delayed, keys.payloads, keys.retry, *topic.keys.streams],
        [keys.group, _POISON_ENTRIES, b"", *prefixes],
    )
    infos = [
        PoisonInfo(position=position.decode(), attempts=number, member=member.decode() or None)
        for position, number, member in found
    ]
    worst = tuple(sorted(infos, key=lambda info: -info.attempts)[:MOST_POISON])
    return worst, idle / 1000, "" if oldest == b"0" else oldest.decode()


async def _now(commands: Commands) -> float:
    seconds, micros = await commands.call(b"TIME")
    return int(seconds) + int(micros) / 1e6


def _sum(*numbers: int | None) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


async def _remove(
    commands: Commands, topic: RedisTopic, keys: GroupKeys, starts: Sequence[bytes]
) -> bool:
    """Remove the group, and create it again at `starts` if there are any.

    Return whether the caller must do the latter, because the group is ordered.
    """
    reply: int = await commands.eval(
        REMOVE_GROUP,
        [
            *(keys.members, topic.keys.cells, keys.retry, keys.delayed, keys.payloads),
            *topic.keys.streams,
        ],
        [keys.group, b"%d" % (ABSENT_SECONDS * 1000), *starts],
    )
    if reply == 0:
        raise _no_group(topic, keys)
    if reply == -1:
        raise StateError(f"group {keys.group.decode()!r} has live members: stop them first")
    await commands.call(b"DEL", keys.starts)
    return reply == -2


def _no_group(topic: RedisTopic, keys: GroupKeys) -> NotFound:
    return NotFound(f"topic {topic.spec.name!r} has no group {keys.group.decode()!r}")


async def _keys_of_groups(commands: Commands, topic: RedisTopic) -> list[GroupKeys]:
    names = await list_groups(commands, topic)
    return [group_keys(topic.spec.name, topic.spec.native, name) for name in names]


async def _scan(commands: Commands, pattern: bytes, kind: bytes) -> set[str]:
    cursor, found = b"0", set[str]()
    while True:
        cursor, keys = await commands.call(
            *(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_KEYS, b"TYPE", kind)
        )
        found.update(key.decode(errors="backslashreplace") for key in keys)
        if cursor == b"0":
            return found
