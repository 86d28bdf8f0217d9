"""Which partitions are ours, from one rebalance to the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from anymq.driver import Received
from anymq.offsets import OffsetTracker

from .aio import (
    AIOKafkaConsumer,
    RebalanceListener,
    TopicPartition,
    committed,
    generation,
    kafka,
    rejoin,
)
from .balance import Balancer, Claim

log = logging.getLogger("anymq.kafka")

# Both are spent while the whole group waits, the second without heartbeats.
COMMIT_TIMEOUT = 2.0
LOOK_UP_TIMEOUT = 5.0


class Partition:
    """One partition during one assignment of it: the epoch that settlements belong to."""

    __slots__ = (
        "committed",
        "dirty",
        "held",
        "held_bytes",
        "leaving",
        "local",
        "paused",
        "prefix",
        "retry",
        "tp",
        "tracker",
        "withheld",
    )

    def __init__(self, tp: TopicPartition, begin: int, metadata: str, *, retry: bool) -> None:
        self.tp = tp
        self.tracker = OffsetTracker(begin, metadata)
        self.retry = retry
        self.prefix = f"{'.'.join(tp.topic.split('.')[-2:])}:" if retry else ""
        self.committed = (begin, metadata)
        self.dirty = False
        self.paused = False
        self.leaving = False
        """Nothing more of it is handed out: another member shall have it."""
        self.held = 0
        self.held_bytes = 0
        self.local = 0
        """Open, but not in the core's hands: held until due, or given back."""
        self.withheld: list[Received] = []
        """What could be handed out, were the partition not leaving."""

    @property
    def in_flight(self) -> int:
        """How many of its records the core is working on."""
        return self.tracker.open - self.local


class Assignment(RebalanceListener):
    """Follows the group's rebalances.

    A partition that comes straight back (in the next generation, under the same member id, so
    nobody can have had it in between) keeps its state here: what is being worked on is neither
    repeated nor forgotten. The `Balancer` sees to it that this is where busy partitions go.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        balancer: Balancer,
        retry_topics: Collection[str],
        *,
        handover: float,
    ) -> None:
        self.partitions: dict[TopicPartition, Partition] = {}
        self.ready = asyncio.Event()
        self.failure: BaseException | None = None
        self.commit: Callable[[float], Awaitable[object]] = _nothing
        self.on_change: Callable[[], None] = lambda: None
        self._consumer = consumer
        self._balancer = balancer
        self._retry_topics = frozenset(retry_topics)
        self._handover = handover
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._before: tuple[int, str] = (-1, "")
        self._latest: asyncio.TimerHandle | None = None
        self.changed_at = self._loop.time()
        balancer.claim = self._claim

    def settled(self, partition: Partition) -> None:
        """To be called when something of `partition` is no longer in flight."""
        if not partition.leaving or self._latest is None:
            return
        if not any(p.leaving and p.in_flight for p in self.partitions.values()):
            self._let_go()

    def close(self) -> None:
        """Settlements from now on have no effect."""
        self._closing = True
        self.ready.clear()
        self._stop_waiting()
        for partition in self.partitions.values():
            partition.tracker.close()

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Hand nothing out until it is known who has what; commit while it is certain."""
        self.ready.clear()
        self._stop_waiting()
        self.changed_at = self._loop.time()
        self._before = generation(self._consumer)
        if partitions and not self._closing:
            await self.commit(COMMIT_TIMEOUT)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Take up what is new where its last owner left it, and go on with what has stayed."""
        if self._closing:
            return
        self._consumer.pause(*partitions)
        now, before = generation(self._consumer), self._before
        stayed = now == (before[0] + 1, before[1]) and before[0] >= 0
        kept = {tp: p for tp, p in self.partitions.items() if stayed and tp in partitions}
        for tp, partition in self.partitions.items():
            if tp not in kept:
                partition.tracker.close()
        try:
            fresh = await self._take_up([tp for tp in partitions if tp not in kept])
        except (kafka.KafkaError, OSError) as error:
            self.partitions = kept
            self.failure = error
            return
        self.partitions = kept | fresh
        for tp, partition in kept.items():
            self._consumer.seek(tp, partition.tracker.position)
            partition.dirty = True
        self._go_on()

    def _go_on(self) -> None:
        for tp, partition in self.partitions.items():
            partition.leaving = tp in self._balancer.surplus
            if not (partition.leaving or partition.paused):
                self._consumer.resume(tp)
        leaving = [partition for partition in self.partitions.values() if partition.leaving]
        if leaving:
            busy = any(partition.in_flight for partition in leaving)
            self._latest = self._loop.call_later(self._handover if busy else 0, self._let_go)
        self.changed_at = self._loop.time()
        self.on_change()
        self.ready.set()

    def _let_go(self) -> None:
        """What shall leave is idle, or has had its time: let the leader give it to another."""
        self._stop_waiting()
        rejoin(self._consumer)

    def _stop_waiting(self) -> None:
        if self._latest is not None:
            self._latest.cancel()
            self._latest = None

    def _claim(self) -> Claim:
        mine = {tp: p for tp, p in self.partitions.items() if not p.leaving}
        return Claim(
            generation=self._before[0],
            owned=frozenset(mine),
            busy=frozenset(tp for tp, p in mine.items() if p.in_flight and not p.tracker.closed),
        )

    def rewind(self, partition: Partition, offset: int) -> Partition:
        """The log begins again below our position (the topic was made anew): begin a new epoch."""
        partition.tracker.close()
        again = Partition(partition.tp, offset, "", retry=partition.retry)
        again.paused, again.leaving = partition.paused, partition.leaving
        self.partitions[partition.tp] = again
        return again

    async def _take_up(self, tps: list[TopicPartition]) -> dict[TopicPartition, Partition]:
        if not tps:
            return {}
        async with asyncio.timeout(LOOK_UP_TIMEOUT):
            places = await committed(self._consumer, tps)
        fresh: dict[TopicPartition, Partition] = {}
        for tp in tps:
            place = places.get(tp)
            # Without one (a retry topic, a partition added later) aiokafka begins at the beginning.
            begin, metadata = (place.offset, place.metadata) if place is not None else (0, "")
            fresh[tp] = Partition(tp, begin, metadata, retry=tp.topic in self._retry_topics)
            if place is not None:
                self._consumer.seek(tp, begin)
        return fresh


async def _nothing(_: float) -> None:
    return None
