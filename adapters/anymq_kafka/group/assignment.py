"""`Assignment`: the partitions of one member, from one rebalance to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from typing import Any

from anymq.driver import OffsetTracker, fault, logger, supervise

from ..client.compat import AIOKafkaConsumer, TopicPartition, kafka
from ..client.internals import RebalanceListener, committed, generation, rejoin
from ..messages import KafkaReceived
from .assignor import Assignor, MemberState

Revoke = Callable[[frozenset[int], bool], Coroutine[Any, Any, None]]
"""See `Listener.revoke`."""

log = logger("anymq.kafka")

COMMIT_SECONDS = 2.0
"""For the commit before partitions are revoked, while the whole group waits."""
LOOK_UP_SECONDS = 5.0
"""For reading committed offsets, while the whole group waits and no heartbeat is sent."""


class Partition:
    """One partition during one assignment of it. It is the token of its records."""

    __slots__ = (
        "committed",
        "delayed_bytes",
        "delayed_count",
        "dirty",
        "has_counts",
        "held_back",
        "is_delay_topic",
        "leaving",
        "paused",
        "position_prefix",
        "released",
        "tp",
        "tracker",
        "waiting_count",
    )

    def __init__(
        self, tp: TopicPartition, begin: int, metadata: str, *, is_delay_topic: bool
    ) -> None:
        self.tp = tp
        self.tracker = OffsetTracker(begin, metadata)
        self.is_delay_topic = is_delay_topic
        self.position_prefix = f"{'.'.join(tp.topic.split('.')[-2:])}:" if is_delay_topic else ""
        self.committed = (begin, metadata)
        """The committed offset, and the metadata committed with it."""
        self.has_counts = bool(metadata)
        """Whether the metadata may hold redelivery counts."""
        self.dirty = False
        """Whether there is something to commit."""
        self.paused = False
        self.leaving = False
        """Whether it is to go to another member, so that none of its records is delivered here."""
        self.released = False
        """Ordered groups: whether its handlers have ended, so that its next owner may have it."""
        self.delayed_count = 0
        self.delayed_bytes = 0
        self.waiting_count = 0
        """Unsettled records that the core does not have: not due, released or held back."""
        self.held_back: list[KafkaReceived] = []
        """Records that are ready for delivery, but the partition is leaving."""

    @property
    def in_flight(self) -> int:
        """The number of unsettled records that the core has."""
        return self.tracker.open - self.waiting_count


class Assignment(RebalanceListener):
    """The member's partitions. It follows the rebalances of the group.

    A partition that stays with the member keeps its state: its records in flight are neither
    redelivered nor forgotten. It stays if it is assigned again in the next generation under the
    same member id, because then no other member had it between. The `Assignor` leaves busy
    partitions with their members.

    With `revoke` the member is one of an ordered group. Then a partition in use moves only after
    `revoke` has returned. The member reports it as owned until then, over further rebalances too.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        assignor: Assignor,
        delay_topics: Collection[str],
        *,
        handover: float,
        revoke: Revoke | None = None,
    ) -> None:
        self.partitions: dict[TopicPartition, Partition] = {}
        self.ready = asyncio.Event()
        """Set while the partitions may be read and committed, that is outside of rebalances."""
        self.failure: BaseException | None = None
        """The error because of which this member cannot continue."""
        self.commit: Callable[[float], Awaitable[object]] = _nothing
        self.on_change: Callable[[], None] = lambda: None
        self._consumer = consumer
        self._assignor = assignor
        self._delay_topics = frozenset(delay_topics)
        self._handover = handover
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._previous: tuple[int, str] = (-1, "")
        """The generation and member id before the last rebalance."""
        self._handover_timer: asyncio.TimerHandle | None = None
        self._revoke = revoke
        self._handovers: dict[Partition, asyncio.Task[None]] = {}
        self.changed_at = self._loop.time()
        """Loop time of the last rebalance: its begin, then its end."""
        assignor.state = self._state

    def settled(self, partition: Partition) -> None:
        """Request the pending handover if no leaving partition has records in flight any more.

        Call it after a record of `partition` has left flight.
        """
        if not partition.leaving or self._handover_timer is None:
            return
        if not any(p.leaving and p.in_flight for p in self.partitions.values()):
            self._request_rebalance()

    def close(self) -> None:
        """End the assignment: later settlements are ignored."""
        self._closing = True
        self.ready.clear()
        self._stop_timer()
        for task in self._handovers.values():
            task.cancel()
        for partition in self.partitions.values():
            partition.tracker.close()

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Stop delivering, and commit while the member still owns its partitions."""
        self.ready.clear()
        self._stop_timer()
        self.changed_at = self._loop.time()
        self._previous = generation(self._consumer)
        if self._previous[0] < 0:
            await self._lose(list(self.partitions.values()))
        elif partitions and not self._closing:
            await self.commit(COMMIT_SECONDS)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Start new partitions at their committed offsets, and continue those that stayed."""
        if self._closing:
            return
        self._consumer.pause(*partitions)
        current, previous = generation(self._consumer), self._previous
        stayed = current == (previous[0] + 1, previous[1]) and previous[0] >= 0
        kept = {
            tp: partition
            for tp, partition in self.partitions.items()
            if stayed and tp in partitions and not partition.released
        }
        if stayed and any(partition.released for partition in self.partitions.values()):
            # Acks may have come after the commit of `revoked`, of a partition that starts here.
            await self.commit(COMMIT_SECONDS)
        try:
            await self._lose([p for tp, p in self.partitions.items() if tp not in kept])
            fresh = await self._start([tp for tp in partitions if tp not in kept])
        except (kafka.KafkaError, OSError) as error:
            self.partitions = kept
            self.failure = error
            return
        self.partitions = kept | fresh
        for tp, partition in kept.items():
            self._consumer.seek(tp, partition.tracker.position)
            partition.dirty = True
        self._resume()

    def restart(self, partition: Partition, offset: int) -> Partition:
        """Start `partition` again at `offset`, below its position: the topic was recreated."""
        partition.tracker.close()
        restarted = Partition(partition.tp, offset, "", is_delay_topic=partition.is_delay_topic)
        restarted.paused, restarted.leaving = partition.paused, partition.leaving
        self.partitions[partition.tp] = restarted
        return restarted

    def _resume(self) -> None:
        for tp, partition in self.partitions.items():
            # An ordered member completes each handover that it has begun.
            handing_over = partition.leaving and self._revoke is not None
            partition.leaving = handing_over or tp in self._assignor.surplus
            if not (partition.leaving or partition.paused):
                self._consumer.resume(tp)
        leaving = [partition for partition in self.partitions.values() if partition.leaving]
        if self._revoke is not None:
            self._hand_over(leaving, self._revoke)
        elif leaving:
            busy = any(partition.in_flight for partition in leaving)
            delay = self._handover if busy else 0
            self._handover_timer = self._loop.call_later(delay, self._request_rebalance)
        self.changed_at = self._loop.time()
        self.on_change()
        self.ready.set()

    def _hand_over(self, partitions: list[Partition], revoke: Revoke) -> None:
        for partition in partitions:
            if partition not in self._handovers:
                task = supervise(self._finish(partition, revoke), name="anymq-kafka-handover")
                self._handovers[partition] = task
                task.add_done_callback(partial(self._finished, partition))

    async def _finish(self, partition: Partition, revoke: Revoke) -> None:
        try:
            await revoke(frozenset((partition.tp.partition,)), False)
        except BaseException as raw:
            # Whether handlers still have records of it is unknown, so open another source.
            self.failure = fault(raw, "giving up a partition")

    def _finished(self, partition: Partition, _: asyncio.Task[None]) -> None:
        del self._handovers[partition]
        if not self._closing:
            partition.released = True
            self._request_rebalance()

    async def _lose(self, partitions: list[Partition]) -> None:
        """Ignore later settlements of `partitions`. An ordered member cancels their handlers."""
        in_use = [p for p in partitions if not (p.tracker.closed or p.released) and p.in_flight]
        for partition in partitions:
            partition.tracker.close()
        if in_use and self._revoke is not None:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                await self._revoke(frozenset(p.tp.partition for p in in_use), True)

    def _request_rebalance(self) -> None:
        """Let the leader assign the leaving partitions to other members."""
        self._stop_timer()
        rejoin(self._consumer)

    def _stop_timer(self) -> None:
        if self._handover_timer is not None:
            self._handover_timer.cancel()
            self._handover_timer = None

    def _state(self) -> MemberState:
        ordered = self._revoke is not None
        owned = {
            tp: partition
            for tp, partition in self.partitions.items()
            if not (partition.released if ordered else partition.leaving)
        }
        return MemberState(
            generation=self._previous[0],
            owned=frozenset(owned),
            busy=frozenset(
                tp
                for tp, partition in owned.items()
                if not partition.tracker.closed and (partition.in_flight or partition.leaving)
            ),
        )

    async def _start(self, tps: list[TopicPartition]) -> dict[TopicPartition, Partition]:
        if not tps:
            return {}
        async with asyncio.timeout(LOOK_UP_SECONDS):
            commits = await committed(self._consumer, tps)
        started: dict[TopicPartition, Partition] = {}
        for tp in tps:
            commit = commits.get(tp)
            # Without a commit (a delay topic, a partition added later) aiokafka reads from 0.
            begin, metadata = (commit.offset, commit.metadata) if commit is not None else (0, "")
            is_delay_topic = tp.topic in self._delay_topics
            started[tp] = Partition(tp, begin, metadata, is_delay_topic=is_delay_topic)
            if commit is not None:
                self._consumer.seek(tp, begin)
        return started


async def _nothing(_: float) -> None:
    return None
