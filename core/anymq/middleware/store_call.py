"""Calls of a store from middleware: a store that keeps failing delays the delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..consuming.delivery import Delivery
from ..errors import ConfigurationError, RetryAfter
from ..identity import joined
from ..logs import logger
from ..tasks import fault

log = logger("anymq.idempotency")

T = TypeVar("T")

TRIES = 3
PAUSE = 0.2


async def with_retries(call: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of a store. If it fails three times, raise `RetryAfter`, uncounted."""
    failure: Exception | None = None
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE * attempt)
        try:
            return await call()
        except ConfigurationError:
            raise
        except BaseException as raw:
            failure = fault(raw, "the store")
    reason = f"store failed {TRIES} times: {failure}"
    log.warning("%s; delivery delayed by 1 s, uncounted", reason)
    raise RetryAfter(1.0, reason, counted=False) from failure


def key_of(delivery: Delivery, source: str | None, id: str) -> str:
    """Return the key in a store of the message `id` of `source`, as `delivery` got it."""
    group = delivery.group
    reader = delivery.subscription.member if group is None else None
    return f"~{joined(delivery.topic, group, reader, source)}|{id}"
