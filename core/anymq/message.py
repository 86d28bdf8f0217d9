"""`Message` and `Receipt`: a message as applications see it, and the result of publishing it."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import UnionType
from typing import Any, NamedTuple, TypeVar, overload

from .driver.records import NO_HEADERS, Received
from .payload import check_annotation, decode_payload

T = TypeVar("T")


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

    # `Message.type` hides the builtin in the body of the class.
    @overload
    def decode(self, kind: builtins.type[T]) -> T: ...
    @overload
    def decode(self, kind: UnionType) -> Any: ...

    def decode(self, kind: Any) -> Any:
        """Return the body as `kind`, as a handler gets it whose parameter is annotated with `kind`.

        That is `bytes`, `str`, or a type of JSON data: a pydantic model, a dataclass, a TypedDict,
        `dict`, a union. Of a union of classes, the message's type selects one. Raises `Reject` with
        the fields and their errors if the body does not validate: in a handler, that moves the
        message to the dead letters. Raises `ConfigurationError` if `kind` is no payload type.
        """
        check_annotation(kind)
        return decode_payload(self, kind)


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
