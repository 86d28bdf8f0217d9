"""`Balancer`: who gets which partition, so that nothing in flight moves.

aiokafka knows eager rebalancing only: whenever a member comes or goes, all give up everything and
the leader assigns anew. With aiokafka's own assignors partitions would move while their messages
are worked on, to be delivered a second time. Here every member tells which partitions it had, and
which of them have messages in flight; the leader leaves those where they are, moves others only as
far as balance asks, and tells a member with more busy partitions than its share which ones to empty
and let go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..client.internals import MemberAssignment, MemberMetadata, TopicPartition

VERSION = 0
UNORDERED, ORDERED = "anymq-sticky", "anymq-ordered"


@dataclass(frozen=True)
class Claim:
    """The topics a member reads, what it had in `generation`, and what of that is in flight."""

    topics: frozenset[str] = frozenset()
    generation: int = -1
    owned: frozenset[TopicPartition] = frozenset()
    busy: frozenset[TopicPartition] = frozenset()


@dataclass
class Share:
    """What a member gets. `surplus`, a part of it, is to be let go as soon as it is idle."""

    partitions: list[TopicPartition] = field(default_factory=list)
    surplus: list[TopicPartition] = field(default_factory=list)


class Balancer:
    """aiokafka's assignor interface, of one consumer: it carries what this member claims."""

    def __init__(self, *, ordered: bool = False) -> None:
        # Kafka takes no member into a group whose others name another assignor.
        self.name = ORDERED if ordered else UNORDERED
        self.claim: Callable[[], Claim] = Claim
        self.surplus: frozenset[TopicPartition] = frozenset()

    def metadata(self, topics: Iterable[str]) -> MemberMetadata:
        """What this member tells the leader."""
        claim = self.claim()
        text = {
            "generation": claim.generation,
            "owned": _by_topic(claim.owned),
            "busy": _by_topic(claim.busy),
        }
        return MemberMetadata(VERSION, sorted(topics), json.dumps(text).encode())

    def assign(
        self, cluster: Any, members: Mapping[str, MemberMetadata]
    ) -> dict[str, MemberAssignment]:
        """As the leader: what every member gets."""
        claims = {member: read_claim(metadata) for member, metadata in members.items()}
        topics = {topic for claim in claims.values() for topic in claim.topics}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        return {
            member: MemberAssignment(
                VERSION,
                sorted(_by_topic(share.partitions).items()),
                json.dumps(_by_topic(share.surplus)).encode(),
            )
            for member, share in balance(counts, claims).items()
        }

    def on_assignment(self, assignment: MemberAssignment) -> None:
        """What this member was told by the leader."""
        self.surplus = _partitions(_parsed(assignment.user_data))


def balance(counts: Mapping[str, int], claims: Mapping[str, Claim]) -> dict[str, Share]:
    """Give every partition to one member that reads its topic.

    Each topic is spread evenly; what is left over goes to who has least altogether. A busy
    partition stays with its owner; others move only where the spread asks for it.
    """
    shares = {member: Share() for member in sorted(claims)}
    owners = _owners(claims)
    for topic in sorted(counts, key=lambda name: (-counts[name], name)):
        readers = [member for member in shares if topic in claims[member].topics]
        if not readers:
            continue
        mine: dict[str, list[TopicPartition]] = {member: [] for member in readers}
        free: list[TopicPartition] = []
        for number in range(counts[topic]):
            tp = TopicPartition(topic, number)
            owner = owners.get(tp)
            mine[owner].append(tp) if owner in mine else free.append(tp)
        _share_out(shares, mine, free, claims)
    return shares


def _share_out(
    shares: dict[str, Share],
    mine: dict[str, list[TopicPartition]],
    free: list[TopicPartition],
    claims: Mapping[str, Claim],
) -> None:
    """Share out one topic: `mine` is what each reader has of it now, `free` what nobody has."""
    least, extra = divmod(sum(map(len, mine.values())) + len(free), len(mine))
    # Who has most already keeps one more; among equals, who has least of the other topics.
    ranked = sorted(mine, key=lambda name: (-len(mine[name]), len(shares[name].partitions), name))
    quota = {member: least + (place < extra) for place, member in enumerate(ranked)}
    kept: dict[str, list[TopicPartition]] = {}
    for member in ranked:
        busy = [tp for tp in mine[member] if tp in claims[member].busy]
        idle = [tp for tp in mine[member] if tp not in claims[member].busy]
        room = max(0, quota[member] - len(busy))
        kept[member] = busy + idle[:room]
        free += idle[room:]
        shares[member].surplus += busy[quota[member] :]
    for tp in sorted(free):
        member = max(ranked, key=lambda name: quota[name] - len(kept[name]))
        kept[member].append(tp)
    for member, partitions in kept.items():
        shares[member].partitions += partitions


def _owners(claims: Mapping[str, Claim]) -> dict[TopicPartition, str]:
    """Who had each partition last: of two that claim it, the one of the later generation."""
    owners: dict[TopicPartition, str] = {}
    for member in sorted(claims, key=lambda name: (claims[name].generation, name)):
        owners |= dict.fromkeys(claims[member].owned, member)
    return owners


def read_claim(metadata: MemberMetadata) -> Claim:
    """Return what a member claims; one that writes it in another way claims nothing."""
    topics = frozenset(metadata.subscription)
    said = _parsed(metadata.user_data)
    generation = said.get("generation")
    if not isinstance(generation, int):
        return Claim(topics)
    owned = _partitions(said.get("owned"))
    return Claim(topics, generation, owned, _partitions(said.get("busy")) & owned)


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _by_topic(partitions: Collection[TopicPartition]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for tp in sorted(partitions):
        found.setdefault(tp.topic, []).append(tp.partition)
    return found


def _partitions(by_topic: object) -> frozenset[TopicPartition]:
    if not isinstance(by_topic, dict):
        return frozenset()
    return frozenset(
        TopicPartition(topic, number)
        for topic, numbers in by_topic.items()
        if isinstance(numbers, list)
        for number in numbers
        if isinstance(number, int)
    )
