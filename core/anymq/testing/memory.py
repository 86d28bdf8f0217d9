"""Queries of `TestBroker` on the memory backend: the messages of a topic, and pending work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..driver.records import Received
from ..message import Message
from ..operating.dead_letters import mark_of, marks_in
from ..operating.letter import Letter, letter_of
from ..operating.settlement_log import settlement_log_topic
from ..operating.topic_access import Stored
from ..wire.cloudevents import decode
from .clock import VirtualClock

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consuming.subscription import Subscription


def read(broker: Broker, topic: str, native: str) -> list[Message] | None:
    """Return the messages of `topic`, whose native name is `native`; None if it does not exist."""
    found = _stored(broker, topic, native)
    return None if found is None else [stored.message for stored in found]


def letters(
    broker: Broker, topic: str, group: str | None, stored_in: str, native: str
) -> list[Letter]:
    """Return the dead letters of `group` on `topic`, which are in the topic `stored_in`."""
    log = settlement_log_topic(native)
    settled = {
        mark for note in _stored(broker, log, log) or () for mark in marks_in(note.message.body)
    }
    found = [
        letter_of(stored.message, position=stored.position, topic=topic, group=group)
        for stored in _stored(broker, stored_in, native) or ()
        if mark_of(stored) not in settled
    ]
    return [letter for letter in found if (letter.topic, letter.group) == (topic, group)]


def _stored(broker: Broker, topic: str, native: str) -> list[Stored] | None:
    log = broker.native.logs.get(native)
    if log is None:
        return None
    found: list[Stored] = []
    for item in log.records:
        record, at = item.record, str(item.sequence)
        received = Received(record.body, record.headers, position=at, token=None, key=record.key)
        message = decode(received, broker.driver.binding, topic)
        found.append(Stored(position=at, partition=0, message=message))
    return found


def is_busy(broker: Broker, subscriptions: Sequence[Subscription], clock: VirtualClock) -> bool:
    """Whether messages are due, or handlers run that do not wait for the clock."""
    paused = {f"{item.topic}.{item.group}": item.buffered for item in subscriptions if item.paused}
    now = clock.now()
    running = -clock.sleeping - sum(paused.values())
    for log in broker.native.logs.values():
        for name, group in log.groups.items():
            if not group.members:
                continue
            fetching = name not in paused
            if fetching and group.cursor < len(log.records):
                return True
            running += sum(
                delivery.owner is not None or (fetching and delivery.due <= now)
                for delivery in group.pending.values()
            )
    return running > 0
