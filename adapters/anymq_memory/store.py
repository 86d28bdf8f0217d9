"""The idempotency store in memory."""

from __future__ import annotations

import time
from typing import ClassVar, Self

from anymq.store import Claim, State, Store
from anymq.url import URL

_NEW, _DONE = Claim(State.NEW), Claim(State.DONE)
COUNTER = "\x01"
"""Counters are keys that begin with it; no claim does. The holder is the count."""


class Keys:
    """What is known of each key: until when it is done; or who holds it, and until when.

    What is over is forgotten second by second: a list of the keys that may end in it, each noted
    whenever its end is set.
    """

    def __init__(self) -> None:
        self.done: dict[str, float] = {}
        self.held: dict[str, tuple[str, float]] = {}
        self._ending: dict[int, list[str]] = {}
        self.second = int(time.monotonic())

    def end(self, key: str, until: float) -> None:
        """Look at `key` again when its time is over."""
        second = int(until) + 1
        ending = self._ending.get(second)
        if ending is None:
            self._ending[second] = [key]
        else:
            ending.append(key)

    def forget(self, now: float) -> None:
        """Drop what is over; to be called when `second` has passed."""
        self.second = int(now) + 1
        for second in [second for second in self._ending if second <= now]:
            for key in self._ending.pop(second):
                if self.done.get(key, now) < now:
                    del self.done[key]
                if self.held.get(key, ("", now))[1] < now:
                    del self.held[key]


class MemoryStore(Store):
    """Keys of one process. ``memory://`` is private, ``memory://name`` shared by name."""

    _shared: ClassVar[dict[str, Keys]] = {}

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = Keys() if keys is None else keys

    @classmethod
    async def open(cls, url: URL) -> Self:
        name = url.hosts[0][0] if url.hosts else ""
        return cls(cls._shared.setdefault(name, Keys()) if name else None)

    async def begin(self, key: str, owner: str, lease: float) -> Claim:
        return self.begin_now(key, owner, lease)

    def begin_now(self, key: str, owner: str, lease: float) -> Claim:
        keys, now = self._keys, time.monotonic()
        if now >= keys.second:
            keys.forget(now)
        if keys.done.get(key, 0.0) > now:
            return _DONE
        held = keys.held.get(key)
        if held is not None and held[1] > now and held[0] != owner:
            return Claim(State.IN_PROGRESS, held[1] - now)
        keys.held[key] = owner, now + lease
        keys.end(key, now + lease)
        return _NEW

    async def renew(self, key: str, owner: str, lease: float) -> None:
        if self._holds(key, owner):
            self._hold(key, owner, time.monotonic() + lease)

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        return self.complete_now(key, owner, keep)

    def complete_now(self, key: str, owner: str, keep: float) -> bool:
        keys, now = self._keys, time.monotonic()
        holder, until = keys.held.get(key, ("", 0.0))
        if holder != owner or until <= now:
            return False
        del keys.held[key]
        keys.done[key] = now + keep
        keys.end(key, now + keep)
        return True

    async def abandon(self, key: str, owner: str) -> None:
        if self._holds(key, owner):
            del self._keys.held[key]

    async def mark(self, key: str, keep: float) -> int:
        now = time.monotonic()
        if now >= self._keys.second:
            self._keys.forget(now)
        count, until = self._keys.held.get(COUNTER + key, ("0", 0.0))
        marks = int(count) + 1 if until > now else 1
        self._hold(COUNTER + key, str(marks), now + keep)
        return marks

    async def unmark(self, key: str) -> None:
        self._keys.held.pop(COUNTER + key, None)

    async def aclose(self) -> None:
        """Nothing to release."""

    def _holds(self, key: str, owner: str) -> bool:
        holder, until = self._keys.held.get(key, ("", 0.0))
        return holder == owner and until > time.monotonic()

    def _hold(self, key: str, holder: str, until: float) -> None:
        self._keys.held[key] = holder, until
        self._keys.end(key, until)
