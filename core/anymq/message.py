"""`Message`: what travels, as applications see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from .driver.records import NO_HEADERS, Received


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An immutable message.

    `id` is the logical id: it stays the same over retries, dead-lettering and redrive.
    `time` is when the message was first published (None on a foreign message without one).
    `correlation_id` names the flow a message belongs to, `causation_id` the message that caused it.
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
    """The engine's: what it was decoded from, so that a copy keeps the bytes."""


class Receipt(NamedTuple):
    """The broker has the message durably.

    `position` is where the broker put it, in the broker's own words (`"3:1042"` for a Kafka
    partition and offset, an entry id for Redis, a sequence for NATS and SQLite), None where it
    does not say.

    `duplicate` says that the broker kept an earlier message of the same source and id instead of
    this one, at `position`: another publish with this id, or an earlier try of this very publish
    whose confirmation was lost. A broker that does not look for duplicates (the capability
    `publish_dedup`) stores the message again and never says so.
    """

    id: str
    topic: str
    position: str | None = None
    duplicate: bool = False
