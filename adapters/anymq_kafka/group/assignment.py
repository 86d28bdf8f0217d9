"""Which partitions are ours, from one rebalance to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from typing import Any

from anymq.driver import OffsetTracker, fault, logger, supervise

from ..client.internals import (
    AIOKafkaConsumer,
    RebalanceListener,
    TopicPartition,
    committed,
    generation,
    kafka,
    rejoin,
)
from ..messages import KafkaReceived
from .assignor import Balancer, Claim

Revoke = Callable[[frozenset[int], bool], Coroutine[Any, Any, None]]
"""See `Listener.revoke`."""

log = logger("anymq.kafka")

# Both are spent while the whole group waits, the second without heartbeats.
COMMIT_TIMEOUT = 2.0
LOOK_UP_TIMEOUT = 5.0


class Partition:
    """One partition during one assignment of it: the epoch that settlements belong to."""

    __slots__ = (
        "committed",
        "counted",
        "dirty",
        "given_up",
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
        self.counted = bool(metadata)
        """Whether redeliveries may have been noted."""
        self.dirty = False
        self.paused = False
        self.leaving = False
        """Nothing more of it is handed out: another member shall have it."""
        self.given_up = False
        """Ordered: no handler has anything of it any more; what is open is its next owner's."""
        self.held = 0
        self.held_bytes = 0
        self.local = 0
        """Open, but not in the core's hands: held until due, or given back."""
        self.withheld: list[KafkaReceived] = []
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

    With `revoke` it is an ordered member's: what is in use never moves before `revoke` has
    returned, and is claimed until then, over further rebalances too.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        balancer: Balancer,
        held_topics: Collection[str],
        *,
        handover: float,
        revoke: Revoke | None = None,
    ) -> None:
        self.partitions: dict[TopicPartition, Partition] = {}
        self.ready = asyncio.Event()
        self.failure: BaseException | None = None
        self.commit: Callable[[float], Awaitable[object]] = _nothing
        self.on_change: Callable[[], None] = lambda: None
        self._consumer = consumer
        self._balancer = balancer
        self._held_topics = frozenset(held_topics)
        self._handover = handover
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._before: tuple[int, str] = (-1, "")
        self._latest: asyncio.TimerHandle | None = None
        self._revoke = revoke
        self._giving_up: dict[Partition, asyncio.Task[None]] = {}
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
        for task in self._giving_up.values():
            task.cancel()
        for partition in self.partitions.values():
            partition.tracker.close()

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Hand nothing out until it is known who has what; commit while it is certain."""
        self.ready.clear()
        self._stop_waiting()
        self.changed_at = self._loop.time()
        self._before = generation(self._consumer)
        if self._before[0] < 0:
            await self._lose(list(self.partitions.values()))
        elif partitions and not self._closing:
            await self.commit(COMMIT_TIMEOUT)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Take up what is new where its last owner left it, and go on with what has stayed."""
        if self._closing:
            return
        self._consumer.pause(*partitions)
        now, before = generation(self._consumer), self._before
        stayed = now == (before[0] + 1, before[1]) and before[0] >= 0
        kept = {
            tp: partition
            for tp, partition in self.partitions.items()
            if stayed and tp in partitions and not partition.given_up
        }
        if stayed and any(partition.given_up for partition in self.partitions.values()):
            # Acked after the commit of `revoked`; one of these may be taken up right here.
            await self.commit(COMMIT_TIMEOUT)
        try:
            await self._lose([p for tp, p in self.partitions.items() if tp not in kept])
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
            # What an ordered member has begun to give up, it gives up.
            begun = partition.leaving and self._revoke is not None
            partition.leaving = begun or tp in self._balancer.surplus
            if not (partition.leaving or partition.paused):
                self._consumer.resume(tp)
        leaving = [partition for partition in self.partitions.values() if partition.leaving]
        if self._revoke is not None:
            self._give_up(leaving, self._revoke)
        elif leaving:
            busy = any(partition.in_flight for partition in leaving)
            self._latest = self._loop.call_later(self._handover if busy else 0, self._let_go)
        self.changed_at = self._loop.time()
        self.on_change()
        self.ready.set()

    def _give_up(self, partitions: list[Partition], revoke: Revoke) -> None:
        for partition in partitions:
            if partition not in self._giving_up:
                task = supervise(self._let_finish(partition, revoke), name="anymq-kafka-handover")
                self._giving_up[partition] = task
                task.add_done_callback(partial(self._given_up, partition))

    async def _let_finish(self, partition: Partition, revoke: Revoke) -> None:
        try:
            await revoke(frozenset((partition.tp.partition,)), False)
        except BaseException as raw:
            # Whether handlers still have something of it is not known: begin anew altogether.
            self.failure = fault(raw, "giving up a partition")

    def _given_up(self, partition: Partition, _: asyncio.Task[None]) -> None:
        del self._giving_up[partition]
        if not self._closing:
            partition.given_up = True
            self._let_go()

    async def _lose(self, partitions: list[Partition]) -> None:
        """Settlements of these have no effect from now on; an ordered member drops what it has."""
        in_use = [p for p in partitions if not (p.tracker.closed or p.given_up) and p.in_flight]
        for partition in partitions:
            partition.tracker.close()
        if in_use and self._revoke is not None:
            async with asyncio.timeout(LOOK_UP_TIMEOUT):
                await self._revoke(frozenset(p.tp.partition for p in in_use), True)

    def _let_go(self) -> None:
        """What shall leave is idle, or has had its time: let the leader give it to another."""
        self._stop_waiting()
        rejoin(self._consumer)

    def _stop_waiting(self) -> None:
        if self._latest is not None:
            self._latest.cancel()
            self._latest = None

    def _claim(self) -> Claim:
        ordered = self._revoke is not None
        mine = {
            tp: partition
            for tp, partition in self.partitions.items()
            if not (partition.given_up if ordered else partition.leaving)
        }
        return Claim(
            generation=self._before[0],
            owned=frozenset(mine),
            busy=frozenset(
                tp
                for tp, partition in mine.items()
                if not partition.tracker.closed and (partition.in_flight or partition.leaving)
            ),
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
            fresh[tp] = Partition(tp, begin, metadata, retry=tp.topic in self._held_topics)
            if place is not None:
                self._consumer.seek(tp, begin)
        return fresh


async def _nothing(_: float) -> None:
    return None
