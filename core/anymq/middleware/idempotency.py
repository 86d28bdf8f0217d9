"""Apply each message once: a duplicate is acknowledged without running the handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..consuming.delivery import Delivery, Handler
from ..driver.store import Claim, ClaimState, Store
from ..errors import ConfigurationError, RetryAfter
from ..logs import logger
from ..url import shown
from .claims import BUSY_SECONDS, ClaimBatcher

log = logger("anymq.idempotency")

NOT_COMPLETED = frozenset({"nack", "release", "reject", "stop"})
"""The settlements after which a message does not count as completed."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Skip the messages that this group has handled, as recorded in `store`.

    `store` is a URL (`memory://`, `sqlite:///seen.db`, `redis://…`) or an open `Store`. A message
    is identified by topic, group, source and id; each broadcast subscription counts as a group of
    its own. It is claimed for `lease` seconds, and the claim is renewed while the handler runs.

    If the handler fails, or settles its delivery other than by `ack`, the claim is abandoned, so
    that the retry is not treated as a duplicate. A message claimed elsewhere is redelivered later,
    uncounted; so is every message while the store is unavailable. Messages handled meanwhile are
    kept, and marked as completed when the store answers again. A subscription whose store cannot
    be used is not entered. Completed messages are skipped for `keep` seconds: choose more than your
    longest redelivery or redrive.

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
        """The stores to try before a subscription is entered."""
        return (self.store,)

    def __call__(self, handler: Handler) -> Handler:
        return self.split_ack(handler)[0]

    def split_ack(self, handler: Handler) -> tuple[Handler, Handler]:
        """Return the handler in two forms, see `SplitAck`.

        The first returns when the store has marked the message as completed. The second does not
        wait, and the message is acknowledged then.
        """
        claims = ClaimBatcher(self.store, self.lease, self.keep)

        def form(waits: bool) -> Handler:
            async def once(delivery: Delivery) -> None:
                key = claims.begin_now(delivery)
                if key is None:
                    claim = await claims.begin(delivery)
                    if isinstance(claim, Claim):
                        self._skip(delivery, claim)
                        if not waits:
                            delivery.completed()
                        return
                    key = claim
                try:
                    await handler(delivery)
                except BaseException:
                    await asyncio.shield(claims.abandon(key))
                    raise
                if delivery.verb in NOT_COMPLETED:
                    await claims.abandon(key)
                elif waits or not claims.is_batched:
                    await claims.completed(key)
                    if not waits:
                        delivery.completed()
                else:
                    claims.complete(key, delivery)

            return once

        return form(True), form(False)

    def _skip(self, delivery: Delivery, claim: Claim) -> None:
        if claim.state is ClaimState.IN_PROGRESS:
            wait = min(claim.remaining, BUSY_SECONDS)
            raise RetryAfter(wait, "being handled elsewhere", counted=False)
        log.info(
            "duplicate of message %s from %s (group %s) skipped",
            delivery.message.id,
            delivery.topic,
            delivery.group,
        )
        if self.on_duplicate is not None:
            try:
                self.on_duplicate(delivery)
            except Exception:
                log.exception("on_duplicate failed; the duplicate is skipped all the same")
