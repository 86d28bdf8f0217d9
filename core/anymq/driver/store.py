"""`Store`: what middleware remembers of keys, behind a URL of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import gather
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

from ..url import URL

if TYPE_CHECKING:
    from .client_parts import Parts


class ClaimState(Enum):
    """What a store knows of a key."""

    NEW = "new"
    IN_PROGRESS = "in progress"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to `begin`. `remaining` is the seconds left of somebody else's lease."""

    state: ClaimState
    remaining: float = 0.0


class Store(ABC):
    """A three-state memory of keys, and counters, shared by all processes that open the same URL.

    Every method is one atomic step. Errors of a client library are translated by the adapter's
    `errors` table of the driver in the same package. `tls_schemes` are those of its URL schemes
    that encrypt: credentials over any other are refused off loopback. `client_parts` is as in
    `Driver`.
    """

    tls_schemes: ClassVar[frozenset[str]] = frozenset()
    client_parts: ClassVar[Parts] = MappingProxyType({})
    in_bulk: ClassVar[bool] = False
    """Whether `complete_many` stands for `complete`.

    Where a class has only the latter, or a subclass changes it, that is called for each message, in
    the context in which its handler ran: it may apply there, in one transaction with the note, what
    the handler left to it.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "complete_many" in vars(cls):
            cls.in_bulk = True
        elif "complete" in vars(cls):
            cls.in_bulk = False

    @classmethod
    @abstractmethod
    async def open(cls, url: URL) -> Self:
        """Connect; raises if the store cannot be reached."""

    @abstractmethod
    async def begin(self, key: str, owner: str, lease: float) -> Claim:
        """Claim `key` for `owner` for `lease` seconds.

        `NEW`: the key was unknown, abandoned, or its lease had run out, and is now claimed by
        `owner` (also when `owner` itself held it). `IN_PROGRESS`: another owner holds it, for
        `remaining` seconds at most. `DONE`: completed, nothing was claimed.
        """

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        """`begin` each of `keys`, no two of them alike; return the claims that are not `NEW`.

        Each is a step by itself. When it raises, any of them may have been claimed.
        """
        claims = await gather(*[self.begin(key, owner, lease) for key in keys])
        answers = zip(keys, claims, strict=True)
        return {key: claim for key, claim in answers if claim.state is not ClaimState.NEW}

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        """Mark `keys` done: `owner` claimed each, and its effect has been applied.

        Where somebody else holds a key by now, this may be marked done, or left to that one.
        """
        await gather(*[self.complete(key, owner, keep) for key in keys])

    async def abandon_many(self, keys: Sequence[str], owner: str) -> None:
        """`abandon` each of `keys`."""
        await gather(*[self.abandon(key, owner) for key in keys])

    async def may_know(self, prefix: str) -> bool:
        """Return False if there is no claim on a key that begins with `prefix`, nor a note of one.

        Asked once a subscription, to find out whether keys of an earlier release have to be looked
        at. True is right where it would take long to tell: each message then costs another key.
        """
        return True

    @abstractmethod
    async def renew(self, key: str, owner: str, lease: float) -> None:
        """Begin the lease of `owner` anew; nothing happens if `owner` does not hold it."""

    @abstractmethod
    async def complete(self, key: str, owner: str, keep: float) -> bool:
        """Mark `key` done and remember that for `keep` seconds.

        Return False, and change nothing, if `owner` no longer holds it.
        """

    @abstractmethod
    async def abandon(self, key: str, owner: str) -> None:
        """Forget the claim of `owner`, so that the next `begin` is `NEW`; no-op if not held."""

    @abstractmethod
    async def mark(self, key: str, keep: float) -> int:
        """Add one to the counter of `key` and return it, 1 the first time.

        The counter is forgotten `keep` seconds after its last `mark`. Counters and claims do not
        get into each other's way, whatever their keys.
        """

    @abstractmethod
    async def unmark(self, key: str) -> None:
        """Forget the counter of `key`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release what `open` took. Calling it twice is harmless."""
