"""Ids and times of what is published: `new_id`, `stamp`, `stamps`."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from itertools import count, islice

_MICROSECONDS = tuple(f"{number:03d}Z" for number in range(1000))


class _Stamps:
    """Makes UUIDv7 by method 1 of RFC 9562 §6.2: what is random is drawn once a millisecond, and
    counted up from there. A forked process begins anew. Times are as RFC 3339 writes them."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        # The millisecond, the id before what is counted, the counter, and the time but for its
        # last digits: one object, so that threads that come upon a new millisecond at once draw
        # each for itself.
        self._state = (0, "", count(), "")

    def one(self) -> tuple[str, str]:
        now, rest = divmod(time.time_ns() // 1000, 1000)
        last, before, counter, at = self._state
        if now != last:
            before, counter, at = self._begin(now)
        return f"{before}{next(counter):012x}", at + _MICROSECONDS[rest]

    def id(self) -> str:
        return self.one()[0]

    def many(self, number: int) -> tuple[list[str], str]:
        now, rest = divmod(time.time_ns() // 1000, 1000)
        last, before, counter, at = self._state
        if now != last:
            before, counter, at = self._begin(now)
        return [f"{before}{one:012x}" for one in islice(counter, number)], at + _MICROSECONDS[rest]

    def _begin(self, now: int) -> tuple[str, count[int], str]:
        some = int.from_bytes(os.urandom(9))
        digits = f"{now:012x}"
        before = (
            f"{digits[:8]}-{digits[8:]}-7{some >> 60:03x}-{0x8000 | (some >> 46) & 0x3FFF:04x}-"
        )
        # Less than half of the range at first: it lasts for this millisecond.
        counter = count(some & 0x7FFF_FFFF_FFFF)
        second, milliseconds = divmod(now, 1000)
        at = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}"
        self._state = (now, before, counter, at)
        return before, counter, at


_stamps = _Stamps()
new_id = _stamps.id
"""Return a fresh UUIDv7 (RFC 9562 §5.7): unique, and sorted by time of creation."""
stamp = _stamps.one
"""Return a fresh id, and the time as text: UTC, to the microsecond."""
stamps = _stamps.many
"""Return so many fresh ids, and the time."""
