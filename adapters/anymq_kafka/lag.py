"""What a group has yet to settle, by what it has committed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from anymq.driver import offsets

from .client.internals import TopicPartition
from .connection import Clients
from .groups import Groups
from .positions import reader
from .topology import Topology


@dataclass(frozen=True)
class Remaining:
    """What is left of one partition, up to `end`: `count` records, from `begin` on.

    `placed` is False where the group has never committed. `counts` says how often records of an
    ordered group have been redelivered.
    """

    begin: int
    end: int
    count: int
    placed: bool
    counts: dict[int, int]


async def remaining(
    clients: Clients, topology: Topology, group: str, topics: Iterable[str]
) -> dict[TopicPartition, Remaining]:
    """Return what the group has yet to settle in those of `topics` that exist."""
    counts = await topology.counts(topics)
    tps = [TopicPartition(topic, n) for topic, count in counts.items() for n in range(count)]
    if not tps:
        return {}
    # First: what is settled meanwhile must not lie beyond the end.
    places = await Groups(topology).committed(group, tps)
    async with reader(clients) as consumer:
        begins = await consumer.beginning_offsets(tps)
        ends = await consumer.end_offsets(tps)
    found: dict[TopicPartition, Remaining] = {}
    for tp in tps:
        place = places.get(tp)
        offset, metadata = (place.offset, place.metadata) if place is not None else (0, "")
        begin, end = max(offset, begins[tp]), ends[tp]
        done = sum(
            max(0, min(stop, end) - max(start, begin))
            for start, stop in offsets.decode(offset, metadata)
        )
        found[tp] = Remaining(
            begin,
            end,
            max(0, end - begin - done),
            place is not None,
            {o: n for o, n in offsets.decode_counts(offset, metadata).items() if o >= begin},
        )
    return found
