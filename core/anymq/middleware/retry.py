"""`Retry`: retries failed deliveries, in the process after a short backoff, otherwise durably."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar, Literal, Self, TypedDict, Unpack

from ..consuming.delivery import Delivery, Handler
from ..driver.store import Store
from ..errors import ConfigurationError, Reject, RetryAfter, StopLane, text_of
from ..logs import logger
from ..tasks import fault
from ..url import shown
from .store_call import key_of, with_retries

log = logger("anymq.retry")

ErrorTypes = type[Exception] | tuple[type[Exception], ...]

MAX_SPAN = 366 * 24 * 3600.0
"""The longest span of `Retry.within`, in seconds."""
MARK_RETENTION = 24 * 3600.0
"""Seconds for which the start of an attempt that has not ended is retained."""


class Exhausted(Reject):
    """Raised when retries are exhausted. Unlike `Reject`, it means that the handler fails."""


class RetryOptions(TypedDict, total=False):
    """The options of `Retry.within`, with the meanings that they have in `Retry`."""

    initial: float
    factor: float
    in_place: float
    jitter: bool
    retry_on: ErrorTypes
    give_up_on: ErrorTypes
    exhausted: Literal["dead-letter", "stop"]
    marker: str | Store | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Middleware that retries a failed handler, up to `attempts` in all, then rejects the delivery.

    By default the retries take 7 minutes on average and 14 at most, so that a restart of a
    dependency dead-letters nothing. `Retry.within` makes a schedule for another time.

    The backoff before attempt n + 1 is random between 0 and `min(cap, initial * factor ** (n - 1))`
    seconds (exponential backoff with full jitter; `jitter=False` uses the upper end). A backoff of
    at most `in_place` seconds is spent in the handler's slot. A longer one is a durable redelivery,
    which frees the slot and survives a crash. In ordered groups it blocks its key, and broadcast
    subscribers keep it in memory. Errors outside `retry_on`, or in `give_up_on`, are not retried.

    `attempts` counts every delivery, and crashed attempts as well if the backend counts them. So a
    message that kills its consumers is dead-lettered too. On Kafka, which does not count them, name
    a `marker`: a store as for `Idempotency`, shared by all members. Each start is marked there, and
    the mark is removed when the attempt has ended in any way but a crash. That costs two store
    calls per delivery.

    `exhausted="stop"` stops the message's key until `Subscription.restart`, instead of rejecting
    the delivery. It is for ordered subscriptions that must not skip a message.
    """

    attempts: int = 15
    initial: float = 0.5
    factor: float = 2.0
    cap: float = 120.0
    in_place: float = 0.25
    jitter: bool = True
    retry_on: ErrorTypes = Exception
    give_up_on: ErrorTypes = ()
    exhausted: Literal["dead-letter", "stop"] = "dead-letter"
    marker: str | Store | None = None

    def __repr__(self) -> str:
        return shown(self)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError("Retry: attempts must be at least 1")
        if min(self.initial, self.cap, self.in_place) < 0 or self.factor < 1:
            raise ConfigurationError("Retry: times must not be negative, factor at least 1")
        if self.exhausted not in ("dead-letter", "stop"):
            raise ConfigurationError("Retry: exhausted is 'dead-letter' or 'stop'")

    @property
    def passthrough(self) -> bool:
        """See `Passthrough`."""
        return self.marker is None

    @classmethod
    def within(cls, span: float | timedelta, **options: Unpack[RetryOptions]) -> Self:
        """Return a `Retry` whose backoffs add up to `span` on average (seconds, or a timedelta).

        `span` is the time from the first failure to the last attempt, without the attempts
        themselves. With jitter it varies up to twice `span`. No backoff is longer than a fifth of
        `span`. `options` are those of `Retry`, without `attempts` and `cap`.
        """
        seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
        if not 0 < seconds <= MAX_SPAN:
            raise ConfigurationError(
                f"Retry.within: span must be more than 0 and at most 366 days, not {span!r}"
            )
        retry = cls(**options)
        total = seconds * (2 if retry.jitter else 1)
        cap = total / 10
        retry = replace(retry, cap=cap, initial=min(retry.initial or cap, cap))
        count, sum = 0, 0.0
        while sum < total:
            count += 1
            sum += retry._max_delay(count)
        # The sum exceeds the span by part of the last backoff, so all are shortened to match it.
        scale = total / sum
        return replace(retry, attempts=count + 1, cap=cap * scale, initial=retry.initial * scale)

    @property
    def waits(self) -> tuple[float, ...]:
        """The longest backoffs between attempts, in seconds; with jitter the average is half."""
        return tuple(self._max_delay(attempt) for attempt in range(1, self.attempts))

    @property
    def stores(self) -> tuple[str | Store, ...]:
        """See `stores_of`."""
        return () if self.marker is None else (self.marker,)

    def delay(self, attempt: int) -> float:
        """Return the backoff after the failure of `attempt`, in seconds."""
        longest = self._max_delay(attempt)
        return random.uniform(0, longest) if self.jitter else longest

    def _max_delay(self, attempt: int) -> float:
        return min(self.cap, self.initial * self.factor ** min(attempt - 1, 64))

    def __call__(self, handler: Handler) -> Handler:
        async def retry(delivery: Delivery) -> None:
            if self.marker is None or delivery.group is None:
                return await self._attempts(handler, delivery)
            marker = self.marker
            key = f"start{key_of(delivery, *delivery.identity)}"
            store = await with_retries(lambda: delivery.stores.get(marker))
            starts = await with_retries(lambda: store.mark(key, MARK_RETENTION))
            if starts > delivery.attempt:
                delivery.set_attempt(starts)
            try:
                await self._attempts(handler, delivery)
            finally:
                await asyncio.shield(_unmark(store, key))

        return retry

    async def _attempts(self, handler: Handler, delivery: Delivery) -> None:
        """Run the handler, and again after each backoff of at most `in_place` seconds."""
        if delivery.attempt > self.attempts:
            raise self._exhausted(
                f"retries exhausted: attempt {delivery.attempt} of {self.attempts}, "
                "because earlier attempts crashed"
            )
        while True:
            try:
                return await handler(delivery)
            except (Reject, StopLane):
                raise
            except RetryAfter as signal:
                if signal.counted and delivery.attempt >= self.attempts:
                    raise self._retries_exhausted(delivery, signal.reason) from signal
                raise
            except Exception as error:
                backoff = self._backoff(delivery, error)
            await delivery.clock.sleep(backoff)
            delivery.set_attempt(delivery.attempt + 1)

    def _backoff(self, delivery: Delivery, error: Exception) -> float:
        """Return the backoff to spend here; raises `RetryAfter` or `Reject` if there is none."""
        reason = f"{type(error).__name__}: {text_of(error)}"
        if isinstance(error, self.give_up_on) or not isinstance(error, self.retry_on):
            raise Reject(f"not retried: {reason}") from error
        if delivery.attempt >= self.attempts:
            raise self._retries_exhausted(delivery, reason) from error
        backoff = self.delay(delivery.attempt)
        log.info(
            "attempt %d of %d failed for message %s from %s (group %s): %s; retrying in %.2f s",
            delivery.attempt,
            self.attempts,
            delivery.message.id,
            delivery.topic,
            delivery.group,
            reason,
            backoff,
        )
        if backoff > self.in_place:
            raise RetryAfter(backoff, reason) from error
        return backoff

    def _retries_exhausted(self, delivery: Delivery, reason: str) -> Exception:
        return self._exhausted(f"retries exhausted after {delivery.attempt} attempts: {reason}")

    def _exhausted(self, reason: str) -> Exception:
        return StopLane(reason) if self.exhausted == "stop" else Exhausted(reason)


@dataclass(frozen=True, slots=True)
class NoRetry:
    """Middleware for `retry=None`: the first failure of a handler rejects the delivery.

    A `RetryAfter` that the handler raises is followed nevertheless. A delivery whose process
    crashed is redelivered.
    """

    passthrough: ClassVar[bool] = True
    """See `Passthrough`."""

    def __call__(self, handler: Handler) -> Handler:
        async def once(delivery: Delivery) -> None:
            try:
                await handler(delivery)
            except (Reject, RetryAfter, StopLane):
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {text_of(error)}"
                raise Exhausted(f"failed without a retry: {reason}") from error

        return once


async def _unmark(store: Store, key: str) -> None:
    try:
        await store.unmark(key)
    except BaseException as raw:
        error = fault(raw, "the store")
        log.warning(
            "removing the start mark of %s failed: %s; it counts as a crashed attempt", key, error
        )
