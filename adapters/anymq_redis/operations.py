"""What `Driver` offers for looking through topics and groups, and for operating them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from anymq.driver import NotFound, Received, Start, StateError, TopicSpec, ordered

from .client.codec import pack
from .connection import Commands
from .janitor import ABSENT
from .messages import Place, received
from .ordered import RedisLog, ends
from .positions import END, beginning
from .reading import ReadSize
from .scripts import PURGE, REMOVE_GROUP
from .scripts.keys import GroupKeys, group_keys
from .topology import RedisTopic, look

_ABOUT = re.compile(r"\{(.+)\}\._topic")
_AUXILIARY = re.compile(r"\{.+\}(\..+)?\._(retry|p\d+)")
_SCAN = b"1000"
_PAGE = 1000


async def existing(commands: Commands, spec: TopicSpec) -> RedisTopic:
    """Return the topic; raises `NotFound` if there is none."""
    topic = await look(commands, spec, create=False)
    if not topic.exists:
        raise NotFound(f"there is no topic {spec.name!r}")
    return topic


async def topics(commands: Commands) -> list[str]:
    """Return all streams but the auxiliary ones, and what was declared and has no stream yet."""
    found = {key for key in await _scan(commands, b"*", b"stream") if not _AUXILIARY.fullmatch(key)}
    declared = await _scan(commands, b"*_topic", b"hash")
    found |= {match[1] for key in declared if (match := _ABOUT.fullmatch(key))}
    return sorted(found)


async def groups(commands: Commands, topic: RedisTopic) -> list[str]:
    """Return the names of the topic's groups, of both kinds."""
    command = pack(b"XINFO", b"GROUPS", topic.keys.streams[0])
    plain, cells = await commands.run(command, pack(b"HKEYS", topic.keys.cells))
    if isinstance(cells, BaseException):
        raise cells
    names = {name.removeprefix(b"g:") for name in cells if name.startswith(b"g:")}
    if not isinstance(plain, BaseException):
        names |= {info[1] for info in plain}
    elif "no such key" not in str(plain):
        raise plain
    return sorted(name.decode() for name in names)


async def seek(commands: Commands, topic: RedisTopic, keys: GroupKeys, to: Start) -> None:
    """Let the group begin anew at `to`; what was in flight or waiting is forgotten."""
    if await _remove(commands, topic, keys, beginning(to, topic.partitions)):
        await ordered.seek(RedisLog(commands, topic, keys), to)


async def delete_group(commands: Commands, topic: RedisTopic, keys: GroupKeys) -> None:
    """Delete the group and what waits for it."""
    try:
        await _remove(commands, topic, keys, [])
    except NotFound:
        return


async def delete_topic(commands: Commands, topic: RedisTopic) -> None:
    """Delete the topic's streams, what waits, and all of its groups."""
    keys = topic.keys
    every = [*keys.streams, keys.about, keys.delayed, keys.payloads, keys.cells]
    for group in await _keys_of_groups(commands, topic):
        every += (group.retry, group.delayed, group.payloads, group.members, group.starts)
    await commands.call(b"DEL", *every)


async def purge(commands: Commands, topic: RedisTopic) -> None:
    """Delete all messages; the groups stay."""
    every = [topic.keys.delayed, topic.keys.payloads, *topic.keys.streams]
    for group in await _keys_of_groups(commands, topic):
        every += (group.retry, group.delayed, group.payloads)
    await commands.eval(PURGE, every, [b"%d" % topic.partitions])


async def browse(
    commands: Commands, spec: TopicSpec, start: Start
) -> AsyncIterator[Sequence[Received]]:
    """Yield what the topic holds, one partition after the other, up to its end as of now."""
    topic = await existing(commands, spec)
    starts = beginning(start, topic.partitions)
    stops = await ends(commands, topic.keys.streams)
    for number, (behind, stop) in enumerate(zip(starts, stops, strict=True)):
        if behind == END:
            continue
        stream = topic.keys.streams[number]
        place = Place(stream, number, topic.keys.prefix(number))
        size = ReadSize()
        while True:
            limits = size.arguments(_PAGE, 0)
            entries = await commands.call(b"XRANGE", stream, b"(" + behind, stop, *limits)
            if not entries:
                break
            yield [received(place, entry, None, 0) for entry in entries]
            size.learn([(stream, entries)])
            behind = entries[-1][0]


async def _remove(
    commands: Commands, topic: RedisTopic, keys: GroupKeys, starts: Sequence[bytes]
) -> bool:
    """Remove the group and make it anew at `starts`; return whether that is left to do."""
    done: int = await commands.eval(
        REMOVE_GROUP,
        [
            *(keys.members, topic.keys.cells, keys.retry, keys.delayed, keys.payloads),
            *topic.keys.streams,
        ],
        [keys.group, b"%d" % (ABSENT * 1000), *starts],
    )
    if done == 0:
        raise NotFound(f"topic {topic.spec.name!r} has no group {keys.group.decode()!r}")
    if done == -1:
        raise StateError(f"group {keys.group.decode()!r} has live members: stop them first")
    await commands.call(b"DEL", keys.starts)
    return done == -2


async def _keys_of_groups(commands: Commands, topic: RedisTopic) -> list[GroupKeys]:
    names = await groups(commands, topic)
    return [group_keys(topic.spec.name, topic.spec.native, name) for name in names]


async def _scan(commands: Commands, pattern: bytes, kind: bytes) -> set[str]:
    cursor, found = b"0", set[str]()
    while True:
        cursor, keys = await commands.call(
            *(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN, b"TYPE", kind)
        )
        found.update(key.decode(errors="backslashreplace") for key in keys)
        if cursor == b"0":
            return found
