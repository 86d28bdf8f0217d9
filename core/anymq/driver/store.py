"""`Store`: the claims, completions and counters of middleware, behind a URL of its own."""

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
    """The state of a key in a store, before a claim."""

    NEW = "new"
    IN_PROGRESS = "in progress"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of `begin`. `remaining` is the rest of another owner's lease, in seconds."""

    state: ClaimState
    remaining: float = 0.0


class Store(ABC):
    """Claims and completions of keys, and counters, shared by all processes with the same URL.

    Every method is atomic. Errors of a client library are translated by `Driver.errors` of the
    driver in the same package. `tls_schemes` are the URL schemes that encrypt; credentials over any
    other are refused off loopback. `client_parts` is as in `Driver`.
    """

    tls_schemes: ClassVar[frozenset[str]] = frozenset()
    client_parts: ClassVar[Parts] = MappingProxyType({})
    in_bulk: ClassVar[bool] = False
    """Whether completions are batched by `complete_many`.

    False for a class that defines only `complete`, and for a subclass that overrides it. Then
    `complete` is called for each message, in the context of its handler. There it may apply the
    handler's effect and the completion in one transaction.
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

        `NEW`: `owner` has the claim now. The key was unknown, abandoned, held by `owner` itself, or
        its lease had expired. `IN_PROGRESS`: another owner holds the claim, for at most `remaining`
        seconds. `DONE`: the key is completed, and nothing was claimed.
        """

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        """`begin` each of the distinct `keys`; return the claims that are not `NEW`.

        Each claim is atomic by itself. If this raises, any of them may have been made.
        """
        claims = await gather(*[self.begin(key, owner, lease) for key in keys])
        answers = zip(keys, claims, strict=True)
        return {key: claim for key, claim in answers if claim.state is not ClaimState.NEW}

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        """Mark `keys` as completed: `owner` has claimed each, and its effect has been applied.

        A key that another owner holds by now may be marked or left to that owner.
        """
        await gather(*[self.complete(key, owner, keep) for key in keys])

    async def abandon_many(self, keys: Sequence[str], owner: str) -> None:
        """`abandon` each of `keys`."""
        await gather(*[self.abandon(key, owner) for key in keys])

    async def may_know(self, prefix: str) -> bool:
        """Return False if no key with `prefix` is claimed or completed.

        Called once per subscription, to decide whether keys of an earlier release must be checked
        too. Return True if the answer would take long; each message then costs a second key.
        """
        return True

    @abstractmethod
    async def renew(self, key: str, owner: str, lease: float) -> None:
        """Renew the claim of `owner` for `lease` seconds; no-op if not held."""

    @abstractmethod
    async def complete(self, key: str, owner: str, keep: float) -> bool:
        """Mark `key` as completed, and retain that for `keep` seconds.

        Return False, and change nothing, if `owner` no longer holds it.
        """

    @abstractmethod
    async def abandon(self, key: str, owner: str) -> None:
        """Abandon the claim of `owner`, so that the next `begin` is `NEW`; no-op if not held."""

    @abstractmethod
    async def mark(self, key: str, keep: float) -> int:
        """Increment the counter of `key` and return it, 1 the first time.

        The counter is deleted `keep` seconds after its last `mark`. Counters and claims on the same
        key are independent.
        """

    @abstractmethod
    async def unmark(self, key: str) -> None:
        """Delete the counter of `key`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection. A second call does nothing."""
