"""Statistics of topics and groups: the same fields on every backend, None where unknown."""

from __future__ import annotations

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
    """The member that reads it now; only in a `GroupInfo`."""
    lag: int | None = None
    """Messages behind the group's place; only in a `GroupInfo`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic. `messages` and `bytes` are what it keeps now, `oldest` the age of the first."""

    native: str
    name: str = ""
    """The topic; a driver leaves it to the core."""
    partitions: tuple[PartitionInfo, ...]
    messages: int | None = None
    bytes: int | None = None
    oldest: datetime | None = None
    delayed: int | None = None
    """Messages published with a delay that is not over."""
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
    """A message that has been tried more than once and is not settled."""

    position: str
    attempts: int
    member: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """A group.

    `lag` counts the messages it has yet to settle: undelivered, in flight and waiting for a retry;
    `lag_seconds` is the age of the oldest of them, also while it is in a handler or waits for a
    retry: 0 if there is none, None on RabbitMQ, which cannot know. Of several that wait for a
    retry, Kafka and NATS look at the one that failed first. `in_flight` are in members' hands,
    `waiting` wait for a retry. `oldest_pending` is the seconds since the
    oldest of what is in flight was delivered (0 if nothing is). `poison` lists messages that were
    tried more than once, worst first, at most 100.
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
