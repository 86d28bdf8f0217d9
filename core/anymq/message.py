"""`Message`: what travels, as applications see it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An immutable message.

    `id` is the logical id: it stays the same over retries, dead-lettering and redrive.
    `time` is when the message was first published (None on a foreign message without one).
    `correlation_id` names the flow a message belongs to, `causation_id` the message that caused it.
    """

    id: str
    topic: str
    body: bytes = field(repr=False)
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    content_type: str | None = None
    type: str | None = None
    source: str | None = None
    time: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


class Receipt(NamedTuple):
    """The broker has the message durably.

    `position` is where the broker put it, in the broker's own words (`"3:1042"` for a Kafka
    partition and offset, an entry id for Redis, a sequence for NATS and SQLite), None where it
    does not say.
    """

    id: str
    topic: str
    position: str | None = None


class _Ids:
    """Makes UUIDv7 by method 1 of RFC 9562 §6.2: what is random is drawn once a millisecond, and
    counted up from there. A forked process begins anew."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        # The millisecond, the text before what is counted, and the counter: one object, so that
        # threads that come upon a new millisecond at once draw each for itself.
        self._state = (0, "", count())

    def take(self) -> str:
        now = time.time_ns() // 1_000_000
        last, before, counter = self._state
        if now != last:
            before, counter = self._begin(now)
        return f"{before}{next(counter):012x}"

    def take_many(self, number: int) -> list[str]:
        now = time.time_ns() // 1_000_000
        last, before, counter = self._state
        if now != last:
            before, counter = self._begin(now)
        return [f"{before}{one:012x}" for one in islice(counter, number)]

    def _begin(self, now: int) -> tuple[str, count[int]]:
        some = int.from_bytes(os.urandom(9))
        at = f"{now:012x}"
        before = f"{at[:8]}-{at[8:]}-7{some >> 60:03x}-{0x8000 | (some >> 46) & 0x3FFF:04x}-"
        # Less than half of the range at first: it lasts for this millisecond.
        counter = count(some & 0x7FFF_FFFF_FFFF)
        self._state = (now, before, counter)
        return before, counter


_ids = _Ids()
new_id = _ids.take
"""Return a fresh UUIDv7 (RFC 9562 §5.7): unique, and sorted by time of creation."""
new_ids = _ids.take_many
"""Return so many of them."""


def utc(timestamp: float) -> datetime:
    """Return `timestamp`, seconds since the epoch, as an aware datetime."""
    return datetime.fromtimestamp(timestamp, UTC)
