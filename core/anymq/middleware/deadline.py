"""Give a handler only so long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..consuming.delivery import Delivery, Handler
from ..errors import ConfigurationError

LONG = 60.0
"""Seconds from which a deadline is kept by the subscription, which looks every few seconds."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Cancel the handler after `seconds`; that is a failed attempt, a `TimeoutError`.

    Handlers have one of 15 minutes unless told otherwise: another `Deadline`, or None for none. One
    of a minute or more costs nothing a message, may come up to ten seconds late, and does not count
    how long a message waits for its batch. A handler that blocks the event loop is not cancelled.
    """

    seconds: float = 900.0

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ConfigurationError("Deadline: seconds must be positive")

    @property
    def passthrough(self) -> bool:
        """See `Passthrough`."""
        return self.seconds >= LONG

    def __call__(self, handler: Handler) -> Handler:
        return self._kept_by_subscription(handler) if self.passthrough else self._exact(handler)

    def _exact(self, handler: Handler) -> Handler:
        async def deadline(delivery: Delivery) -> None:
            limit = asyncio.timeout(self.seconds)
            try:
                async with limit:
                    await handler(delivery)
            except TimeoutError:
                if limit.expired():
                    raise self._over() from None
                raise

        return deadline

    def _kept_by_subscription(self, handler: Handler) -> Handler:
        async def deadline(delivery: Delivery) -> None:
            delivery.subscription.begin_attempt(delivery)
            try:
                await handler(delivery)
            except asyncio.CancelledError:
                if delivery.subscription.has_timed_out():
                    raise self._over() from None
                raise

        return deadline

    def _over(self) -> TimeoutError:
        return TimeoutError(f"the handler took over {self.seconds:g} s")
