"""Statistics of topics and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from anymq.driver import (
    Clock,
    GroupInfo,
    MemberInfo,
    PartitionInfo,
    PartitionState,
    PoisonInfo,
    TopicInfo,
    TopicSpec,
    moment,
    ordered,
)

from .space.group import Group
from .space.log import TopicLog


def topic_info(topic: TopicSpec, log: TopicLog) -> TopicInfo:
    """Describe a topic."""
    records = log.records
    return TopicInfo(
        native=topic.native,
        partitions=tuple(_partition_info(log, number) for number in range(log.partitions)),
        messages=len(records),
        bytes=log.bytes,
        oldest=moment(records[0].time) if records else None,
        delayed=log.delayed,
        retention=log.retention,
        retention_bytes=log.retention_bytes,
    )


def _partition_info(log: TopicLog, number: int) -> PartitionInfo:
    records = log.partition(number)
    return PartitionInfo(
        number=number,
        messages=len(records),
        first=str(records[0].sequence) if records else None,
        last=str(records[-1].sequence) if records else None,
    )


def group_info(log: TopicLog, group: Group, clock: Clock) -> GroupInfo:
    """Describe an unordered group."""
    now = clock.monotonic()
    undelivered = log.records[group.cursor :]
    pending = group.pending.values()
    times = [stored.time for stored in undelivered[:1]]
    times += [delivery.time for delivery in pending]
    in_flight = [item for item in pending if item.owner is not None and item.due > now]
    by_member = Counter(delivery.owner for delivery in in_flight)
    return GroupInfo(
        native=group.name,
        ordered=False,
        members=tuple(
            MemberInfo(name=name, in_flight=by_member[name]) for name in sorted(group.members)
        ),
        lag=len(undelivered) + len(pending),
        lag_seconds=max((clock.now() - time for time in times), default=0.0),
        in_flight=len(in_flight),
        waiting=len(pending) - len(in_flight),
        oldest_pending=max((now - delivery.taken for delivery in in_flight), default=0.0),
        poison=tuple(
            PoisonInfo(
                position=delivery.position, attempts=delivery.attempts, member=delivery.owner
            )
            for delivery in pending
            if delivery.attempts > 1
        ),
    )


def ordered_info(
    topic: TopicSpec, log: TopicLog, group: Group, states: Mapping[int, PartitionState], now: float
) -> GroupInfo:
    """Describe an ordered group."""
    lags: dict[int, int | None] = {}
    oldest: list[float] = []
    for number, state in states.items():
        following = log.partition_after(number, int(state.cursor), len(log.records))
        unsettled = [stored for stored in following if str(stored.sequence) not in state.done]
        oldest += [stored.time for stored in unsettled[:1]]
        lags[number] = len(unsettled)
    return ordered.describe(
        topic,
        group.name,
        states=states,
        lags=lags,
        lag_seconds=max((now - time for time in oldest), default=0.0),
        members=[MemberInfo(name=name) for name in group.members],
    )
