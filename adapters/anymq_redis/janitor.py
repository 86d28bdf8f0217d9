"""Keeping the server tidy: retention, consumers that are long gone, who is there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from anymq.driver import SubscribeSpec

from .options import RedisOptions
from .scripts import ATTEND, SWEEP, TRIM
from .scripts.keys import GroupKeys
from .scripts.maintenance import Chore
from .topology import RedisTopic, retention_arguments

_INTERVAL = 60.0
# A bound in bytes is looked at more often: how fast a topic grows is not known.
_BYTES_INTERVAL = 2.0
_SHORTEST = 0.1
_LIMIT = 10_000
# How long a consumer without pending entries may be silent before it is forgotten, in seconds.
_SILENT = 3600.0
_ATTENDANCE = 2.0
ABSENT = 6.0
"""A member that has said nothing for so many seconds is not there any more."""


def trimming(topic: RedisTopic, options: RedisOptions) -> Chore:
    """Return the chore that trims `topic` to its retention, or to the one in the options."""
    age, size = retention_arguments(options.retention, None)
    keys = topic.keys
    return Chore(
        script=TRIM,
        keys=[keys.about, keys.cells, *keys.streams],
        args=[age, size, b"%d" % _LIMIT],
        interval=_INTERVAL,
        next=_next_trim,
    )


def sweeping(topic: RedisTopic, group: GroupKeys) -> Chore:
    """Return the chore that forgets consumers of `group` that are long gone."""
    return Chore(
        script=SWEEP,
        keys=[group.members, group.retry, *topic.keys.streams],
        args=[group.group, b"%d" % (_SILENT * 1000)],
        interval=_INTERVAL,
        due=time.monotonic() + random.uniform(0, _INTERVAL),
    )


def attending(
    group: GroupKeys, spec: SubscribeSpec, held_for: Callable[[], float | None] = lambda: None
) -> Chore:
    """Return the chore that says that a member is there, how long it has held things, its lease."""

    def args() -> list[bytes]:
        seconds = held_for()
        held = b"" if seconds is None else b"%d" % (seconds * 1000)
        lease = b"%d" % max(1, round(spec.ack_deadline * 1000))
        return [spec.member.encode(), b"%d" % (_SILENT * 1000), held, lease]

    return Chore(script=ATTEND, keys=[group.members], args=args, interval=_ATTENDANCE)


def _next_trim(reply: tuple[int, int, int]) -> float:
    """Return the seconds until it is worth trimming again."""
    deleted, age, size = reply
    if deleted * 2 > _LIMIT:
        return 0.0
    wait = _INTERVAL if age < 0 else max(age / 2000, _SHORTEST)
    return min(wait, _BYTES_INTERVAL) if size >= 0 else wait
