"""`SubscriptionHealth`: what a subscription knows of its own state, for probes and metrics."""

from __future__ import annotations

from dataclasses import dataclass

STUCK_AFTER = 60.0
"""Seconds for which a cancelled handler may go on before it counts as stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningHandlers:
    """The handlers that run now. Times are sampled, so they may be 5 s short."""

    count: int = 0
    oldest: float = 0.0
    """Seconds for which the oldest handler has been running; 0 if none runs."""
    overdue: int = 0
    """Handlers that have been running for longer than their `Deadline`."""
    stuck: int = 0
    """Handlers that have ignored their cancellation for `STUCK_AFTER` seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionHealth:
    """The state of one subscription at one moment. It holds no key, id or body of a message."""

    topic: str
    group: str | None
    member: str
    has_source: bool
    """Whether it reads from the broker: open, and the last read succeeded."""
    closed: bool
    """Whether it drains or has been closed."""
    failed: bool
    """Whether it has stopped reading for good, which only a restart can mend."""
    error: str | None
    """The error of the last read; None while reads succeed."""
    error_seconds: float | None
    """Seconds since the first of the failed reads; None while reads succeed."""
    stalled_seconds: float | None
    """Seconds since the broker had messages that it did not deliver; None while it delivers."""
    paused: bool
    stopped_keys: int
    """The keys of an ordered subscription that are stopped until they are restarted."""
    in_flight: int
    """Deliveries held here whose settlement has not been sent yet."""
    buffered: int
    """Deliveries among them that wait for a handler."""
    consumed: int
    """Deliveries so far that were dispatched to a handler, or to the task that iterates."""
    settled: int
    """Deliveries so far that are no longer held: settled, or lost to another member."""
    handlers: RunningHandlers
    deadline: float | None
    """Seconds that a handler may take; None without a `Deadline`."""
