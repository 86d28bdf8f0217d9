"""Delays: the tasks that move delayed records to the streams where they are read, when due."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .scripts import MOVE
from .scripts.keys import GroupKeys, TopicKeys
from .scripts.maintenance import MaintenanceTask

_INTERVAL_SECONDS = 1.0
"""The longest time between two runs: how late a short delay ends if its publisher has died."""
_MAX_RECORDS = 100


def topic_mover(keys: TopicKeys) -> MaintenanceTask:
    """Return the task that adds due records to the topic; XADD wakes all blocked readers."""
    return _mover([keys.delayed, keys.payloads, *keys.streams])


def group_mover(keys: GroupKeys) -> MaintenanceTask:
    """Return the task that adds due copies to the group's retry stream."""
    return _mover([keys.delayed, keys.payloads, keys.retry])


def delay_argument(seconds: float) -> int:
    """Return a delay for scripts in whole milliseconds, rounded up; 0 if it is not positive."""
    return max(0, math.ceil(seconds * 1000))


def _mover(keys: Sequence[bytes]) -> MaintenanceTask:
    args = [b"%d" % _MAX_RECORDS]
    return MaintenanceTask(
        script=MOVE, keys=keys, args=args, interval=_INTERVAL_SECONDS, next=_next_run
    )


def _next_run(reply: tuple[int, int]) -> float:
    """Return the seconds until another run is useful."""
    moved, next_due = reply
    if moved == _MAX_RECORDS:
        return 0.0
    return _INTERVAL_SECONDS * 2 if next_due < 0 else next_due / 1000
