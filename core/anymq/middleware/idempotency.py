"""Apply each message once: a duplicate is acknowledged without running the handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, RetryAfter
from ..message import new_id
from ..store import State, Store
from .stored import tried

if TYPE_CHECKING:
    from ..delivery import Delivery
    from . import Handler

log = logging.getLogger("anymq.idempotency")

BUSY = 2.0


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
        async def idempotency(delivery: Delivery) -> None:
            message = delivery.message
            key = f"{delivery.group}|{message.source}|{message.id}"
            owner = new_id()
            store = await tried(lambda: delivery.stores.get(self.store))
            claim = await tried(lambda: store.begin(key, owner, self.lease))
            if claim.state is State.DONE:
                log.info("duplicate of %s from %s skipped", message.id, delivery.topic)
                if self.on_duplicate is not None:
                    self.on_duplicate(delivery)
                return
            if claim.state is State.IN_PROGRESS:
                wait = min(claim.remaining, BUSY)
                raise RetryAfter(wait, "being handled elsewhere", counted=False)
            renewal = _Renewal(store, key, owner, self.lease)
            try:
                await handler(delivery)
            except BaseException:
                await asyncio.shield(_abandon(store, key, owner))
                raise
            finally:
                renewal.stop()
            if delivery.verb in ("nack", "release", "reject", "stop"):
                await _abandon(store, key, owner)
            else:
                await tried(lambda: store.complete(key, owner, self.keep))

        return idempotency


class _Renewal:
    """Renews a claim every third of its lease; costs one timer while the handler is quick."""

    __slots__ = ("_arguments", "_task", "_timer")

    def __init__(self, store: Store, key: str, owner: str, lease: float) -> None:
        self._arguments = (store, key, owner, lease)
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(lease / 3, self._start)

    def _start(self) -> None:
        self._task = asyncio.create_task(self._renew(), name="anymq-idempotency-lease")

    async def _renew(self) -> None:
        store, key, owner, lease = self._arguments
        while True:
            try:
                await store.renew(key, owner, lease)
            except Exception as error:
                log.warning("renewing the claim on %s failed: %s", key, error)
            await asyncio.sleep(lease / 3)

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


async def _abandon(store: Store, key: str, owner: str) -> None:
    try:
        await store.abandon(key, owner)
    except Exception as error:
        # The claim then ends with its lease: the retry is postponed, not eaten.
        log.warning("abandoning the claim on %s failed: %s", key, error)
