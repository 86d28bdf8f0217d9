"""Counting what a group has before it, and who is there to take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from .client.codec import pack
from .connection import Commands
from .janitor import ABSENT
from .positions import time_of
from .scripts import COUNT
from .scripts.keys import GroupKeys

# How many entries one call counts, for it holds up the server meanwhile; and how many calls.
_PAGE, _PAGES = 10_000, 100


@dataclass(slots=True)
class Undelivered:
    """Of one partition: how many entries, None if there are too many, and the first one's id."""

    count: int | None
    first: str


async def count(commands: Commands, stream: bytes, behind: bytes, passing: int = 0) -> Undelivered:
    """Count what follows the id `behind`; `first` is what comes after so many of them."""
    total, first = 0, ""
    for _ in range(_PAGES):
        args = (behind, b"%d" % _PAGE, b"%d" % max(0, passing - total))
        found, behind, reached = await commands.eval(COUNT, [stream], args)
        total += found
        first = first or reached.decode()
        if found < _PAGE:
            return Undelivered(total, first)
    return Undelivered(None, first)


async def count_for(commands: Commands, stream: bytes, group: Mapping[bytes, Any]) -> Undelivered:
    """Count what the group has not been given, with the server's help where it knows."""
    behind: bytes = group.get(b"last-delivered-id", b"0-0")
    lag = group.get(b"lag")
    if lag is None:
        return await count(commands, stream, behind)
    entries = await commands.call(b"XRANGE", stream, b"(" + behind, b"+", b"COUNT", b"1")
    return Undelivered(lag, entries[0][0].decode() if entries else "")


async def age_of(commands: Commands, ids: Sequence[str]) -> float:
    """Return the age of the oldest of `ids`, in seconds by the server's clock; 0 for none."""
    times = [at for id in ids if (at := time_of(id)) is not None]
    return max(0.0, await _now(commands) - min(times)) if times else 0.0


async def attendance(
    commands: Commands, keys: GroupKeys, holding: Mapping[str, int]
) -> tuple[list[str], float]:
    """Return who is there, and for how long what has been held for longest has been held.

    For that only members count that are `holding` something.
    """
    now = await _now(commands)
    seen = await commands.call(b"HGETALL", keys.members)
    present: list[str] = []
    longest = 0.0
    for name, text in pairs(seen).items():
        member, (at, since, *_) = name.decode(), text.decode().split(" ")
        if now - int(at) / 1000 < ABSENT:
            present.append(member)
        if since and holding.get(member):
            longest = max(longest, now - int(since) / 1000)
    return sorted(present), longest


async def inform(commands: Commands, streams: Sequence[bytes]) -> list[dict[bytes, Any]]:
    """Return what XINFO says of each stream, nothing where there is none yet."""
    replies = await commands.run(*(pack(b"XINFO", b"STREAM", stream) for stream in streams))
    return [pairs(reply) for reply in answers(replies, absent=[])]


def answers(replies: Sequence[Any], absent: Any = None) -> list[Any]:
    """Return the replies, `absent` where there is no such key or group; raises other errors."""
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


async def _now(commands: Commands) -> float:
    seconds, micros = await commands.call(b"TIME")
    return int(seconds) + int(micros) / 1e6
