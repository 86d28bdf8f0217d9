"""`SubscribeOptions`: the settings of one subscription, validated once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ..driver.specs import Start
from ..errors import ConfigurationError
from ..middleware.chain import Middleware
from ..names import check_group
from ..topic import Topic, dead_letter_topic

if TYPE_CHECKING:
    from .batch import Batch

MAX_NATIVE_NAME = 240
"""The most characters of a dead-letter topic's name: brokers allow 249."""

Unknown = Literal["reject", "ignore"]
"""The treatment of a message whose type no handler takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeOptions:
    """The settings of one subscription, as `Broker.subscribe` documents them.

    Raises `ConfigurationError` for a value that no backend accepts.
    """

    topic: Topic[Any]
    group: str | None
    start: Start | None = None
    concurrency: int = 1
    ordered: bool = False
    batch: Batch | None = None
    ack_deadline: float = 30.0
    prefetch: int | None = None
    prefetch_bytes: int | None = None
    auto_extend: bool = True
    middleware: Sequence[Middleware] | None = None
    unknown: Unknown = "reject"
    drain_timeout: float = 20.0

    def __post_init__(self) -> None:
        if self.group is not None:
            check_group(self.group)
        if len(dead_letter_topic(self.topic.name, self.group)) > MAX_NATIVE_NAME:
            raise ConfigurationError(
                f"topic {self.topic.name!r} and group {self.group!r} are too long together"
            )
        if self.ack_deadline <= 0:
            raise ConfigurationError("ack_deadline must be positive")
        for name in ("concurrency", "prefetch", "prefetch_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} must be at least 1")
        if self.ordered and not self.auto_extend:
            raise ConfigurationError(
                "ordered=True needs auto_extend=True: leave auto_extend at its default"
            )
        if self.unknown not in ("reject", "ignore"):
            raise ConfigurationError("unknown is 'reject' or 'ignore'")
        if self.start is not None:
            check_start(self.start)

    @property
    def first(self) -> Start:
        """The start position of a new group, or of a broadcast subscription."""
        if self.start is not None:
            return self.start
        return "earliest" if self.group is not None else "latest"

    @property
    def batch_size(self) -> int:
        """The most messages of one call of the handler."""
        return 1 if self.batch is None else self.batch.size

    @property
    def workers(self) -> int:
        """The number of messages that handlers work on at the same time."""
        return self.concurrency * self.batch_size


def check_start(start: Start) -> None:
    """Raise `ConfigurationError` for a start position that no backend takes."""
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigurationError(f"start needs a time zone: {start!r}")
    elif not isinstance(start, str) or not start:
        raise ConfigurationError(
            f"start is 'earliest', 'latest', a datetime or a position, not {start!r}"
        )
