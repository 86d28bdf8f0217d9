"""Positions: where reading starts, and browsing a topic from there.

The position of an entry is its id. In a topic of several partitions the partition comes first, as
in `3:1700000000000-0`. Ids begin with the server's time, so a position in one partition, and a
datetime, have a meaning in all partitions.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from anymq.driver import ConfigurationError, Received, Start, TopicSpec

from .connection import Commands, ReadSize
from .messages import StreamRef, received
from .topology import find_existing, last_ids

BEFORE_ALL, AFTER_ALL = b"0-0", b"$"
"""The ids that precede and follow every entry, as commands take them."""

_POSITION = re.compile(r"(?:(\d{1,4}):)?(\d{1,20})-(\d{1,20})")
_LARGEST = 2**64 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE_ENTRIES = 1000


def start_ids(start: Start, partitions: int) -> list[bytes]:
    """Return for each partition the id after which reading starts.

    A time in the future is the end. Raises `ConfigurationError` for a text that is no position in
    so many partitions.
    """
    if isinstance(start, datetime):
        if start > datetime.now(UTC):
            return [AFTER_ALL] * partitions
        milliseconds = max(0, (start - _EPOCH) // timedelta(milliseconds=1))
        return [_previous(milliseconds, 0)] * partitions
    if start == "earliest":
        return [BEFORE_ALL] * partitions
    if start == "latest":
        return [AFTER_ALL] * partitions
    partition, ms, seq = _parse(start, partitions)
    ids = [_previous(ms, 0)] * partitions
    ids[partition] = _previous(ms, seq)
    return ids


def entry_id(position: str) -> bytes:
    """Return the id of the entry at `position`."""
    return position.rpartition(":")[2].encode()


async def browse(
    commands: Commands, spec: TopicSpec, start: Start
) -> AsyncIterator[Sequence[Received]]:
    """Yield the entries of each partition in turn, up to its end at the time of the call."""
    topic = await find_existing(commands, spec)
    starts = start_ids(start, topic.partitions)
    stops = await last_ids(commands, topic.keys.streams)
    for number, (after, stop) in enumerate(zip(starts, stops, strict=True)):
        if after == AFTER_ALL:
            continue
        key = topic.keys.streams[number]
        stream = StreamRef(key, number, topic.keys.prefix(number))
        size = ReadSize()
        while True:
            limits = size.arguments(_PAGE_ENTRIES, 0)
            entries = await commands.call(b"XRANGE", key, b"(" + after, stop, *limits)
            if not entries:
                break
            yield [received(stream, entry, None, 0) for entry in entries]
            size.learn([(key, entries)])
            after = entries[-1][0]


def _parse(text: str, partitions: int) -> tuple[int, int, int]:
    found = _POSITION.fullmatch(text)
    if found is not None:
        partition, ms, seq = (int(part or 0) for part in found.groups())
        known = (found[1] is not None) == (partitions > 1) and partition < partitions
        if known and max(ms, seq) <= _LARGEST:
            return partition, ms, seq
    form = "1700000000000-0" if partitions == 1 else "3:1700000000000-0"
    raise ConfigurationError(
        f"{text!r} is no position in a topic of {partitions} partitions: these look like {form}"
    )


def _previous(ms: int, seq: int) -> bytes:
    """Return the id just before the given one."""
    if seq:
        return b"%d-%d" % (ms, seq - 1)
    return b"%d-%d" % (ms - 1, _LARGEST) if ms else BEFORE_ALL
