"""`Watchdog`: detects a consumer that will never deliver again.

aiokafka's consumer is known to stall: after a blocked event loop (#847), after a rejoin (#625,
#1187), after an offset out of range (#718), and when its tasks have ended (#983). A stalled
consumer has a position below the end of the log that does not change. The core compares two such
reports (`undelivered`) and opens another source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from anymq.driver import SourceLost

from ..client.compat import AIOKafkaConsumer, TopicPartition, kafka
from ..client.internals import has_ended

if TYPE_CHECKING:
    from ..options import KafkaOptions
    from ..topology import Topology
    from .assignment import Assignment
    from .committer import Committer

POSITION_SECONDS = 0.5


class Watchdog:
    """The watchdog of one group member."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        assignment: Assignment,
        committer: Committer,
        topology: Topology,
        options: KafkaOptions,
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._committer = committer
        self._topology = topology
        self._stall = options.stall_timeout
        # The group may wait this long for a lost member, and then for the others to rejoin.
        self._rebalance = options.rebalance_timeout + options.session_timeout + self._stall
        self._loop = asyncio.get_running_loop()

    async def check(self) -> None:
        """Raise `SourceLost` if the consumer has ended, or its group keeps it from working."""
        if has_ended(self._consumer):
            raise SourceLost("the consumer's tasks have ended")
        now = self._loop.time()
        refused = self._committer.refused_since
        if refused is not None and now - max(refused, self._assignment.changed_at) > self._stall:
            raise SourceLost("the group refuses commits, and there is no rebalance")
        if (
            not self._assignment.ready.is_set()
            and now - self._assignment.changed_at > self._rebalance
        ):
            await self._topology.ping()
            raise SourceLost("no partitions were assigned in time")

    async def undelivered(self) -> object:
        """Return the positions of lagging partitions, and when they were assigned; None if none.

        Raises `SourceLost` if a topic was deleted.
        """
        assigned = self._assignment
        if not assigned.ready.is_set():
            return None
        await check_topics(self._topology, self._consumer.subscription())
        active = [tp for tp, p in assigned.partitions.items() if not (p.paused or p.leaving)]
        lagging = await lagging_positions(self._consumer, active) if active else {}
        return (assigned.changed_at, lagging) if lagging else None


async def check_topics(topology: Topology, topics: Iterable[str]) -> None:
    """Raise `SourceLost` if one of `topics` does not exist."""
    for topic in topics:
        if await topology.partitions(topic) is None:
            raise SourceLost(f"{topic} is gone") from kafka.UnknownTopicOrPartitionError(topic)


async def lagging_positions(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[str, int]:
    """Return the consumer's positions in those of `partitions` that it has not read to the end."""
    ends = await consumer.end_offsets(partitions)
    positions = {tp: await _position(consumer, tp) for tp in partitions}
    return {
        f"{tp.topic}:{tp.partition}": position
        for tp, position in positions.items()
        if position < ends[tp]
    }


async def _position(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
    """Return the offset to read next, which may be after the marker of a transaction.

    -1 if it is not known in time.
    """
    try:
        async with asyncio.timeout(POSITION_SECONDS):
            position: int = await consumer.position(tp)
            return position
    except TimeoutError:
        return -1
