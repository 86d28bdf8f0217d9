"""Topics and groups on the server."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

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
        self._turn = itertools.cycle(range(partitions))

    def partition(self, record: Record) -> int:
        """Return where `record` goes; those without a key are spread evenly."""
        if self.partitions == 1:
            return 0
        return next(self._turn) if record.key is None else partition_of(record.key, self.partitions)


async def look(commands: Commands, spec: TopicSpec, *, create: bool) -> RedisTopic:
    """Return the topic as it is; with `create` it is made and configured as `spec` says.

    Raises `ConfigurationError` if it has another number of partitions, or is no stream at all. A
    stream that was never declared has one partition.
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
            "that can only be changed by deleting it"
        )
    return RedisTopic(spec, count, exists=bool(exists))


def retention_arguments(seconds: float | None, size: int | None) -> tuple[bytes, bytes]:
    """Return an age and a size as scripts take them."""
    age = b"" if seconds is None else b"%d" % max(1, math.ceil(seconds * 1000))
    return age, b"" if size is None else b"%d" % size


async def create_groups(
    commands: Commands,
    spec: SubscribeSpec,
    topic: RedisTopic,
    keys: GroupKeys,
    starts: Sequence[bytes],
) -> set[int]:
    """Make the group exist on the topic's streams and on its own; return where it was missing.

    `starts` are the ids behind which it begins. The retry stream is `RETRY` in the answer.
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
    """Make the group exist, as an ordered one; where it begins, its cells say."""
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
    if isinstance(reply, list):
        return reply
    if reply in (b"unordered", b"ordered"):
        raise ConfigurationError(
            f"group {spec.group!r} on {spec.topic.name!r} is {reply.decode()}, "
            "and stays so until it is deleted"
        )
    if reply == b"no group":
        raise NotFound(
            f"group {spec.native_group!r} does not exist on {spec.topic.native!r}, "
            "and is not to be created"
        )
    if reply == b"no topic":
        raise NotFound(f"topic {spec.topic.name!r} has no stream, and it is not to be created")
    raise NotFound(f"topic {spec.topic.name!r} has been made anew, with other partitions")


async def check_server(commands: Commands, *, where: str) -> None:
    """Prove that the server answers and can do what is needed; warn once of what it loses."""
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
    # CONFIG is often forbidden; then nothing is known.
    appendonly, policy = (
        reply[1] if isinstance(reply, list) and len(reply) == 2 else b"" for reply in settings
    )
    if appendonly == b"no":
        _warn(where, "has no append-only file (appendonly no): messages are lost when it crashes")
    if policy.startswith(b"allkeys"):
        _warn(where, f"evicts keys when memory is short ({policy.decode()}): whole topics are lost")


def _warn(where: str, fact: str) -> None:
    text = f"{where} {fact}"
    if text not in _warned:
        _warned.add(text)
        log.warning("%s", text)
