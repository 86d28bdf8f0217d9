"""`GroupInfo` of an ordered group: the same from the same states, on every backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..info import GroupInfo, MemberInfo, PartitionInfo, PoisonInfo, worst
from ..specs import TopicSpec
from .inspect import PartitionState


def describe(
    topic: TopicSpec,
    native_group: str,
    *,
    states: Mapping[int, PartitionState],
    lags: Mapping[int, int | None],
    lag_seconds: float | None,
    members: Iterable[MemberInfo],
) -> GroupInfo:
    """Describe an ordered group.

    The adapter says what only the broker knows: the `lags` by partition, the age of the oldest
    record that is not done, and the `members` that are present, with their hosts. A
    member that owns a partition is listed whether it is among them or not. What failed stays in
    flight with the owner of its partition, so nothing waits.
    """
    in_flight = sum(state.in_flight for state in states.values())
    known = [lags[number] for number in states]
    return GroupInfo(
        native=native_group,
        ordered=True,
        members=_members(members, states),
        partitions=tuple(
            PartitionInfo(number=number, owner=state.owner, lag=lags[number])
            for number, state in states.items()
        ),
        lag=None if None in known else sum(lag or 0 for lag in known),
        lag_seconds=lag_seconds,
        in_flight=in_flight,
        waiting=0,
        oldest_pending=None if in_flight else 0.0,
        poison=_poison(states),
    )


def _members(
    present: Iterable[MemberInfo], states: Mapping[int, PartitionState]
) -> tuple[MemberInfo, ...]:
    owners = {state.owner for state in states.values() if state.owner}
    listed = {name: MemberInfo(name=name) for name in owners}
    listed |= {member.name: member for member in present}
    return tuple(_with_share(listed[name], states) for name in sorted(listed))


def _with_share(member: MemberInfo, states: Mapping[int, PartitionState]) -> MemberInfo:
    owned = {number: state for number, state in states.items() if state.owner == member.name}
    in_flight = sum(state.in_flight for state in owned.values())
    return replace(member, partitions=tuple(owned), in_flight=in_flight)


def _poison(states: Mapping[int, PartitionState]) -> tuple[PoisonInfo, ...]:
    """List what was tried more than once and is not done."""
    found = [
        PoisonInfo(position=place, attempts=number, member=state.owner)
        for state in states.values()
        for place, number in state.attempts.items()
        if number > 1 and place not in state.done
    ]
    return worst(found)
