"""`Topic`: a name, and optionally what travels on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from types import UnionType
from typing import Any, Generic

from typing_extensions import TypeVar

from .errors import ConfigurationError
from .names import check_topic

T = TypeVar("T", default=Any)


# No slots: before Python 3.12 `Topic[str]("orders")` cannot be called on a frozen class with slots.
@dataclass(frozen=True)
class Topic(Generic[T]):
    """A topic that knows its payload type; accepted wherever a topic name is.

    Publishing another type to it is a type error and, at run time, a `ConfigurationError`. For a
    union, tell the type checker: `Topic[Placed | Cancelled]("orders", Placed | Cancelled)`.
    `partitions` (lanes of order that the members of a group share), `retention` and
    `retention_bytes` (how long, and how much, the topic keeps) apply when anymq creates the topic;
    None leaves the choice to the adapter (its URL options) and the broker. The number of
    partitions of a topic never changes: asking for another is a `ConfigurationError`.
    """

    name: str
    payload: type[T] | UnionType | None = None
    partitions: int | None = None
    retention: timedelta | None = None
    retention_bytes: int | None = None

    def __post_init__(self) -> None:
        check_topic(self.name)
        if self.partitions is not None and self.partitions < 1:
            raise ConfigurationError(f"topic {self.name!r}: partitions must be at least 1")
        if self.retention is not None and self.retention <= timedelta(0):
            raise ConfigurationError(f"topic {self.name!r}: retention must be positive")
        if self.retention_bytes is not None and self.retention_bytes < 1:
            raise ConfigurationError(f"topic {self.name!r}: retention_bytes must be positive")


def as_topic(topic: str | Topic[T]) -> Topic[T]:
    """Return `topic` as a `Topic`; raises `ConfigurationError` for a bad name."""
    return topic if isinstance(topic, Topic) else Topic(topic)


def dead_letter_topic(topic: str, group: str | None) -> str:
    """Return the name of the dead-letter topic of `group` on `topic`."""
    return f"{topic}.{group or 'broadcast'}.dlq"
