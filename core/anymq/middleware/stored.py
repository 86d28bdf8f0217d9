"""Calling a store from middleware: what fails for good postpones the delivery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import ConfigurationError, RetryAfter

log = logging.getLogger("anymq.idempotency")

T = TypeVar("T")

TRIES = 3
PAUSE = 0.2


async def tried(call: Callable[[], Awaitable[T]]) -> T:
    """Return the store's answer; one that fails repeatedly postpones the delivery, uncounted."""
    try:
        return await call()
    except Exception as error:
        return await again(call, error)


async def again(call: Callable[[], Awaitable[T]], error: Exception) -> T:
    """As `tried`, for a call that has failed once already."""
    for attempt in range(1, TRIES):
        if isinstance(error, ConfigurationError):
            raise error
        await asyncio.sleep(PAUSE * attempt)
        try:
            return await call()
        except Exception as another:
            error = another
    if isinstance(error, ConfigurationError):
        raise error
    reason = f"the store failed: {error}"
    log.warning("%s", reason)
    raise RetryAfter(1.0, reason, counted=False) from error
