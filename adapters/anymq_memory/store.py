"""The idempotency store in memory."""

from __future__ import annotations

import heapq
import time
from typing import ClassVar, Self

from anymq.store import Claim, State, Store
from anymq.url import URL

DONE = ""
COUNTER = "\x01"
"""Counters are keys that begin with it; no claim does. The holder is the count."""


class MemoryStore(Store):
    """Keys of one process. ``memory://`` is private, ``memory://name`` shared by name."""

    _shared: ClassVar[dict[str, dict[str, tuple[str, float]]]] = {}

    def __init__(self, keys: dict[str, tuple[str, float]] | None = None) -> None:
        self._keys = {} if keys is None else keys
        self._ends: list[tuple[float, str]] = []

    @classmethod
    async def open(cls, url: URL) -> Self:
        name = url.hosts[0][0] if url.hosts else ""
        return cls(cls._shared.setdefault(name, {}) if name else {})

    async def begin(self, key: str, owner: str, lease: float) -> Claim:
        now = time.monotonic()
        self._expire(now)
        holder, until = self._keys.get(key, (owner, 0.0))
        if until > now and holder == DONE:
            return Claim(State.DONE)
        if until > now and holder != owner:
            return Claim(State.IN_PROGRESS, until - now)
        self._set(key, owner, now + lease)
        return Claim(State.NEW)

    async def renew(self, key: str, owner: str, lease: float) -> None:
        if self._holds(key, owner):
            self._set(key, owner, time.monotonic() + lease)

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        if not self._holds(key, owner):
            return False
        self._set(key, DONE, time.monotonic() + keep)
        return True

    async def abandon(self, key: str, owner: str) -> None:
        if self._holds(key, owner):
            del self._keys[key]

    async def mark(self, key: str, keep: float) -> int:
        now = time.monotonic()
        self._expire(now)
        count, until = self._keys.get(COUNTER + key, ("0", 0.0))
        marks = int(count) + 1 if until > now else 1
        self._set(COUNTER + key, str(marks), now + keep)
        return marks

    async def unmark(self, key: str) -> None:
        self._keys.pop(COUNTER + key, None)

    async def aclose(self) -> None:
        """Nothing to release."""

    def _holds(self, key: str, owner: str) -> bool:
        holder, until = self._keys.get(key, (DONE, 0.0))
        return holder == owner and until > time.monotonic()

    def _set(self, key: str, holder: str, until: float) -> None:
        self._keys[key] = (holder, until)
        heapq.heappush(self._ends, (until, key))

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            if key in self._keys and self._keys[key][1] <= now:
                del self._keys[key]
