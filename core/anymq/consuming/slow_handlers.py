"""`SlowHandlers`: reports handlers that take far longer than usual for one message."""

from __future__ import annotations

from collections.abc import Iterable
from logging import WARNING

from ..logs import logger
from .delivery import Delivery

log = logger("anymq.consumer")

SAMPLE_SECONDS = 5.0
"""Seconds between two samples."""
TIMES_USUAL = 20
"""The multiple of its usual time that a handler may take before it is reported."""
MIN_LIMIT = 30.0
"""Seconds that a handler may take in any case."""
UNKNOWN_LIMIT = 300.0
"""Seconds that a handler may take while its usual time is unknown."""
MIN_MESSAGES = 10
"""Finished messages from which the usual time is known."""
DECAY = 0.98
"""The weight that earlier messages keep at each sample."""


class SlowHandlers:
    """Samples of the deliveries in handlers, without any work for each message.

    The usual time is the time for which handlers were busy, divided by the messages they finished.
    """

    def __init__(self, topic: str, group: str | None) -> None:
        self._topic = topic
        self._group = group
        self._since: dict[Delivery, float] = {}
        self._next: dict[Delivery, float] = {}
        self._busy = 0.0
        self._done = 0.0
        self._looked: float | None = None

    def look(self, running: Iterable[Delivery], finished: int, now: float) -> None:
        """Sample the `running` deliveries; `finished` messages ended since the last sample."""
        self._since = {delivery: self._since.get(delivery, now) for delivery in running}
        self._next = {d: at for d, at in self._next.items() if d in self._since}
        passed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        # A reported handler does not count towards the usual time.
        busy = len(self._since) - len(self._next)
        self._busy = self._busy * DECAY + busy * passed
        self._done = self._done * DECAY + finished
        for delivery, since in self._since.items():
            if now - since >= self._next.get(delivery, self._limit):
                self._next[delivery] = 2 * (now - since)
                self._report(delivery, now - since)

    def restart(self, delivery: Delivery) -> None:
        """Measure `delivery` from now on: another attempt of it starts."""
        self._since.pop(delivery, None)
        self._next.pop(delivery, None)

    def running_for(self, limit: float) -> list[Delivery]:
        """Return the deliveries that had been running for `limit` seconds at the last sample."""
        now = self._looked or 0.0
        return [delivery for delivery, since in self._since.items() if now - since >= limit]

    def seconds(self, delivery: Delivery, now: float) -> float:
        """Return the seconds since `delivery` was first sampled; 0 if it was not yet."""
        return now - self._since.get(delivery, now)

    @property
    def usual(self) -> float | None:
        """The usual seconds for a message; None if not known yet."""
        return self._busy / self._done if self._done >= MIN_MESSAGES else None

    @property
    def _limit(self) -> float:
        return UNKNOWN_LIMIT if self.usual is None else max(MIN_LIMIT, TIMES_USUAL * self.usual)

    def _report(self, delivery: Delivery, seconds: float) -> None:
        usual = self.usual
        log.seldom(
            ("overdue", self._topic, self._group),
            WARNING,
            "handler of message %s from %s (group %s, attempt %d) has been running for %.0f s%s",
            delivery.message.id,
            self._topic,
            self._group,
            delivery.attempt,
            seconds,
            "" if usual is None else f"; usually it takes {usual:.2g} s",
        )
