"""`Message`: what travels, as applications see it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class Receipt:
    """The broker has the message durably.

    `position` is where the broker put it, in the broker's own words (`"3:1042"` for a Kafka
    partition and offset, an entry id for Redis, a sequence for NATS and SQLite), None where it
    does not say.
    """

    id: str
    topic: str
    position: str | None = None


class _Randomness:
    """Random hexadecimal digits, asked of the system for many ids at a time: each asking costs as
    much as all the rest of an id. A forked process begins anew."""

    __slots__ = ("_digits", "_left")

    DIGITS = 19
    IDS = 512

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._digits, self._left = "", 0

    def take(self) -> str:
        if not self._left:
            self._digits, self._left = os.urandom(10 * self.IDS).hex(), self.IDS
        self._left -= 1
        at = self._left * 20
        return self._digits[at : at + self.DIGITS]


_random = _Randomness()


def new_id() -> str:
    """Return a fresh UUIDv7 (RFC 9562 §5.7): unique, and sorted by time of creation."""
    at = f"{time.time_ns() // 1_000_000:012x}"
    some = _random.take()
    variant = "89ab"[int(some[0], 16) & 3]
    return f"{at[:8]}-{at[8:]}-7{some[1:4]}-{variant}{some[4:7]}-{some[7:]}"


def utc(timestamp: float) -> datetime:
    """Return `timestamp`, seconds since the epoch, as an aware datetime."""
    return datetime.fromtimestamp(timestamp, UTC)
