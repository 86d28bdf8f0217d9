"""Topics and groups on the server: found, created and checked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from anymq.driver import (
    ConfigurationError,
    NotFound,
    Record,
    SubscribeSpec,
    TopicSpec,
    logger,
    partition_of,
)

from .client.codec import pack
from .connection import Commands
from .scripts import DECLARE, JOIN, JOIN_ORDERED
from .scripts.keys import GroupKeys, TopicKeys, topic_keys

log = logger("anymq.redis")

_warned: set[str] = set()


class RedisTopic:
    """A topic as it is on the server."""

    def __init__(self, spec: TopicSpec, partitions: int = 1, *, exists: bool = True) -> None:
        self.spec = spec
        self.partitions = partitions
        self.exists = exists
        self.keys: TopicKeys = topic_keys(spec.native, partitions)
        self._round_robin = itertools.cycle(range(partitions))

    def partition(self, record: Record) -> int:
        """Return the partition for `record`; records without a key are spread evenly."""
        if self.partitions == 1:
            return 0
        if record.key is None:
            return next(self._round_robin)
        return partition_of(record.key, self.partitions)


async def find_topic(commands: Commands, spec: TopicSpec, *, create: bool) -> RedisTopic:
    """Return the topic as it is; with `create`, create and configure it first, as `spec` says.

    Raises `ConfigurationError` if it has another number of partitions, or if its key holds no
    stream. A stream that was never declared has one partition.
    """
    retention, size = retention_arguments(spec.retention, spec.retention_bytes)
    wanted = b"%d" % spec.partitions if spec.partitions else b""
    reply: tuple[int, bytes, int] = await commands.eval(
        DECLARE,
        [spec.native.encode(), topic_keys(spec.native, 1).about],
        [wanted, b"1" if create else b"0", retention, size],
    )
    count, kind, exists = reply
    if kind not in (b"stream", b"none"):
        raise ConfigurationError(
            f"the Redis key {spec.native!r} holds a {kind.decode()}, not a stream"
        )
    if exists and spec.partitions not in (None, count):
        raise ConfigurationError(
            f"topic {spec.name!r} has {count} partitions, not {spec.partitions}; "
            "to change the number, delete the topic"
        )
    return RedisTopic(spec, count, exists=bool(exists))


async def find_existing(commands: Commands, spec: TopicSpec) -> RedisTopic:
    """Return the topic; raises `NotFound` if it does not exist."""
    topic = await find_topic(commands, spec, create=False)
    if not topic.exists:
        raise NotFound(f"topic {spec.name!r} does not exist")
    return topic


def retention_arguments(seconds: float | None, size: int | None) -> tuple[bytes, bytes]:
    """Return an age and a size as arguments of scripts."""
    age = b"" if seconds is None else b"%d" % max(1, math.ceil(seconds * 1000))
    return age, b"" if size is None else b"%d" % size


async def create_groups(
    commands: Commands,
    spec: SubscribeSpec,
    topic: RedisTopic,
    keys: GroupKeys,
    starts: Sequence[bytes],
) -> set[int]:
    """Create the group on the topic's streams and its retry stream, wherever it is missing.

    `starts` are the ids after which it reads each partition. Return the indexes of the streams on
    which it was missing, `RETRY` for the retry stream.
    """
    streams = topic.keys.streams
    created: list[int] | bytes = await commands.eval(
        JOIN,
        [topic.keys.about, topic.keys.cells, keys.retry, *streams],
        [keys.group, *_conditions(spec, topic), *starts],
    )
    return {number - 1 for number in _checked(created, spec)}


async def create_ordered(
    commands: Commands, spec: SubscribeSpec, topic: RedisTopic, keys: GroupKeys
) -> None:
    """Create the group as an ordered one, unless it exists; its cells say where it reads from."""
    reply: list[int] | bytes = await commands.eval(
        JOIN_ORDERED,
        [topic.keys.about, topic.keys.cells, topic.keys.streams[0]],
        [keys.group, *_conditions(spec, topic)],
    )
    _checked(reply, spec)


def _conditions(spec: SubscribeSpec, topic: RedisTopic) -> list[bytes]:
    flags = (b"1" if flag else b"0" for flag in (spec.topic.create, spec.create))
    return [b"%d" % topic.partitions, *flags]


def _checked(reply: list[int] | bytes, spec: SubscribeSpec) -> list[int]:
    """Return the list that a script replied; raises if it replied with an obstacle instead."""
    if isinstance(reply, list):
        return reply
    topic = spec.topic
    if reply in (b"unordered", b"ordered"):
        raise ConfigurationError(
            f"group {spec.group!r} on {topic.name!r} is {reply.decode()}; "
            "to change that, delete the group"
        )
    if reply == b"no group":
        raise NotFound(
            f"group {spec.native_group!r} does not exist on {topic.native!r}; "
            "its operator must create it"
        )
    if reply == b"no topic":
        raise NotFound(f"topic {topic.name!r} does not exist; its operator must create it")
    raise NotFound(f"topic {topic.name!r} was recreated with a different number of partitions")


async def stream_infos(commands: Commands, streams: Sequence[bytes]) -> list[dict[bytes, Any]]:
    """Return the reply of XINFO STREAM for each stream, empty for one that does not exist."""
    replies = await commands.run(*(pack(b"XINFO", b"STREAM", stream) for stream in streams))
    return [pairs(reply) for reply in answers(replies, absent=[])]


async def last_ids(commands: Commands, streams: Sequence[bytes]) -> list[bytes]:
    """Return the id of the last entry that each stream was given, even if it has been deleted."""
    infos = await stream_infos(commands, streams)
    return [info.get(b"last-generated-id", b"0-0") for info in infos]


def answers(replies: Sequence[Any], absent: Any = None) -> list[Any]:
    """Return the replies; raises errors of the server.

    If `absent` is given, it stands for the error that a key or group does not exist.
    """
    found: list[Any] = []
    for reply in replies:
        if isinstance(reply, ResponseError):
            if absent is None or not ("no such key" in str(reply) or "NOGROUP" in str(reply)):
                raise reply
            reply = absent
        found.append(reply)
    return found


def pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    """Return names and values in turn as a dictionary."""
    names = iter(flat)
    return dict(zip(names, names, strict=True))


async def check_server(commands: Commands, *, where: str) -> None:
    """Check that the server answers and has the needed commands; warn once of risky settings."""
    replies = await commands.run(
        pack(b"PING"),
        pack(b"COMMAND", b"INFO", b"XAUTOCLAIM"),
        *(pack(b"CONFIG", b"GET", name) for name in (b"appendonly", b"maxmemory-policy")),
    )
    ping, known, *settings = replies
    if isinstance(ping, ResponseError):
        raise ping
    if isinstance(known, list) and known == [None]:
        raise ConfigurationError(
            f"{where} does not know XAUTOCLAIM: anymq needs Redis 7.0 or newer"
        )
    # Many users may not run CONFIG; then the settings are unknown.
    appendonly, policy = (
        reply[1] if isinstance(reply, list) and len(reply) == 2 else b"" for reply in settings
    )
    if appendonly == b"no":
        _warn(where, "has no append-only file (appendonly no): a crash of it loses messages")
    if policy.startswith(b"allkeys"):
        _warn(where, f"evicts keys when memory is short ({policy.decode()}): whole topics are lost")


def _warn(where: str, fact: str) -> None:
    text = f"{where} {fact}"
    if text not in _warned:
        _warned.add(text)
        log.warning("%s", text)
