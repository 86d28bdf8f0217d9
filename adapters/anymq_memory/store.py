"""The idempotency store in memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

from anymq.driver import URL, Claim, ClaimState, Store

_NEW, _DONE = Claim(ClaimState.NEW), Claim(ClaimState.DONE)
NOBODY = "", 0.0
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

    def end(self, keys: Iterable[str], until: float) -> None:
        """Look at `keys` again when their time is over."""
        self._ending.setdefault(int(until) + 1, []).extend(keys)

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
        return (await self.begin_many((key,), owner, lease)).get(key, _NEW)

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        done, held = self._keys.done, self._keys.held
        now = self._now()
        until = now + lease
        mine = owner, until
        refused: dict[str, Claim] = {}
        for key in keys:
            if key in done and done[key] > now:
                refused[key] = _DONE
                continue
            holder = held.get(key)
            if holder is not None and holder[1] > now and holder[0] != owner:
                refused[key] = Claim(ClaimState.IN_PROGRESS, holder[1] - now)
            else:
                held[key] = mine
        self._keys.end(keys, until)
        return refused

    async def may_know(self, prefix: str) -> bool:
        keys = self._keys
        return any(key.startswith(prefix) for known in (keys.done, keys.held) for key in known)

    async def renew(self, key: str, owner: str, lease: float) -> None:
        if self._holds(key, owner):
            self._hold(key, owner, time.monotonic() + lease)

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        if not self._holds(key, owner):
            return False
        await self.complete_many((key,), owner, keep)
        return True

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        held, until = self._keys.held, self._now() + keep
        for key in keys:
            held.pop(key, None)
        self._keys.done.update(dict.fromkeys(keys, until))
        self._keys.end(keys, until)

    async def abandon(self, key: str, owner: str) -> None:
        if self._holds(key, owner):
            del self._keys.held[key]

    async def mark(self, key: str, keep: float) -> int:
        now = self._now()
        count, until = self._keys.held.get(COUNTER + key, ("0", 0.0))
        marks = int(count) + 1 if until > now else 1
        self._hold(COUNTER + key, str(marks), now + keep)
        return marks

    async def unmark(self, key: str) -> None:
        self._keys.held.pop(COUNTER + key, None)

    async def aclose(self) -> None:
        """Nothing to release."""

    def _holds(self, key: str, owner: str) -> bool:
        holder, until = self._keys.held.get(key, NOBODY)
        return holder == owner and until > time.monotonic()

    def _hold(self, key: str, holder: str, until: float) -> None:
        self._keys.held[key] = holder, until
        self._keys.end((key,), until)

    def _now(self) -> float:
        """Return the time, and forget what is over."""
        now = time.monotonic()
        if now >= self._keys.second:
            self._keys.forget(now)
        return now
