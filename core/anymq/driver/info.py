"""Statistics of topics and groups: the same fields on every backend, None where unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MOST_POISON = 100
"""The most messages that `GroupInfo.poison` lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """One partition. `first` and `last` are the positions of its oldest and youngest message."""

    number: int
    messages: int | None = None
    first: str | None = None
    last: str | None = None
    owner: str | None = None
    """The member that owns it now; only in a `GroupInfo`."""
    lag: int | None = None
    """Messages that the group has yet to settle; only in a `GroupInfo`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic. `messages` and `bytes` are retained now; `oldest` is the time of the first."""

    native: str
    name: str = ""
    """The topic; a driver leaves it to the core."""
    partitions: tuple[PartitionInfo, ...]
    messages: int | None = None
    bytes: int | None = None
    oldest: datetime | None = None
    delayed: int | None = None
    """Delayed messages that are not due."""
    retention: float | None = None
    """Seconds a message is kept; None where there is no bound or it is not known."""
    retention_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberInfo:
    """A live member of a group, as the broker names it."""

    name: str
    partitions: tuple[int, ...] | None = None
    in_flight: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonInfo:
    """An unsettled message with more than one attempt."""

    position: str
    attempts: int
    member: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """A group.

    `lag` counts the messages that the group has yet to settle: undelivered, in flight and waiting
    for a retry. `lag_seconds` is the age of the oldest of them: 0 if there is none, None on
    RabbitMQ, which cannot know. Of several retries, Kafka and NATS look at the one that failed
    first. `in_flight` counts deliveries that members have not settled, `waiting` the retries that
    are not due. `oldest_pending` is the seconds since the oldest delivery in flight (0 if there is
    none). `poison` lists messages with more than one attempt, the most attempts first, at most
    100.
    """

    native: str
    topic: str = ""
    """The topic; a driver leaves it to the core."""
    group: str = ""
    """The group; a driver leaves it to the core."""
    ordered: bool | None = None
    members: tuple[MemberInfo, ...] | None = None
    partitions: tuple[PartitionInfo, ...] | None = None
    lag: int | None = None
    lag_seconds: float | None = None
    in_flight: int | None = None
    waiting: int | None = None
    oldest_pending: float | None = None
    poison: tuple[PoisonInfo, ...] | None = None


def worst(poison: Sequence[PoisonInfo]) -> tuple[PoisonInfo, ...]:
    """Return the `MOST_POISON` messages with the most attempts, in that order."""
    return tuple(sorted(poison, key=lambda item: -item.attempts)[:MOST_POISON])
