"""Ids and times of published messages: `new_id`, `stamp`, `stamps`."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from itertools import count, islice

_MICROSECONDS = tuple(f"{number:03d}Z" for number in range(1000))


class _Stamps:
    """A generator of UUIDv7 by method 1 of RFC 9562 §6.2, and of times in RFC 3339 format.

    It draws a random value once a millisecond, and counts up from there. A forked process draws a
    new one.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        # The millisecond, the fixed part of its ids, the counter, and the time to the millisecond.
        # They are one object, so that a thread never combines parts of two milliseconds.
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
        random = int.from_bytes(os.urandom(9))
        digits = f"{now:012x}"
        before = (
            f"{digits[:8]}-{digits[8:]}-7{random >> 60:03x}-{0x8000 | (random >> 46) & 0x3FFF:04x}-"
        )
        # The counter starts in the lower half of its range, so it cannot overflow in 1 ms.
        counter = count(random & 0x7FFF_FFFF_FFFF)
        second, milliseconds = divmod(now, 1000)
        at = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}"
        self._state = (now, before, counter, at)
        return before, counter, at


_stamps = _Stamps()
new_id = _stamps.id
"""Return a fresh UUIDv7 (RFC 9562 §5.7): unique, and sorted by time of creation."""
stamp = _stamps.one
"""Return a fresh id, and the UTC time as text, to the microsecond."""
stamps = _stamps.many
"""Return the given number of fresh ids, and the UTC time as text."""
