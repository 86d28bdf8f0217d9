"""Moving what was delayed to where it is read, when it is due."""

from __future__ import annotations

from collections.abc import Sequence

from .scripts import MOVE
from .scripts.keys import GroupKeys, TopicKeys
from .scripts.maintenance import Chore

# The longest between two looks, in seconds: how late a short delay ends if its publisher has died.
_INTERVAL = 1.0
_LIMIT = 100


def topic_mover(keys: TopicKeys) -> Chore:
    """Return the chore that brings delayed records into the topic. An XADD wakes all readers."""
    return _mover([keys.delayed, keys.payloads, *keys.streams])


def group_mover(keys: GroupKeys) -> Chore:
    """Return the chore that brings delayed copies into the group's retry stream."""
    return _mover([keys.delayed, keys.payloads, keys.retry])


def _mover(keys: Sequence[bytes]) -> Chore:
    return Chore(script=MOVE, keys=keys, args=[b"%d" % _LIMIT], interval=_INTERVAL, next=_next)


def _next(reply: tuple[int, int]) -> float:
    """Return the seconds until it is worth looking again."""
    moved, next_due = reply
    if moved == _LIMIT:
        return 0.0
    return _INTERVAL * 2 if next_due < 0 else next_due / 1000
