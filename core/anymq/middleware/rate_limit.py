"""Handle only so many deliveries a second."""

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
    """Let `rate` deliveries through every `per` seconds, and at most `burst` of them at once.

    `burst` is `rate` unless given, and at least 1. What is over the limit waits here, with its
    lease kept; the engine fetches no more than it can hold. Each attempt counts. Handlers that are
    given the same `RateLimit` share the limit; it holds for this process, not for the whole group.
    Draining does not wait: what has not been let through is released.

    It goes by the real clock, also in tests that move another.
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
            if await _let_through(delivery, self._limiter()):
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


async def _let_through(delivery: Delivery, limiter: AsyncLimiter) -> bool:
    """Wait for the turn of `delivery`; False if the subscription is closing."""
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
