"""`Finished`: what handlers of this process have finished while the broker could not be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import INFO
from typing import TYPE_CHECKING

from ..logs import logger

if TYPE_CHECKING:
    from .delivery import Delivery

log = logger("anymq.consumer")

MOST = 10_000
KEPT = 600.0
"""Seconds for which a note is kept."""
DONE = 0

Key = tuple[str, str | None, str, float | None]


class Finished:
    """Notes of deliveries whose settlement came too late, or may have: by one subscription.

    Their lease, assignment or channel had gone, so the broker delivers them again: perhaps here.
    Then what is done is acked at once, without its handler, and what has failed shows the attempt
    that is due. A message is known by its place in the log, its source, its id and its time
    together: another one at the same place, or a copy that was put there again, is not taken for
    it. A note is used once. There are `MOST` of them at a time, each for `KEPT` seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.notes: dict[str, tuple[Key, int, float]] = {}
        """By position: whose it is, the attempt that is due (or `DONE`), and how long it holds."""

    def note(self, deliveries: Iterable[Delivery], attempt: int = DONE) -> None:
        """Note that these are done, or that `attempt` is their next."""
        now, notes = self._monotonic(), self.notes
        for delivery in deliveries:
            key = _key(delivery)
            before = notes.pop(key[0], None)
            done = before is not None and before[:2] == (key, DONE)
            notes[key[0]] = key, DONE if done else attempt, now + KEPT
        while notes and (len(notes) > MOST or notes[next(iter(notes))][2] < now):
            del notes[next(iter(notes))]

    def sift(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Return those that are to be handled; ack the others."""
        return [delivery for delivery in deliveries if not self.settles(delivery)]

    def settles(self, delivery: Delivery) -> bool:
        """Ack `delivery` if it is done already; show the attempt that is due if it has failed."""
        found = self.notes.get(delivery.received.position)
        if found is None or not delivery.may_be_again:
            return False
        key, attempt, until = found
        if key != _key(delivery) or until < self._monotonic():
            return False
        del self.notes[key[0]]
        if attempt:
            delivery.count_from(max(attempt, delivery.attempt))
            return False
        log.seldom(
            ("finished", delivery.topic, delivery.group),
            INFO,
            "%s of %s, group %s, was finished here when its lease had gone, and has come back: it "
            "is acked and not handled again",
            delivery.message.id,
            delivery.topic,
            delivery.group,
        )
        delivery.done()
        return True


def _key(delivery: Delivery) -> Key:
    received = delivery.received
    return (received.position, *delivery.identity, received.time)
