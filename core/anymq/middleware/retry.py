"""Try a failed delivery again: in place when the wait is short, durably when it is long."""

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

LONGEST_SPAN = 366 * 24 * 3600.0

MARK = 24 * 3600.0
"""Seconds for which a start without an end is remembered."""


class Exhausted(Reject):
    """`Retry` gave up: raised where `Reject` speaks of the message, this of what handles it."""


class RetryOptions(TypedDict, total=False):
    """What `Retry.within` takes beside the time; the meanings are those of `Retry`."""

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
    """Retry a handler that raises, up to `attempts` in all, then reject the delivery.

    By default that takes seven minutes on average and fourteen at most, so that a restart of what
    the handler needs fills no dead letters. `Retry.within` makes a schedule for another time.

    The wait before attempt n + 1 is random between 0 and `min(cap, initial * factor ** (n - 1))`
    seconds (exponential backoff with full jitter; `jitter=False` takes the upper end). A wait of at
    most `in_place` seconds is slept through with the slot held; a longer one is a durable
    redelivery that holds no slot and survives a crash (in ordered groups its key waits; broadcast
    subscribers keep it in memory). Errors outside `retry_on`, or in `give_up_on`, are not retried.

    `attempts` counts every delivery, also those whose process crashed where the backend can count
    them: a message that kills its consumers ends up in the dead letters as well. Where it cannot
    (Kafka), name a `marker`, a store of `Idempotency`'s kind that all members share: every start is
    noted there, and the note removed when it has come to any end but the death of the process. It
    costs two calls of the store a delivery.

    `exhausted="stop"` does not reject: it stops the lane of the message's key until
    `Subscription.restart`, for ordered subscriptions that must not skip a message.
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
        """Return a `Retry` that goes on for about `span` (seconds, or a timedelta).

        On average `span` passes from the first failure to the last attempt, beside what the
        attempts themselves take; with jitter it may be anything up to twice that. No wait is longer
        than a fifth of it. `options` are those of `Retry`, without `attempts` and `cap`.
        """
        seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
        if not 0 < seconds <= LONGEST_SPAN:
            raise ConfigurationError(
                f"Retry.within: not {span!r}, but more than 0 and up to a year"
            )
        retry = cls(**options)
        total = seconds * (2 if retry.jitter else 1)
        cap = total / 10
        retry = replace(retry, cap=cap, initial=min(retry.initial or cap, cap))
        count, sum = 0, 0.0
        while sum < total:
            count += 1
            sum += retry._longest(count)
        # The last wait reaches beyond the span: all are shortened, so that they add up to it.
        part = total / sum
        return replace(retry, attempts=count + 1, cap=cap * part, initial=retry.initial * part)

    @property
    def waits(self) -> tuple[float, ...]:
        """The longest waits between the attempts, in seconds; with jitter half of it on average."""
        return tuple(self._longest(attempt) for attempt in range(1, self.attempts))

    @property
    def stores(self) -> tuple[str | Store, ...]:
        """See `stores_of`."""
        return () if self.marker is None else (self.marker,)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after the failure of `attempt`."""
        longest = self._longest(attempt)
        return random.uniform(0, longest) if self.jitter else longest

    def _longest(self, attempt: int) -> float:
        return min(self.cap, self.initial * self.factor ** min(attempt - 1, 64))

    def __call__(self, handler: Handler) -> Handler:
        async def retry(delivery: Delivery) -> None:
            if self.marker is None or delivery.group is None:
                return await self._attempts(handler, delivery)
            marker = self.marker
            key = f"start{key_of(delivery, *delivery.identity)}"
            store = await with_retries(lambda: delivery.stores.get(marker))
            starts = await with_retries(lambda: store.mark(key, MARK))
            if starts > delivery.attempt:
                delivery.set_attempt(starts)
            try:
                await self._attempts(handler, delivery)
            finally:
                await asyncio.shield(_unmark(store, key))

        return retry

    async def _attempts(self, handler: Handler, delivery: Delivery) -> None:
        """Handle `delivery`, again and again while the waits are short."""
        if delivery.attempt > self.attempts:
            raise self._exhausted(
                f"gave up: attempt {delivery.attempt} of {self.attempts}; "
                "the earlier ones never came to an end"
            )
        while True:
            try:
                return await handler(delivery)
            except (Reject, StopLane):
                raise
            except RetryAfter as signal:
                if signal.counted and delivery.attempt >= self.attempts:
                    raise self._gave_up(delivery, signal.reason) from signal
                raise
            except Exception as error:
                wait = self._next(delivery, error)
            await delivery.clock.sleep(wait)
            delivery.set_attempt(delivery.attempt + 1)

    def _next(self, delivery: Delivery, error: Exception) -> float:
        """Return how long to wait in place; raises what ends this delivery otherwise."""
        reason = f"{type(error).__name__}: {text_of(error)}"
        if isinstance(error, self.give_up_on) or not isinstance(error, self.retry_on):
            raise Reject(f"not retried: {reason}") from error
        if delivery.attempt >= self.attempts:
            raise self._gave_up(delivery, reason) from error
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

    def _gave_up(self, delivery: Delivery, reason: str) -> Exception:
        return self._exhausted(f"gave up after {delivery.attempt} attempts: {reason}")

    def _exhausted(self, reason: str) -> Exception:
        return StopLane(reason) if self.exhausted == "stop" else Exhausted(reason)


@dataclass(frozen=True, slots=True)
class NoRetry:
    """What `retry=None` stands for: the first failure of a handler is the last.

    A `RetryAfter` that it raises by itself is done as it says; a delivery whose process died is
    handled again.
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
                raise Exhausted(f"failed, and has no retry: {reason}") from error

        return once


async def _unmark(store: Store, key: str) -> None:
    try:
        await store.unmark(key)
    except BaseException as raw:
        error = fault(raw, "the store")
        # The mark then counts as a start that never ended: one attempt less, nothing lost.
        log.warning("removing the mark of %s failed: %s", key, error)
