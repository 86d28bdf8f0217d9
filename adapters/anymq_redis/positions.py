"""Places in a topic: positions, and where reading begins.

The position of an entry is its id; in a topic of several partitions the partition comes first, as
in `3:1700000000000-0`. Ids begin with the server's time, so a place in one partition, and a time,
mean something in all of them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from anymq.driver import ConfigurationError, Start

FIRST, END = b"0-0", b"$"
_POSITION = re.compile(r"(?:(\d{1,4}):)?(\d{1,20})-(\d{1,20})")
_LARGEST = 2**64 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def beginning(start: Start, partitions: int) -> list[bytes]:
    """Return, for each partition, the id behind which reading begins; `$` is its end.

    Raises `ConfigurationError` if `start` is nothing of what it may be.
    """
    if isinstance(start, datetime):
        return [_before(_milliseconds(start), 0)] * partitions
    if start == "earliest":
        return [FIRST] * partitions
    if start == "latest":
        return [END] * partitions
    partition, ms, seq = _parse(start, partitions)
    ids = [_before(ms, 0)] * partitions
    ids[partition] = _before(ms, seq)
    return ids


def id_at(place: str) -> bytes:
    """Return the id in a place of one partition."""
    return place.rpartition(":")[2].encode()


def time_of(position: str) -> float | None:
    """Return when the entry at `position` was stored, in seconds since the epoch."""
    milliseconds = position.rpartition(":")[2].partition("-")[0]
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else None


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


def _milliseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise ConfigurationError(f"a time needs a time zone: {time!r}")
    return max(0, (time - _EPOCH) // timedelta(milliseconds=1))


def _before(ms: int, seq: int) -> bytes:
    if seq:
        return b"%d-%d" % (ms, seq - 1)
    return b"%d-%d" % (ms - 1, _LARGEST) if ms else FIRST
