"""`RateLimit`: a limit on the deliveries handled per second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..consuming.delivery import Delivery, Handler
from ..driver.clock import REAL
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter


Limiters = WeakKeyDictionary[asyncio.AbstractEventLoop, "AsyncLimiter"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Middleware that admits `rate` deliveries every `per` seconds, and at most `burst` at once.

    `burst` is `rate` unless given, and at least 1. Deliveries over the limit wait, and keep their
    leases; the subscription fetches no more than its credit. Each attempt counts. Handlers with the
    same `RateLimit` object share the limit, within one process and not across the group. Draining
    does not wait: deliveries that were not admitted are released.

    The limit uses the real clock, also in tests with a virtual clock.
    """

    rate: float
    per: float = 1.0
    burst: float | None = None
    _limiters: Limiters = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.per <= 0:
            raise ConfigurationError("RateLimit: rate and per must be positive")
        if self.burst is not None and self.burst < 1:
            raise ConfigurationError("RateLimit: burst must be at least 1")

    def __call__(self, handler: Handler) -> Handler:
        async def rate_limit(delivery: Delivery) -> None:
            if await _admit(delivery, self._limiter()):
                await handler(delivery)
            else:
                await delivery.release()

        return rate_limit

    def _limiter(self) -> AsyncLimiter:
        from aiolimiter import AsyncLimiter

        loop = asyncio.get_running_loop()
        limiter = self._limiters.get(loop)
        if limiter is None:
            burst = max(self.rate if self.burst is None else self.burst, 1.0)
            limiter = self._limiters[loop] = AsyncLimiter(burst, burst * self.per / self.rate)
        return limiter


async def _admit(delivery: Delivery, limiter: AsyncLimiter) -> bool:
    """Wait until `delivery` is admitted; return False if the subscription is closing."""
    if limiter.has_capacity():
        await limiter.acquire()
        return True
    while not delivery.subscription.closing:
        try:
            async with asyncio.timeout(REAL.poll):
                await limiter.acquire()
        except TimeoutError:
            continue
        return True
    return False
