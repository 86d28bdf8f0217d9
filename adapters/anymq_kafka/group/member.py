"""`Reader`: one member of a consumer group. Reads, holds what is not due, commits what is done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import cast

from anymq.driver import (
    Due,
    MissingDependency,
    Received,
    SourceLost,
    logger,
    supervise,
)

from ..client.fetcher import Fetched, Found
from ..client.internals import TopicPartition, has_ended, kafka, refresh
from ..connection import Clients, stop_consumer
from ..messages import KafkaReceived, Unreadable
from ..topology import Topology
from .assignment import Assignment, Partition, Revoke
from .assignor import Balancer
from .committer import COMMIT_TIMEOUT, Committer
from .maintenance import Gaps
from .pending import Held, now_ms
from .watchdog import Watch

log = logger("anymq.kafka")

# How soon something given back is noticed while reading waits for the broker.
SLICE = 0.1
JOIN_WAIT = 3.0
CLOSE_COMMIT, CLOSE_GRACE = 1.0, 1.2
TRIM_INTERVAL = 30.0
# What is done above the oldest message of a held topic is in the metadata, so it may go far.
HELD_SPAN = 100


class Reader:
    """Reads `topics`; records of those in `held` wait in memory until the time in their header.

    Nothing expires in the held topics: what is done is deleted from them now and then, if `trim`
    says so. With `revoke` it is an ordered member.
    """

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        held: Collection[str],
        clients: Clients,
        topology: Topology,
        *,
        trim: bool = True,
        window: int | None = None,
        window_bytes: int | None = None,
        revoke: Revoke | None = None,
        dropped: Callable[[Sequence[Received]], None] = lambda _: None,
        unreadable: Callable[[Sequence[Received], str], None] = lambda *_: None,
    ) -> None:
        self._topics = list(topics)
        self._options = options = clients.options
        self._topology = topology
        self._window = window or options.retry_window
        self._window_bytes = window_bytes or options.retry_window_bytes
        self._given_back: deque[KafkaReceived] = deque()
        self._held = Held()
        self._unreadable = unreadable
        self._closed = False
        self._trims = trim
        self._trim_at = 0.0
        self._trimmable: dict[TopicPartition, int] = {}
        self._trimming: asyncio.Task[None] | None = None
        balancer = Balancer(ordered=revoke is not None)
        self._clients = clients
        self.consumer = clients.consumer(group, balancer)
        self._gaps = Gaps(self.consumer, group)
        self._fetched: Fetched | None = None
        self.assignment = Assignment(
            self.consumer, balancer, held, handover=options.handover, revoke=revoke
        )
        self.committer = Committer(
            self.consumer,
            lambda: self.assignment.partitions.values(),
            interval=options.commit_interval,
            allowed=self.assignment.ready.wait,
            committed=self._was_committed,
            dropped=dropped,
        )
        self.assignment.commit = self.committer.flush
        self.assignment.on_change = self._reassigned
        self._watch = Watch(self.consumer, self.assignment, self.committer, topology, options)

    def ack(self, records: Sequence[Received]) -> None:
        """Note that `records` are done; their offsets are committed soon.

        Raises the error of an earlier commit that cannot succeed; others are repeated.
        """
        self.done(records)
        if (error := self.committer.error) is not None:
            self.committer.error = None
            raise error

    async def join(self) -> None:
        """Join the group: in the background, if others do not give up their partitions soon.

        Closes the reader when that fails.
        """
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await self._clients.start(self.consumer)
        except BaseException:
            await self.aclose(grace=0.0)
            raise
        try:
            self._fetched = Fetched(self.consumer, self._options.max_decompressed)
            self.consumer.subscribe(self._topics, listener=self.assignment)
            await self._is_ready(asyncio.get_running_loop().time() + JOIN_WAIT)
        except BaseException:
            await self.aclose()
            raise

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """As `Source.receive`."""
        if self.assignment.failure is not None:
            raise SourceLost("the group's offsets could not be read") from self.assignment.failure
        await self._watch.check(polling=limit > 0)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if limit <= 0:
            if self._fetched is not None:
                self._fetched.touch()
            return []
        while True:
            batch: list[KafkaReceived] = []
            if await self._is_ready(deadline):
                batch = self._take_local(limit)
                if len(batch) < limit:
                    timeout = min(SLICE, deadline - loop.time(), self._held.wait())
                    await self._fill(batch, 0 if batch else timeout, limit - len(batch))
            if batch:
                self._watch.moved()
            if batch or loop.time() >= deadline:
                return batch

    def done(self, records: Iterable[Received]) -> None:
        """Settle what is still open; it is committed in the background."""
        items = list(of_kafka(records))
        changed = {record.token for record in items if record.token.tracker.done(record.offset)}
        self.committer.done(items)
        if any({record.token.tracker.closed for record in items}):
            self.committer.give_up()
        for partition in changed:
            self.committer.mark(partition)
            self.assignment.settled(partition)
            if partition.paused:
                self._balance(partition)

    def give_back(self, records: Iterable[Received]) -> None:
        """Deliver again what is still open: here, or by the partition's next owner."""
        for item in of_kafka(records):
            if is_open(item):
                partition = item.token
                partition.local += 1
                self._given_back.append(item)
                self.assignment.settled(partition)

    async def keep(self, notes: Iterable[tuple[Received, int, Due | None]]) -> None:
        """Make durable how often open records have been redelivered, and when they are due again;
        they stay as they are.

        Raises what may be repeated when that could not be committed.
        """
        async with asyncio.timeout(COMMIT_TIMEOUT):
            await self.assignment.ready.wait()
        # From here to the request nothing else runs, so it is this call's commit that is awaited.
        for record, count, due in notes:
            (item,) = of_kafka((record,))
            partition = item.token
            if partition.tracker.keep(item.offset, count, due):
                partition.counted = True
                self.committer.mark(partition)
        if not await self.committer.flush():
            raise kafka.CommitFailedError("the attempts could not be committed")

    def refresh(self) -> None:
        """Look for new topics and partitions now, in the background."""
        refresh(self.consumer)

    async def aclose(self, commit: float = CLOSE_COMMIT, grace: float = CLOSE_GRACE) -> None:
        """Commit, leave the group, and release everything; bounded, harmless to repeat."""
        if self._closed:
            return
        self._closed = True
        self.committer.stop()
        self._gaps.close()
        if self._trimming is not None:
            self._trimming.cancel()
        try:
            if self.assignment.ready.is_set():
                await self.committer.flush(commit)
        finally:
            self.assignment.close()
            self.committer.give_up()
            self._held = Held()
            self._given_back.clear()
            await stop_consumer(self.consumer, grace)

    async def _is_ready(self, deadline: float) -> bool:
        """Whether partitions may be read; waits for it at most until `deadline`."""
        ready = self.assignment.ready
        if not ready.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await ready.wait()
            except TimeoutError:
                return False
        return True

    async def _fill(self, batch: list[KafkaReceived], timeout: float, limit: int) -> None:
        try:
            found = await self._read(timeout, limit)
        except (kafka.KafkaError, MissingDependency):
            if not batch:
                raise
            # What is in hand must not be lost; the error will come again.
            return
        for tp, records in found:
            self._take(tp, records, batch)
        assert self._fetched is not None
        for tp, end in self._fetched.ends.items():
            partition = self.assignment.partitions.get(tp)
            if partition is not None and partition.tracker.skip_to(end):
                self.committer.mark(partition)

    async def _read(self, timeout: float, limit: int) -> Found:
        assert self._fetched is not None
        try:
            return await self._fetched.read(timeout, limit)
        except TimeoutError:
            return []
        except kafka.KafkaError as error:
            if has_ended(self.consumer):
                raise SourceLost("the consumer has ended") from error
            raise

    def _take_local(self, limit: int) -> list[KafkaReceived]:
        """What was given back, then what has become due."""
        batch: list[KafkaReceived] = []
        while self._given_back and len(batch) < limit:
            item = self._given_back.popleft()
            if is_open(item):
                self._hand_out(item, batch)
        for item in self._held.pop_due(limit - len(batch)):
            partition = item.token
            if not partition.tracker.closed:
                partition.held -= 1
                partition.held_bytes -= item.size
                self._hand_out(item, batch)
                self._balance(partition)
        return batch

    def _hand_out(self, item: KafkaReceived, batch: list[KafkaReceived]) -> None:
        partition = item.token
        if partition.leaving:
            # Its next owner delivers it; or we do, should the partition stay after all.
            partition.withheld.append(item)
        else:
            partition.local -= 1
            batch.append(item)

    def _take(
        self, tp: TopicPartition, records: Sequence[KafkaReceived], batch: list[KafkaReceived]
    ) -> None:
        partition = self.assignment.partitions.get(tp)
        if partition is None:
            log.debug("records of %s, which is not assigned, were dropped", tp)
            return
        if records[0].offset < partition.tracker.position:
            partition = self.assignment.rewind(partition, records[0].offset)
        elif records[0].offset > partition.tracker.position and not partition.retry:
            self._gaps.note(tp, partition.tracker.position, records[0].offset)
        if isinstance(records[0], Unreadable):
            self._refuse(partition, records[0])
            return
        deliver, counted, now = partition.tracker.deliver, partition.counted, now_ms()
        for record in records:
            record.token = partition
            if not deliver(record.offset):
                self.committer.mark(partition)
                continue
            if counted:
                record.redeliveries = partition.tracker.count(record.offset)
                record.not_before = partition.tracker.due(record.offset)
            if partition.retry and (due := record.headers.due()) > now:
                partition.local += 1
                partition.held += 1
                partition.held_bytes += record.size
                self._held.push(due, record)
            else:
                batch.append(record)
        self._balance(partition)

    def _refuse(self, partition: Partition, record: Unreadable) -> None:
        record.token = partition
        if partition.tracker.deliver(record.offset):
            self._unreadable([record], record.reason)
        else:
            self.committer.mark(partition)

    def _balance(self, partition: Partition) -> None:
        """Pause what is too far ahead or holds too much; resume it when half of that is gone."""
        options = self._options
        fullness = max(
            partition.tracker.span
            / (options.max_uncommitted * (HELD_SPAN if partition.retry else 1)),
            partition.held / self._window,
            partition.held_bytes / self._window_bytes,
        )
        pause = fullness > 0.5 if partition.paused else fullness >= 1
        if pause != partition.paused:
            partition.paused = pause
            usable = self.assignment.ready.is_set() and not partition.tracker.closed
            if usable and not partition.leaving:
                (self.consumer.pause if pause else self.consumer.resume)(partition.tp)

    def _reassigned(self) -> None:
        self._held.drop_closed()
        self.committer.give_up()
        self._given_back = deque(item for item in self._given_back if is_open(item))
        for partition in self.assignment.partitions.values():
            if not partition.leaving:
                self._given_back += partition.withheld
                partition.withheld = []
        self._watch.moved()
        if any(partition.dirty for partition in self.assignment.partitions.values()):
            self.committer.wake()

    def _was_committed(self, partition: Partition) -> None:
        """Nothing expires in a held topic: now and then, delete what is done."""
        if not partition.retry or not self._trims:
            return
        self._trimmable[partition.tp] = partition.committed[0]
        now = asyncio.get_running_loop().time()
        if now >= self._trim_at:
            self._trim_at = now + TRIM_INTERVAL
            before, self._trimmable = self._trimmable, {}
            self._trimming = supervise(self._trim(before), name="anymq-kafka-trim")

    async def _trim(self, before: dict[TopicPartition, int]) -> None:
        try:
            await self._topology.trim(before)
        except (kafka.KafkaError, OSError) as error:
            log.debug("deleting what is done from %s failed: %r", list(before), error)


def is_open(record: KafkaReceived) -> bool:
    """Whether the record is unsettled, in an assignment that still holds."""
    still: bool = record.token.tracker.is_open(record.offset)
    return still


def of_kafka(records: Iterable[Received]) -> Iterable[KafkaReceived]:
    """The same: what a reader has handed out."""
    return cast("Iterable[KafkaReceived]", records)
