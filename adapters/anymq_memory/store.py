"""`MemoryStore`: the idempotency store in memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

from anymq.driver import URL, Claim, ClaimState, Store

_NEW, _DONE = Claim(ClaimState.NEW), Claim(ClaimState.DONE)
_NO_CLAIM = "", 0.0
_COUNTER_PREFIX = "\x01"
"""The keys of counters begin with it, and no claim's key does. The owner field is the count."""


class Keys:
    """Completed and claimed keys, with the monotonic times at which they expire.

    Expired keys are deleted once a second. For each second there is a list of the keys that may
    expire in it; a key is added to one whenever its expiry is set.
    """

    def __init__(self) -> None:
        self.completed: dict[str, float] = {}
        self.claims: dict[str, tuple[str, float]] = {}
        """By key its owner, and when the claim's lease expires."""
        self.next_expiry = int(time.monotonic())
        self._expiring: dict[int, list[str]] = {}

    def expire_at(self, keys: Iterable[str], until: float) -> None:
        """Check `keys` once `until` has passed."""
        self._expiring.setdefault(int(until) + 1, []).extend(keys)

    def delete_expired(self, now: float) -> None:
        """Delete expired keys; to be called when `next_expiry` has passed."""
        self.next_expiry = int(now) + 1
        for second in [second for second in self._expiring if second <= now]:
            for key in self._expiring.pop(second):
                if self.completed.get(key, now) < now:
                    del self.completed[key]
                if self.claims.get(key, ("", now))[1] < now:
                    del self.claims[key]


class MemoryStore(Store):
    """Claims of one process. ``memory://`` is private, ``memory://name`` is shared by name."""

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
        completed, claims = self._keys.completed, self._keys.claims
        now = self._now()
        until = now + lease
        claim = owner, until
        refused: dict[str, Claim] = {}
        for key in keys:
            if key in completed and completed[key] > now:
                refused[key] = _DONE
                continue
            current = claims.get(key)
            if current is not None and current[1] > now and current[0] != owner:
                refused[key] = Claim(ClaimState.IN_PROGRESS, current[1] - now)
            else:
                claims[key] = claim
        self._keys.expire_at(keys, until)
        return refused

    async def may_know(self, prefix: str) -> bool:
        keys = self._keys
        return any(
            key.startswith(prefix) for known in (keys.completed, keys.claims) for key in known
        )

    async def renew(self, key: str, owner: str, lease: float) -> None:
        if self._is_owner(key, owner):
            self._set(key, owner, time.monotonic() + lease)

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        if not self._is_owner(key, owner):
            return False
        await self.complete_many((key,), owner, keep)
        return True

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        claims, until = self._keys.claims, self._now() + keep
        for key in keys:
            claims.pop(key, None)
        self._keys.completed.update(dict.fromkeys(keys, until))
        self._keys.expire_at(keys, until)

    async def abandon(self, key: str, owner: str) -> None:
        if self._is_owner(key, owner):
            del self._keys.claims[key]

    async def mark(self, key: str, keep: float) -> int:
        now = self._now()
        count, until = self._keys.claims.get(_COUNTER_PREFIX + key, ("0", 0.0))
        marks = int(count) + 1 if until > now else 1
        self._set(_COUNTER_PREFIX + key, str(marks), now + keep)
        return marks

    async def unmark(self, key: str) -> None:
        self._keys.claims.pop(_COUNTER_PREFIX + key, None)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    def _is_owner(self, key: str, owner: str) -> bool:
        claimed_by, until = self._keys.claims.get(key, _NO_CLAIM)
        return claimed_by == owner and until > time.monotonic()

    def _set(self, key: str, owner: str, until: float) -> None:
        self._keys.claims[key] = owner, until
        self._keys.expire_at((key,), until)

    def _now(self) -> float:
        """Return the monotonic time, after deleting expired keys."""
        now = time.monotonic()
        if now >= self._keys.next_expiry:
            self._keys.delete_expired(now)
        return now
