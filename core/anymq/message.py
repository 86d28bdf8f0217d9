"""`Message` and `Receipt`: a message as applications see it, and the result of publishing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from .driver.records import NO_HEADERS, Received


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An immutable message.

    `id` is the logical id, which retries, dead-lettering and redrive preserve. `time` is the time
    of the first publish (None on a foreign message without one). `correlation_id` is the id of the
    flow to which the message belongs, `causation_id` the id of the message that caused it.
    """

    id: str
    topic: str
    body: bytes = field(repr=False)
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    content_type: str | None = None
    type: str | None = None
    source: str | None = None
    time: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    original: Received | None = field(default=None, repr=False, compare=False)
    """Internal. The received record, from which a copy takes its bytes unchanged."""


class Receipt(NamedTuple):
    """The confirmation that the broker has stored a message durably.

    `position` is the message's position in the broker's notation (`"3:1042"` for a Kafka partition
    and offset, an entry id for Redis, a sequence for NATS and SQLite); None if the broker does not
    report one.

    `duplicate` is True if the broker kept an earlier message of the same source and id instead, at
    `position`. That is the message of another publish with this id, or of an earlier try of this
    publish whose confirmation was lost. A broker without deduplication (the capability
    `publish_dedup`) stores the message again, and `duplicate` is always False.
    """

    id: str
    topic: str
    position: str | None = None
    duplicate: bool = False
