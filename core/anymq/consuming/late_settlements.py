"""`LateSettlements`: messages settled in this process of which the broker may not have heard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import INFO

from ..logs import logger
from .delivery import Delivery

log = logger("anymq.consumer")

MAX_NOTES = 10_000
"""The most notes that a subscription keeps."""
NOTE_SECONDS = 600.0
"""Seconds for which a note is kept."""
DONE = 0
"""The value instead of an attempt: the message was acknowledged or dead-lettered."""

Key = tuple[str, str | None, str, float | None]


class LateSettlements:
    """The settlements of one subscription that were, or may have been, stale.

    The lease, assignment or channel of these deliveries had ended, so the broker delivers the
    messages again, perhaps to this subscription. Then a message that is done is acked at once,
    without its handler, and a message that failed shows the attempt that is due.

    A message is identified by its position, source, id and time together, so another message at
    the same position, or a copy that was written there again, is not taken for it. A note is used
    once. At most `MAX_NOTES` are kept, each for `NOTE_SECONDS`.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.notes: dict[str, tuple[Key, int, float]] = {}
        """By position: the message, its next attempt (or `DONE`), and the expiry of the note."""

    def note(self, deliveries: Iterable[Delivery], attempt: int = DONE) -> None:
        """Note that `deliveries` are done, or that `attempt` is their next."""
        now, notes = self._monotonic(), self.notes
        for delivery in deliveries:
            key = _key(delivery)
            before = notes.pop(key[0], None)
            done = before is not None and before[:2] == (key, DONE)
            notes[key[0]] = key, DONE if done else attempt, now + NOTE_SECONDS
        while notes and (len(notes) > MAX_NOTES or notes[next(iter(notes))][2] < now):
            del notes[next(iter(notes))]

    def drop_settled(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Return the deliveries to handle, and ack the others."""
        return [delivery for delivery in deliveries if not self.settles(delivery)]

    def settles(self, delivery: Delivery) -> bool:
        """Ack `delivery` if it is done, and return True. If it failed, set its attempt."""
        found = self.notes.get(delivery.received.position)
        if found is None or not delivery.may_be_again:
            return False
        key, attempt, until = found
        if key != _key(delivery) or until < self._monotonic():
            return False
        del self.notes[key[0]]
        if attempt:
            delivery.set_attempt(max(attempt, delivery.attempt))
            return False
        log.seldom(
            ("finished", delivery.topic, delivery.group),
            INFO,
            "message %s from %s (group %s) was redelivered after it had been settled here: it is "
            "acked and not handled again",
            delivery.message.id,
            delivery.topic,
            delivery.group,
        )
        delivery.completed()
        return True


def _key(delivery: Delivery) -> Key:
    received = delivery.received
    return (received.position, *delivery.identity, received.time)
