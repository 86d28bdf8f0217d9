"""`Attempt`: one attempt of a handler at a message, as `TestBroker.deliveries` returns it."""

from __future__ import annotations

from ..consuming.delivery import Delivery, Verb
from ..message import Message


class Attempt:
    """One attempt of a handler at a message, and its outcome.

    Times are seconds of the delivery's clock: `VirtualClock`, or the time since 1970.
    """

    __slots__ = (
        "_delivery",
        "_verb",
        "delay",
        "duplicate",
        "ended",
        "error",
        "group",
        "message",
        "number",
        "reason",
        "started",
        "topic",
    )

    def __init__(self, delivery: Delivery, *, number: int, started: float, duplicate: bool) -> None:
        self._delivery = delivery
        self._verb: Verb | None = None
        self.message: Message = delivery.message
        self.topic: str = delivery.topic
        self.group: str | None = delivery.group
        self.number = number
        """The number of the attempt, 1 for the first; `Delivery.attempt`."""
        self.duplicate = duplicate
        """Whether it repeats a message that has been handled: see `TestBroker.duplicate_all`."""
        self.started = started
        self.ended: float | None = None
        """The time when the handler and its middleware returned; None while they run."""
        self.error: BaseException | None = None
        """What the handler, or the middleware inside of `Retry`, raised."""
        self.delay: float | None = None
        """The seconds until the next attempt, if the outcome is `nack`."""
        self.reason: str | None = None
        """The reason, if the outcome is `reject` or `stop`."""

    @property
    def outcome(self) -> Verb | None:
        """How it ended: `ack`, `nack`, `reject`, `release`, `stop`, or None if it has not.

        A retry within the process is a `nack` as well. `expired` means that the lease, or the
        assignment to this member, has ended before.
        """
        return self._verb or self._delivery.verb

    def settled(self, verb: Verb, *, delay: float | None = None, reason: str | None = None) -> None:
        """Internal. Note the outcome."""
        self._verb, self.delay, self.reason = verb, delay, reason

    def __repr__(self) -> str:
        parts = [f"attempt {self.number} at {self.message.id} of {self.topic} by {self.group}:"]
        parts.append(self.outcome or "running")
        if self.delay is not None:
            parts.append(f"for {self.delay:g} s")
        if self.reason is not None:
            parts.append(f"({self.reason})")
        if self.error is not None:
            parts.append(f"after {self.error!r}")
        return f"<{' '.join(parts)}>"
