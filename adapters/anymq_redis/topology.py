"""Streams and groups on the server."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import ResponseError

from anymq.driver import SubscribeSpec, TopicSpec
from anymq.errors import ConfigurationError, NotFound

from .connection import Commands, pack
from .errors import code_of
from .keys import GroupKeys
from .member import RETRY, TOPIC

log = logging.getLogger("anymq.redis")

_warned: set[str] = set()


async def check_topic(commands: Commands, topic: TopicSpec) -> None:
    """Raise if the topic's key holds something else than a stream.

    A stream comes into being with its first entry or group; there is nothing to declare.
    """
    kind = (await commands.call(b"TYPE", topic.native.encode())).decode()
    if kind not in ("stream", "none"):
        raise ConfigurationError(f"the Redis key {topic.native!r} holds a {kind}, not a stream")


async def create_groups(
    commands: Commands, spec: SubscribeSpec, keys: GroupKeys, *, start: bytes
) -> set[int]:
    """Make the group exist on both of its streams; return on which it had to be created.

    The retry stream's comes first: whoever finds the topic's may rely on both.
    """
    if not spec.topic.create and not await commands.call(b"EXISTS", keys.stream):
        raise NotFound(f"topic {spec.topic.name!r} has no stream, and it is not to be created")
    create = pack(b"XGROUP", b"CREATE", keys.retry, keys.group, b"0", b"MKSTREAM")
    replies = await commands.run(create)
    if spec.create:
        create = pack(b"XGROUP", b"CREATE", keys.stream, keys.group, start, b"MKSTREAM")
        replies += await commands.run(create)
    else:
        replies += await commands.run(pack(b"XPENDING", keys.stream, keys.group))
    created: set[int] = set()
    for which, reply in zip((RETRY, TOPIC), replies, strict=True):
        if not isinstance(reply, ResponseError):
            if spec.create or which == RETRY:
                created.add(which)
        elif code_of(reply) == "NOGROUP":
            raise NotFound(
                f"group {keys.group.decode()!r} does not exist on {spec.topic.native!r}, "
                "and is not to be created"
            ) from reply
        elif code_of(reply) != "BUSYGROUP":
            raise reply
    return created


async def last_id(commands: Commands, stream: bytes) -> bytes:
    """Return the id of the last entry that `stream` was given, also if that has been deleted."""
    try:
        reply = await commands.call(b"XINFO", b"STREAM", stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return b"0-0"
        raise
    names = iter(reply)
    info: dict[bytes, Any] = dict(zip(names, names, strict=True))
    found: bytes = info[b"last-generated-id"]
    return found


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
