"""`Assignor`: assigns partitions to members so that no partition with messages in flight moves.

aiokafka rebalances eagerly: when a member joins or leaves, all members give up all partitions, and
the leader assigns them anew. With aiokafka's own assignors partitions would move while their
messages are in flight, and the messages would be delivered twice. Here every member reports the
partitions that it had, and which of them have messages in flight. The leader leaves those with
their members, and moves others only as far as balance requires. A member with more busy partitions
than its share learns which ones to empty and hand over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..client.compat import MemberAssignment, MemberMetadata, TopicPartition
from ..client.internals import by_topic

VERSION = 0
UNORDERED, ORDERED = "anymq-sticky", "anymq-ordered"


@dataclass(frozen=True)
class MemberState:
    """Report of a member to the leader: its topics, and the partitions it had in `generation`.

    `busy`, a part of `owned`, are those with messages in flight.
    """

    topics: frozenset[str] = frozenset()
    generation: int = -1
    owned: frozenset[TopicPartition] = frozenset()
    busy: frozenset[TopicPartition] = frozenset()


@dataclass
class Share:
    """The partitions of one member. It hands over `surplus`, a part of them, when they are idle."""

    partitions: list[TopicPartition] = field(default_factory=list)
    surplus: list[TopicPartition] = field(default_factory=list)


class Assignor:
    """aiokafka's assignor of one consumer, with the state that this member reports."""

    def __init__(self, *, ordered: bool = False) -> None:
        # Kafka admits no member whose assignor has another name than that of the group.
        self.name = ORDERED if ordered else UNORDERED
        self.state: Callable[[], MemberState] = MemberState
        self.surplus: frozenset[TopicPartition] = frozenset()

    def metadata(self, topics: Iterable[str]) -> MemberMetadata:
        """Return this member's report to the leader."""
        state = self.state()
        text = {
            "generation": state.generation,
            "owned": by_topic(state.owned),
            "busy": by_topic(state.busy),
        }
        return MemberMetadata(VERSION, sorted(topics), json.dumps(text).encode())

    def assign(
        self, cluster: Any, members: Mapping[str, MemberMetadata]
    ) -> dict[str, MemberAssignment]:
        """Return the assignment of every member. aiokafka calls it on the leader."""
        states = {member: read_state(metadata) for member, metadata in members.items()}
        topics = {topic for state in states.values() for topic in state.topics}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        return {
            member: MemberAssignment(
                VERSION,
                sorted(by_topic(share.partitions).items()),
                json.dumps(by_topic(share.surplus)).encode(),
            )
            for member, share in assign_partitions(counts, states).items()
        }

    def on_assignment(self, assignment: MemberAssignment) -> None:
        """Note the partitions that the leader wants this member to hand over."""
        self.surplus = _partitions(_parsed(assignment.user_data))


def assign_partitions(
    counts: Mapping[str, int], states: Mapping[str, MemberState]
) -> dict[str, Share]:
    """Assign every partition to one member that reads its topic.

    Each topic is spread evenly. Partitions that do not divide evenly go to the members with the
    fewest in all. A busy partition stays with its owner; others move only where balance requires.
    """
    shares = {member: Share() for member in sorted(states)}
    owners = _owners(states)
    for topic in sorted(counts, key=lambda name: (-counts[name], name)):
        readers = [member for member in shares if topic in states[member].topics]
        if not readers:
            continue
        owned: dict[str, list[TopicPartition]] = {member: [] for member in readers}
        free: list[TopicPartition] = []
        for number in range(counts[topic]):
            tp = TopicPartition(topic, number)
            owner = owners.get(tp)
            owned[owner].append(tp) if owner in owned else free.append(tp)
        _assign_topic(shares, owned, free, states)
    return shares


def _assign_topic(
    shares: dict[str, Share],
    owned: dict[str, list[TopicPartition]],
    free: list[TopicPartition],
    states: Mapping[str, MemberState],
) -> None:
    """Assign one topic. `owned` has each reader's partitions, `free` those without an owner."""
    least, extra = divmod(sum(map(len, owned.values())) + len(free), len(owned))
    # Members that own most keep one more; among equals, those with the fewest of other topics.
    ranked = sorted(owned, key=lambda name: (-len(owned[name]), len(shares[name].partitions), name))
    quota = {member: least + (index < extra) for index, member in enumerate(ranked)}
    kept: dict[str, list[TopicPartition]] = {}
    for member in ranked:
        busy = [tp for tp in owned[member] if tp in states[member].busy]
        idle = [tp for tp in owned[member] if tp not in states[member].busy]
        room = max(0, quota[member] - len(busy))
        kept[member] = busy + idle[:room]
        free += idle[room:]
        shares[member].surplus += busy[quota[member] :]
    for tp in sorted(free):
        member = max(ranked, key=lambda name: quota[name] - len(kept[name]))
        kept[member].append(tp)
    for member, partitions in kept.items():
        shares[member].partitions += partitions


def _owners(states: Mapping[str, MemberState]) -> dict[TopicPartition, str]:
    """Return the last owner of each partition: of two members the one of the later generation."""
    owners: dict[TopicPartition, str] = {}
    for member in sorted(states, key=lambda name: (states[name].generation, name)):
        owners |= dict.fromkeys(states[member].owned, member)
    return owners


def read_state(metadata: MemberMetadata) -> MemberState:
    """Return the report of a member. One in another format owns nothing."""
    topics = frozenset(metadata.subscription)
    report = _parsed(metadata.user_data)
    generation = report.get("generation")
    if not isinstance(generation, int):
        return MemberState(topics)
    owned = _partitions(report.get("owned"))
    return MemberState(topics, generation, owned, _partitions(report.get("busy")) & owned)


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _partitions(numbers_by_topic: object) -> frozenset[TopicPartition]:
    if not isinstance(numbers_by_topic, dict):
        return frozenset()
    return frozenset(
        TopicPartition(topic, number)
        for topic, numbers in numbers_by_topic.items()
        if isinstance(numbers, list)
        for number in numbers
        if isinstance(number, int)
    )
