"""Give a handler only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..consuming.delivery import Delivery
    from . import Handler

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
    def quiet(self) -> bool:
        """See `shorten`."""
        return self.seconds >= LONG

    def __call__(self, handler: Handler) -> Handler:
        return self._kept_by_subscription(handler) if self.quiet else self._exact(handler)

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
                if delivery.subscription.has_cut_off():
                    raise self._over() from None
                raise

        return deadline

    def _over(self) -> TimeoutError:
        return TimeoutError(f"the handler took over {self.seconds:g} s")


def longer_deadline(chain: Iterable[object]) -> float | None:
    """Return the shortest `Deadline` of `chain` that the subscription has to keep, in seconds."""
    found = [link.seconds for link in chain if isinstance(link, Deadline) and link.quiet]
    return min(found, default=None)
