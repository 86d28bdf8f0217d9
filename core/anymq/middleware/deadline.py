"""`Deadline`: a time limit for handlers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..consuming.delivery import Delivery, Handler
from ..errors import ConfigurationError

COARSE_SECONDS = 60.0
"""Seconds from which the subscription enforces a deadline, by a check every few seconds."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Middleware that cancels the handler after `seconds`; the attempt fails with `TimeoutError`.

    The default deadline of handlers is 15 minutes. Pass another `Deadline` to change it, or None to
    have none. A deadline of 60 s or more has no cost per message, may be up to 10 s late, and does
    not include the time for which a message waits for its batch. A handler that blocks the event
    loop is not cancelled.
    """

    seconds: float = 900.0

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ConfigurationError("Deadline: seconds must be positive")

    @property
    def passthrough(self) -> bool:
        """See `Passthrough`."""
        return self.seconds >= COARSE_SECONDS

    def __call__(self, handler: Handler) -> Handler:
        return self._coarse(handler) if self.passthrough else self._exact(handler)

    def _exact(self, handler: Handler) -> Handler:
        async def deadline(delivery: Delivery) -> None:
            limit = asyncio.timeout(self.seconds)
            try:
                async with limit:
                    await handler(delivery)
            except BaseException as error:
                # The handler has ended; a backoff that follows is not part of its time.
                delivery.subscription.begin_attempt(delivery)
                if isinstance(error, TimeoutError) and limit.expired():
                    raise self._timeout_error() from None
                raise

        return deadline

    def _coarse(self, handler: Handler) -> Handler:
        async def deadline(delivery: Delivery) -> None:
            delivery.subscription.begin_attempt(delivery)
            try:
                await handler(delivery)
            except asyncio.CancelledError:
                if delivery.subscription.has_timed_out():
                    raise self._timeout_error() from None
                raise

        return deadline

    def _timeout_error(self) -> TimeoutError:
        return TimeoutError(f"the handler took over {self.seconds:g} s")
