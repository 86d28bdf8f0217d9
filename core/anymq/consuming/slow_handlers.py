"""`Overdue`: says which handlers have been at one message for far longer than usual."""

from __future__ import annotations

from collections.abc import Iterable
from logging import WARNING
from typing import TYPE_CHECKING

from ..logs import logger

if TYPE_CHECKING:
    from .delivery import Delivery

log = logger("anymq.consumer")

LOOK = 5.0
"""Seconds between two looks."""
TIMES = 20
"""How many times its usual time a handler may take before that is said."""
SHORTEST = 30.0
"""Seconds that it may take in any case."""
UNKNOWN = 300.0
"""Seconds that it may take as long as no usual time is known."""
ENOUGH = 10
"""Messages that make a usual time."""
FADE = 0.98
"""What is left of the weight of earlier messages with each look."""


class Overdue:
    """What handlers have been at, from look to look: nothing is noted of each message.

    The usual time is that for which handlers were busy, by the number of messages they finished.
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
        """Look at what is `running`; `finished` messages have been since the last look."""
        self._since = {delivery: self._since.get(delivery, now) for delivery in running}
        self._next = {d: at for d, at in self._next.items() if d in self._since}
        passed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        # What is overdue says nothing of the usual.
        busy = len(self._since) - len(self._next)
        self._busy = self._busy * FADE + busy * passed
        self._done = self._done * FADE + finished
        for delivery, since in self._since.items():
            if now - since >= self._next.get(delivery, self._limit):
                self._next[delivery] = 2 * (now - since)
                self._say(delivery, now - since)

    def restart(self, delivery: Delivery) -> None:
        """Another attempt of `delivery` begins: its time counts anew."""
        self._since.pop(delivery, None)
        self._next.pop(delivery, None)

    def over(self, limit: float) -> list[Delivery]:
        """Return what had been running for `limit` seconds at the last look."""
        now = self._looked or 0.0
        return [delivery for delivery, since in self._since.items() if now - since >= limit]

    @property
    def usual(self) -> float | None:
        """How long a message takes, in seconds; None if that is not known yet."""
        return self._busy / self._done if self._done >= ENOUGH else None

    @property
    def _limit(self) -> float:
        return UNKNOWN if self.usual is None else max(SHORTEST, TIMES * self.usual)

    def _say(self, delivery: Delivery, seconds: float) -> None:
        usual = self.usual
        log.seldom(
            ("overdue", self._topic, self._group),
            WARNING,
            "handling %s from %s (group %s, attempt %d) has not ended for %.0f s%s",
            delivery.message.id,
            self._topic,
            self._group,
            delivery.attempt,
            seconds,
            "" if usual is None else f"; usually it takes {usual:.2g} s",
        )
