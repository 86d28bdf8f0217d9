"""Apply each message once: a duplicate is acknowledged without running the handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, RetryAfter
from ..message import new_id
from ..store import Claim, State, Store
from .stored import again, tried

if TYPE_CHECKING:
    from ..delivery import Delivery
    from . import Handler

log = logging.getLogger("anymq.idempotency")

BUSY = 2.0
LOOKS = 9
"""How often within a lease the claims are looked at: who was there four times is renewed."""
OTHERWISE = frozenset({"nack", "release", "reject", "stop"})
"""The verbs that do not say that a message is done."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Remember in `store` which messages this group has handled, and skip those.

    `store` is a URL (`memory://`, `sqlite:///seen.db`, `redis://…`) or an open `Store`. A message
    is known by group, source and id. It is claimed for `lease` seconds, renewed while the
    handler runs; a failure abandons the claim, so that the retry is not taken for a duplicate; so
    does a handler that settles its delivery otherwise than by `ack`. A message that somebody else
    is handling comes back later, uncounted, and so does every message while the store cannot be
    reached. What is done is remembered for `keep` seconds: choose it longer than the longest
    redelivery or redrive you expect.

    A crash between the effect and its completion in the store repeats the effect, unless the
    handler's own writes are idempotent or share a transaction with the store.
    """

    store: str | Store
    lease: float = 60.0
    keep: float = 7 * 24 * 3600.0
    on_duplicate: Callable[[Delivery], None] | None = None

    def __post_init__(self) -> None:
        if self.lease <= 0 or self.keep <= 0:
            raise ConfigurationError("Idempotency: lease and keep must be positive")

    def __call__(self, handler: Handler) -> Handler:
        claims = _Claims(self.lease)

        return lambda delivery: self._once(handler, claims, delivery)

    async def _once(self, handler: Handler, claims: _Claims, delivery: Delivery) -> None:
        store = delivery.stores.ready(self.store)
        if store is None:
            store = await tried(lambda: delivery.stores.get(self.store))
        source, id = delivery.identity
        key = f"{delivery.group}|{source}|{id}"
        owner = new_id()
        claim = store.begin_now(key, owner, self.lease)
        if claim is None:
            try:
                claim = await store.begin(key, owner, self.lease)
            except Exception as error:
                claim = await again(lambda: store.begin(key, owner, self.lease), error)
        if claim.state is not State.NEW:
            self._not_ours(delivery, claim)
            return
        claims.hold(owner, key, store)
        try:
            await handler(delivery)
        except BaseException:
            await asyncio.shield(_abandon(store, key, owner))
            raise
        finally:
            claims.drop(owner)
        if delivery.verb in OTHERWISE:
            await _abandon(store, key, owner)
        elif store.complete_now(key, owner, self.keep) is None:
            try:
                await store.complete(key, owner, self.keep)
            except Exception as error:
                await again(lambda: store.complete(key, owner, self.keep), error)

    def _not_ours(self, delivery: Delivery, claim: Claim) -> None:
        if claim.state is State.IN_PROGRESS:
            wait = min(claim.remaining, BUSY)
            raise RetryAfter(wait, "being handled elsewhere", counted=False)
        log.info("duplicate of %s from %s skipped", delivery.message.id, delivery.topic)
        if self.on_duplicate is not None:
            self.on_duplicate(delivery)


class _Claim:
    __slots__ = ("age", "key", "store")

    def __init__(self, key: str, store: Store) -> None:
        self.key = key
        self.store = store
        self.age = 0
        """How often it has been looked at since it was made or renewed."""


class _Claims:
    """The claims whose handlers run, by owner: each is renewed when a third of its lease is over.

    One timer looks after all of them: one a message would cost more than the claim.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._held: dict[str, _Claim] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renewals: set[asyncio.Task[None]] = set()

    def hold(self, owner: str, key: str, store: Store) -> None:
        """Look after a claim that was just made, until `drop`."""
        self._held[owner] = _Claim(key, store)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._lease / LOOKS, self._look, loop)

    def drop(self, owner: str) -> None:
        """Leave it alone."""
        del self._held[owner]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._held:
            self._loop = None
            return
        for owner, claim in self._held.items():
            claim.age += 1
            if claim.age > LOOKS // 3:
                claim.age = 0
                task = loop.create_task(self._renew(owner, claim), name="anymq-idempotency-lease")
                self._renewals.add(task)
                task.add_done_callback(self._renewals.discard)
        loop.call_later(self._lease / LOOKS, self._look, loop)

    async def _renew(self, owner: str, claim: _Claim) -> None:
        try:
            await claim.store.renew(claim.key, owner, self._lease)
        except Exception as error:
            log.warning("renewing the claim on %s failed: %s", claim.key, error)


async def _abandon(store: Store, key: str, owner: str) -> None:
    try:
        await store.abandon(key, owner)
    except Exception as error:
        # The claim then ends with its lease: the retry is postponed, not eaten.
        log.warning("abandoning the claim on %s failed: %s", key, error)
