"""Durable delays: the retry topics of a group, and what is held until it is due.

Kafka cannot deliver a record later, so a nacked record is copied into a topic of its group, with
the time at which it is due in a header. The group's consumer reads these topics ahead and holds
their records in memory until then. There is one topic for each range of delays (`BINS`), so that
short ones never queue behind long ones beyond the window that is held. A group's retries are its
own: nothing that another group does holds them up.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from anymq.driver import Nack, Record

from .group.pending import now_ms
from .messages import DUE
from .topology import Plan, settings

if TYPE_CHECKING:
    from .options import KafkaOptions

BINS = (("5s", 5.0), ("1m", 60.0), ("15m", 900.0), ("long", float("inf")))
"""The topics' last segments, and the longest delay that each takes."""

_LEGAL = re.compile(r"[A-Za-z0-9._-]+")
_LONGEST = 249
_SEGMENT_BYTES = 64 * 1024 * 1024


def retry_topics(native_group: str) -> tuple[str, ...]:
    """Return the names of the retry topics of a group, in the order of `BINS`.

    Kafka refuses two topics whose names differ only in `.` and `_`; a group with an underscore
    therefore carries a hash of its name. One whose name cannot be a topic's is named by hash alone.
    """
    digest = hashlib.sha256(native_group.encode()).hexdigest()
    if not _LEGAL.fullmatch(native_group) or len(native_group) > _LONGEST - 30:
        stem = f"_anymq.{digest[:40]}._retry"
    elif "_" in native_group:
        stem = f"{native_group}._retry.{digest[:8]}"
    else:
        stem = f"{native_group}._retry"
    return tuple(f"{stem}.{name}" for name, _ in BINS)


def plans(topics: tuple[str, ...], options: KafkaOptions) -> list[Plan]:
    """Return how the retry topics are made. Nothing expires in them: the group deletes what it
    has done."""
    config = settings(body=options.max_body, retention=-1) | {"segment.bytes": str(_SEGMENT_BYTES)}
    return [Plan(name, options.retry_partitions, options.replication, config) for name in topics]


def bin_of(topics: tuple[str, ...], delay: float) -> str:
    """Return the retry topic for `delay` seconds."""
    return next(topic for topic, (_, longest) in zip(topics, BINS, strict=True) if delay <= longest)


def copy(nack: Nack) -> Record:
    """Return the copy to put into the retry topic, with the time at which it is due."""
    # Rounded up: never early.
    due = int(now_ms() + nack.delay * 1000) + 1
    return nack.copy.with_headers({DUE: str(due)})
