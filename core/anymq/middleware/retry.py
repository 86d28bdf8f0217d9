"""Try a failed delivery again: in place when the wait is short, durably when it is long."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, Reject, RetryAfter

if TYPE_CHECKING:
    from ..delivery import Delivery
    from . import Handler

log = logging.getLogger("anymq.retry")

ErrorTypes = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Retry a handler that raises, up to `attempts` in all, then reject the delivery.

    The wait before attempt n + 1 is random between 0 and `min(cap, initial * factor ** (n - 1))`
    seconds (exponential backoff with full jitter; `jitter=False` takes the upper end). A wait of at
    most `in_place` seconds is slept through with the slot held; a longer one is a durable
    redelivery that holds nothing and survives a crash. Errors outside `retry_on`, or in
    `give_up_on`, are not retried. `attempts` counts every delivery, also those whose process
    crashed where the backend can count them: a message that kills its consumers ends up in the dead
    letters as well.
    """

    attempts: int = 5
    initial: float = 0.5
    factor: float = 2.0
    cap: float = 60.0
    in_place: float = 0.25
    jitter: bool = True
    retry_on: ErrorTypes = Exception
    give_up_on: ErrorTypes = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError("Retry: attempts must be at least 1")
        if min(self.initial, self.cap, self.in_place) < 0 or self.factor < 1:
            raise ConfigurationError("Retry: times must not be negative, factor at least 1")

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after the failure of `attempt`."""
        longest = min(self.cap, self.initial * self.factor ** min(attempt - 1, 64))
        return random.uniform(0, longest) if self.jitter else longest

    def __call__(self, handler: Handler) -> Handler:
        async def retry(delivery: Delivery) -> None:
            if delivery.attempt > self.attempts:
                raise Reject(
                    f"gave up: attempt {delivery.attempt} of {self.attempts}; "
                    "the earlier ones never came to an end"
                )
            while True:
                try:
                    return await handler(delivery)
                except Reject:
                    raise
                except RetryAfter as signal:
                    if signal.counted and delivery.attempt >= self.attempts:
                        raise _exhausted(delivery, signal.reason) from signal
                    raise
                except Exception as error:
                    wait = self._next(delivery, error)
                await delivery.clock.sleep(wait)
                delivery.count_from(delivery.attempt + 1)

        return retry

    def _next(self, delivery: Delivery, error: Exception) -> float:
        """Return how long to wait in place; raises what ends this delivery otherwise."""
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, self.give_up_on) or not isinstance(error, self.retry_on):
            raise Reject(f"not retried: {reason}") from error
        if delivery.attempt >= self.attempts:
            raise _exhausted(delivery, reason) from error
        wait = self.delay(delivery.attempt)
        log.info(
            "attempt %d of %d failed for %s from %s, next in %.2f s: %s",
            delivery.attempt,
            self.attempts,
            delivery.message.id,
            delivery.topic,
            wait,
            reason,
        )
        if wait > self.in_place:
            raise RetryAfter(wait, reason) from error
        return wait


def _exhausted(delivery: Delivery, reason: str) -> Reject:
    return Reject(f"gave up after {delivery.attempt} attempts: {reason}")
