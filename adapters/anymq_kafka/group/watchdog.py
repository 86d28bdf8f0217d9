"""`Watch`: notices a consumer that will never deliver again.

aiokafka's consumer is known to fall silent: after an event loop that was blocked (#847), after a
rejoin (#625, #1187), after an offset out of range (#718), with its tasks ended (#983). The watch
looks for what such a consumer cannot hide: the log goes on and its position does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from anymq.driver import SourceLost

from ..client.internals import AIOKafkaConsumer, TopicPartition, has_ended, kafka

if TYPE_CHECKING:
    from ..options import KafkaOptions
    from ..topology import Topology
    from .assignment import Assignment
    from .committer import Committer

LOOK_TIMEOUT = 5.0
POSITION_TIMEOUT = 0.5


class Progress:
    """Whether reading goes on."""

    def __init__(self) -> None:
        self._lagging: dict[TopicPartition, int] = {}

    def forget(self) -> None:
        """Reading did go on."""
        self._lagging = {}

    async def stuck(
        self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
    ) -> list[TopicPartition]:
        """Return those that had something to read at the last call, and have not moved since."""
        ends = await consumer.end_offsets(partitions)
        places = {tp: await _position(consumer, tp) for tp in partitions}
        lagging = {tp: place for tp, place in places.items() if place < ends[tp]}
        stuck = [tp for tp, place in lagging.items() if self._lagging.get(tp) == place]
        self._lagging = lagging
        return sorted(stuck)


class Watch:
    """Raises `SourceLost` from `check` once it is certain."""

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
        # A group may take this long to rebalance, and a lost member to be noticed.
        self._rebalance = options.rebalance_timeout + options.session_timeout + self._stall
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time() + self._stall
        self._progress = Progress()

    def moved(self) -> None:
        """Something was delivered, or assigned."""
        self._next = self._loop.time() + self._stall
        self._progress.forget()

    async def check(self, *, polling: bool) -> None:
        """Look, now and then, whether reading goes on; `polling` if it is asked to deliver."""
        if has_ended(self._consumer):
            raise SourceLost("the consumer's tasks have ended")
        now = self._loop.time()
        refused = self._committer.refused_since
        if refused is not None and now - max(refused, self._assignment.changed_at) > self._stall:
            raise SourceLost("the group refuses commits, and there is no rebalance")
        if not self._assignment.ready.is_set():
            if now - self._assignment.changed_at > self._rebalance:
                await self._topology.ping()
                raise SourceLost("no partitions were assigned in time")
        elif not polling:
            self.moved()
        elif now >= self._next:
            self._next = now + self._stall
            async with asyncio.timeout(LOOK_TIMEOUT):
                await self._look()

    async def _look(self) -> None:
        for topic in self._consumer.subscription():
            if await self._topology.partitions(topic) is None:
                raise SourceLost(f"{topic} is gone") from kafka.UnknownTopicOrPartitionError(topic)
        partitions = self._assignment.partitions.items()
        reading = [tp for tp, p in partitions if not (p.paused or p.leaving)]
        if not reading:
            return
        try:
            stuck = await self._progress.stuck(self._consumer, reading)
        except kafka.KafkaError as error:
            if error.retriable:
                return
            raise
        if stuck:
            raise SourceLost(f"reading does not go on: {stuck}")


async def _position(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
    """Not the place of the last record: after it there may be what is no record."""
    try:
        async with asyncio.timeout(POSITION_TIMEOUT):
            position: int = await consumer.position(tp)
            return position
    except TimeoutError:
        return -1
