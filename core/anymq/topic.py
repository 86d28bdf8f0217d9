"""`Topic`: the name of a topic, its payload type, and its settings at creation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from types import UnionType
from typing import Any, Generic

from typing_extensions import TypeVar

from .errors import ConfigurationError
from .names import check_topic

T = TypeVar("T", default=Any)

DEAD_LETTERS = ".dlq"
"""The end of the name of a dead-letter topic."""
BROADCAST = "broadcast"
"""The name that stands for broadcast subscriptions where groups are named."""


# No slots: before Python 3.12 `Topic[str]("orders")` cannot be called on a frozen class with slots.
@dataclass(frozen=True)
class Topic(Generic[T]):
    """A topic with a payload type; accepted wherever a topic name is.

    Publishing another type to it is a type error and, at run time, a `ConfigurationError`. For a
    union, write the type for the type checker as well:
    `Topic[Placed | Cancelled]("orders", Placed | Cancelled)`.

    `partitions` is the number of partitions, which the members of an ordered group share.
    `retention` and `retention_bytes` bound the age and the size of retained messages. They apply
    when anymq creates the topic; None leaves the choice to the adapter's URL options and the
    broker. The number of partitions of a topic never changes; another number is a
    `ConfigurationError`.
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
    return f"{topic}.{group or BROADCAST}{DEAD_LETTERS}"


def dead_letter_origin(name: str) -> tuple[str, str | None] | None:
    """Return topic and group (None: broadcast) of a dead-letter topic; None for another topic."""
    topic, _, group = name.removesuffix(DEAD_LETTERS).rpartition(".")
    found = topic, None if group == BROADCAST else group
    return found if topic and name == dead_letter_topic(*found) else None
