"""Apply each message once: a duplicate is acknowledged without running the handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..driver.store import Claim, ClaimState, Store
from ..errors import ConfigurationError, RetryAfter
from ..logs import logger
from ..url import shown
from .claims import BUSY, Claims

if TYPE_CHECKING:
    from ..consuming.delivery import Delivery
    from . import Handler

log = logger("anymq.idempotency")

OTHERWISE = frozenset({"nack", "release", "reject", "stop"})
"""The verbs that do not say that a message is done."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Remember in `store` which messages this group has handled, and skip those.

    `store` is a URL (`memory://`, `sqlite:///seen.db`, `redis://…`) or an open `Store`. A message
    is known by topic, group, source and id; each broadcast subscription counts as a group of its
    own. It is claimed for `lease` seconds, renewed while the handler
    runs; a failure abandons the claim, so that the retry is not taken for a duplicate; so does a
    handler that settles its delivery otherwise than by `ack`. A message that another member is
    handling comes back later, uncounted, and so does every message while the store cannot be
    reached; what was handled meanwhile is kept and noted when it can. A subscription whose store
    cannot be used is not entered. What is done is remembered for `keep` seconds: choose it longer
    than the longest redelivery or redrive you expect.

    A crash between the effect and its completion in the store repeats the effect, unless the
    handler's own writes are idempotent or share a transaction with the store.
    """

    store: str | Store
    lease: float = 60.0
    keep: float = 7 * 24 * 3600.0
    on_duplicate: Callable[[Delivery], None] | None = None

    def __repr__(self) -> str:
        return shown(self)

    def __post_init__(self) -> None:
        if self.lease <= 0 or self.keep <= 0:
            raise ConfigurationError("Idempotency: lease and keep must be positive")

    @property
    def stores(self) -> tuple[str | Store, ...]:
        """See `stores_of`."""
        return (self.store,)

    def __call__(self, handler: Handler) -> Handler:
        return self.paired(handler)[0]

    def paired(self, handler: Handler) -> tuple[Handler, Handler]:
        """Return the handler in two forms, see `shorten`.

        The first returns when the store knows that the message is done. The second does not wait,
        and acknowledges the message then.
        """
        claims = Claims(self.store, self.lease, self.keep)

        def form(waits: bool) -> Handler:
            async def once(delivery: Delivery) -> None:
                key = claims.begin_now(delivery)
                if key is None:
                    claim = await claims.begin(delivery)
                    if isinstance(claim, Claim):
                        self._not_ours(delivery, claim)
                        if not waits:
                            delivery.done()
                        return
                    key = claim
                try:
                    await handler(delivery)
                except BaseException:
                    await asyncio.shield(claims.abandon(key))
                    raise
                if delivery.verb in OTHERWISE:
                    await claims.abandon(key)
                elif waits or not claims.in_bulk:
                    await claims.completed(key)
                    if not waits:
                        delivery.done()
                else:
                    claims.complete(key, delivery)

            return once

        return form(True), form(False)

    def _not_ours(self, delivery: Delivery, claim: Claim) -> None:
        if claim.state is ClaimState.IN_PROGRESS:
            wait = min(claim.remaining, BUSY)
            raise RetryAfter(wait, "being handled elsewhere", counted=False)
        log.info("duplicate of %s from %s skipped", delivery.message.id, delivery.topic)
        if self.on_duplicate is not None:
            try:
                self.on_duplicate(delivery)
            except Exception:
                log.exception("on_duplicate failed; the duplicate is skipped all the same")
