"""What is known of topics and groups."""

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
from .space.log import Log

_WORST = 100


def topic_info(topic: TopicSpec, log: Log) -> TopicInfo:
    """Describe a topic."""
    records = log.records
    return TopicInfo(
        name=topic.name,
        native=topic.native,
        partitions=tuple(_partition(log, number) for number in range(log.partitions)),
        messages=len(records),
        bytes=log.bytes,
        oldest=moment(records[0].time) if records else None,
        delayed=log.delayed,
        retention=log.retention,
        retention_bytes=log.retention_bytes,
    )


def _partition(log: Log, number: int) -> PartitionInfo:
    lane = log.lane(number)
    return PartitionInfo(
        number=number,
        messages=len(lane),
        first=str(lane[0].sequence) if lane else None,
        last=str(lane[-1].sequence) if lane else None,
    )


def group_info(topic: TopicSpec, log: Log, group: Group, clock: Clock) -> GroupInfo:
    """Describe a group that is not ordered."""
    now = clock.monotonic()
    undelivered = log.records[group.cursor :]
    times = [stored.time for stored in undelivered[:1]]
    times += [out.stored.time for out in group.out.values()]
    held = [out for out in group.out.values() if out.owner is not None and out.due > now]
    holding = Counter(out.owner for out in held)
    tried = sorted((out for out in group.out.values() if out.tries > 1), key=lambda out: -out.tries)
    return GroupInfo(
        topic=topic.name,
        group=group.name.removeprefix(f"{topic.name}."),
        native=group.name,
        ordered=group.ordered,
        members=tuple(
            MemberInfo(name=name, in_flight=holding[name]) for name in sorted(group.members)
        ),
        lag=len(undelivered) + len(group.out),
        lag_seconds=max((clock.now() - time for time in times), default=0.0),
        in_flight=len(held),
        waiting=len(group.out) - len(held),
        oldest_pending=max((now - out.taken for out in held), default=0.0),
        poison=tuple(
            PoisonInfo(position=str(out.stored.sequence), attempts=out.tries, member=out.owner)
            for out in tried[:_WORST]
        ),
    )


def ordered_info(
    topic: TopicSpec, log: Log, group: Group, states: Mapping[int, PartitionState], now: float
) -> GroupInfo:
    """Describe an ordered group."""
    lags: dict[int, int | None] = {}
    oldest: list[float] = []
    for number, state in states.items():
        behind = log.lane_after(number, int(state.cursor), len(log.records))
        left = [stored for stored in behind if str(stored.sequence) not in state.done]
        oldest += [stored.time for stored in left[:1]]
        lags[number] = len(left)
    return ordered.describe(
        topic,
        group.name,
        states=states,
        lags=lags,
        lag_seconds=max((now - time for time in oldest), default=0.0),
        members=[MemberInfo(name=name) for name in group.members],
    )
