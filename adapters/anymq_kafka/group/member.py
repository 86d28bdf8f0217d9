"""`GroupMember`: reads partitions as a member of a consumer group, and commits settled offsets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence

from anymq.driver import (
    Due,
    GroupReader,
    Listener,
    MissingDependency,
    Reader,
    Received,
    SourceLost,
    logger,
)

from ..client.compat import TopicPartition, kafka
from ..client.fetcher import FetchedRecords, RecordFetcher
from ..client.internals import has_ended, refresh_metadata
from ..connection import Clients, stop_consumer
from ..messages import KafkaReceived, UnreadableBatch, as_kafka, now_ms
from ..topology import Topology
from .assignment import Assignment, Partition, Revoke
from .assignor import Assignor
from .committer import COMMIT_SECONDS, Committer
from .maintenance import LossReporter, Trimmer
from .pending import DelayQueue
from .watchdog import Watchdog

log = logger("anymq.kafka")

READ_SECONDS = 0.1
"""For one wait for the broker, after which released records are delivered."""
JOIN_SECONDS = 3.0
CLOSE_COMMIT_SECONDS, CLOSE_SECONDS = 1.0, 1.2
DELAY_SPAN_FACTOR = 100
"""Delay topics are read this many times `max_uncommitted` ahead, because the metadata of their
commits has the records that are settled above the oldest unsettled one."""


class GroupMember(Reader):
    """A member that reads `topics`. Records of `delay_topics` wait in memory until they are due.

    With `trim` it deletes settled records from the delay topics, in which nothing expires. With
    `revoke` it is a member of an ordered group.
    """

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        delay_topics: Collection[str],
        clients: Clients,
        topology: Topology,
        *,
        listener: Listener,
        trim: bool = True,
        window: int | None = None,
        window_bytes: int | None = None,
        revoke: Revoke | None = None,
    ) -> None:
        self._topics = list(topics)
        self._options = options = clients.options
        self._window = window or options.retry_window
        self._window_bytes = window_bytes or options.retry_window_bytes
        self._released: deque[KafkaReceived] = deque()
        self._delayed = DelayQueue()
        self._listener = listener
        self._closed = False
        self._trimmer = Trimmer(topology) if trim else None
        assignor = Assignor(ordered=revoke is not None)
        self._clients = clients
        self.consumer = clients.consumer(group, assignor)
        self._losses = LossReporter(self.consumer, group)
        self._fetcher: RecordFetcher | None = None
        self.assignment = Assignment(
            self.consumer, assignor, delay_topics, handover=options.handover, revoke=revoke
        )
        self.committer = Committer(
            self.consumer,
            lambda: self.assignment.partitions.values(),
            interval=options.commit_interval,
            allowed=self.assignment.ready.wait,
            committed=self._on_commit,
            dropped=listener.dropped,
        )
        self.assignment.commit = self.committer.flush
        self.assignment.on_change = self._on_rebalance
        self._watchdog = Watchdog(self.consumer, self.assignment, self.committer, topology, options)
        self.stall = options.stall_timeout
        # The last heartbeat may have been sent one interval before the process fell silent.
        self.silence = options.session_timeout - options.heartbeat

    async def join(self) -> None:
        """Join the group, and wait at most `JOIN_SECONDS` for partitions; the rest runs on.

        Closes the member if that fails.
        """
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await self._clients.start(self.consumer)
        except BaseException:
            await self.aclose(grace=0.0)
            raise
        try:
            self._fetcher = RecordFetcher(self.consumer, self._options.max_decompressed)
            self.consumer.subscribe(self._topics, listener=self.assignment)
            await self._is_ready(asyncio.get_running_loop().time() + JOIN_SECONDS)
        except BaseException:
            await self.aclose()
            raise

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if self.assignment.failure is not None:
            raise SourceLost("the group's offsets could not be read") from self.assignment.failure
        await self._watchdog.check()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if limit <= 0:
            if self._fetcher is not None:
                self._fetcher.keep_alive()
            return []
        while True:
            batch: list[KafkaReceived] = []
            if await self._is_ready(deadline):
                batch = self._take_waiting(limit)
                if len(batch) < limit:
                    timeout = min(READ_SECONDS, deadline - loop.time(), self._delayed.wait())
                    await self._fill(batch, 0 if batch else timeout, limit - len(batch))
            if batch or loop.time() >= deadline:
                return batch

    async def undelivered(self) -> object:
        return await self._watchdog.undelivered()

    def ack(self, records: Sequence[Received]) -> None:
        """Settle `records`, and raise the error of an earlier commit that cannot succeed."""
        self.settle(records)
        if (error := self.committer.error) is not None:
            self.committer.error = None
            raise error

    def settle(self, records: Iterable[Received]) -> None:
        """Mark `records` as done, except stale ones. The commit follows in the background."""
        items = list(as_kafka(records))
        changed = {record.token for record in items if record.token.tracker.done(record.offset)}
        self.committer.settled(items)
        if any({record.token.tracker.closed for record in items}):
            self.committer.drop_lost()
        for partition in changed:
            self.committer.mark(partition)
            self.assignment.settled(partition)
            if partition.paused:
                self._throttle(partition)

    def release(self, records: Iterable[Received]) -> None:
        """Deliver the unsettled of `records` again, here or by the partition's next owner."""
        for item in as_kafka(records):
            if is_open(item):
                partition = item.token
                partition.waiting_count += 1
                self._released.append(item)
                self.assignment.settled(partition)

    async def keep(self, notes: Iterable[tuple[Received, int, Due | None]]) -> None:
        """Commit the redelivery counts and due times of unsettled records, which stay in flight.

        Raises an error that the core repeats if the commit failed.
        """
        async with asyncio.timeout(COMMIT_SECONDS):
            await self.assignment.ready.wait()
        # No other task runs until the request is sent, so `flush` awaits the commit of these notes.
        for record, count, due in notes:
            (item,) = as_kafka((record,))
            partition = item.token
            if partition.tracker.keep(item.offset, count, due):
                partition.has_counts = True
                self.committer.mark(partition)
        if not await self.committer.flush():
            raise kafka.CommitFailedError("the attempts could not be committed")

    def refresh(self) -> None:
        """Look up new topics and partitions now, in the background."""
        refresh_metadata(self.consumer)

    async def aclose(
        self, commit: float = CLOSE_COMMIT_SECONDS, grace: float = CLOSE_SECONDS
    ) -> None:
        """Commit within `commit` seconds, leave the group within `grace`, and release everything.

        A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self.committer.stop()
        self._losses.close()
        if self._trimmer is not None:
            self._trimmer.close()
        try:
            if self.assignment.ready.is_set():
                await self.committer.flush(commit)
        finally:
            self.assignment.close()
            self.committer.drop_lost()
            self._delayed = DelayQueue()
            self._released.clear()
            await stop_consumer(self.consumer, grace)

    async def _is_ready(self, deadline: float) -> bool:
        """Wait until partitions may be read, at most until `deadline`; return whether they may."""
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
            # Return the batch rather than lose it. The next read meets the error again.
            return
        for tp, records in found:
            self._take(tp, records, batch)
        assert self._fetcher is not None
        for tp, end in self._fetcher.ends.items():
            partition = self.assignment.partitions.get(tp)
            if partition is not None and partition.tracker.skip_to(end):
                self.committer.mark(partition)

    async def _read(self, timeout: float, limit: int) -> FetchedRecords:
        assert self._fetcher is not None
        try:
            return await self._fetcher.read(timeout, limit)
        except TimeoutError:
            return []
        except kafka.KafkaError as error:
            if has_ended(self.consumer):
                raise SourceLost("the consumer has ended") from error
            raise

    def _take_waiting(self, limit: int) -> list[KafkaReceived]:
        """Return released records, then records that have become due."""
        batch: list[KafkaReceived] = []
        while self._released and len(batch) < limit:
            item = self._released.popleft()
            if is_open(item):
                self._deliver(item, batch)
        for item in self._delayed.pop_due(limit - len(batch)):
            partition = item.token
            if not partition.tracker.closed:
                self._deliver(item, batch)
                self._throttle(partition)
        return batch

    def _deliver(self, item: KafkaReceived, batch: list[KafkaReceived]) -> None:
        partition = item.token
        if partition.leaving:
            # Its next owner delivers it; or this member, if the partition stays after all.
            partition.held_back.append(item)
        else:
            partition.waiting_count -= 1
            batch.append(item)

    def _take(
        self, tp: TopicPartition, records: Sequence[KafkaReceived], batch: list[KafkaReceived]
    ) -> None:
        partition = self.assignment.partitions.get(tp)
        if partition is None:
            log.debug("records of %s were dropped: it is not assigned to this member", tp)
            return
        if records[0].offset < partition.tracker.position:
            partition = self.assignment.restart(partition, records[0].offset)
        elif records[0].offset > partition.tracker.position and not partition.is_delay_topic:
            self._losses.note(tp, partition.tracker.position, records[0].offset)
        if isinstance(records[0], UnreadableBatch):
            self._report_unreadable(partition, records[0])
            return
        deliver, has_counts, now = partition.tracker.deliver, partition.has_counts, now_ms()
        for record in records:
            record.token = partition
            if not deliver(record.offset):
                self.committer.mark(partition)
                continue
            if has_counts:
                record.redeliveries = partition.tracker.count(record.offset)
                record.not_before = partition.tracker.due(record.offset)
            if partition.is_delay_topic and (due := record.headers.due()) > now:
                partition.waiting_count += 1
                self._delayed.push(due, record)
            else:
                batch.append(record)
        self._throttle(partition)

    def _report_unreadable(self, partition: Partition, record: UnreadableBatch) -> None:
        record.token = partition
        if partition.tracker.deliver(record.offset):
            self._listener.unreadable([record], record.reason)
        else:
            self.committer.mark(partition)

    def _throttle(self, partition: Partition) -> None:
        """Pause a partition that is read too far ahead; resume it at half of the limits."""
        options = self._options
        factor = DELAY_SPAN_FACTOR if partition.is_delay_topic else 1
        fullness = max(
            partition.tracker.span / (options.max_uncommitted * factor),
            partition.delayed_count / self._window,
            partition.delayed_bytes / self._window_bytes,
        )
        pause = fullness > 0.5 if partition.paused else fullness >= 1
        if pause != partition.paused:
            partition.paused = pause
            usable = self.assignment.ready.is_set() and not partition.tracker.closed
            if usable and not partition.leaving:
                (self.consumer.pause if pause else self.consumer.resume)(partition.tp)

    def _on_rebalance(self) -> None:
        self._delayed.drop_closed()
        self.committer.drop_lost()
        self._released = deque(item for item in self._released if is_open(item))
        for partition in self.assignment.partitions.values():
            if not partition.leaving:
                self._released += partition.held_back
                partition.held_back = []
        if any(partition.dirty for partition in self.assignment.partitions.values()):
            self.committer.wake()

    def _on_commit(self, partition: Partition) -> None:
        if partition.is_delay_topic and self._trimmer is not None:
            self._trimmer.settled(partition.tp, partition.committed[0])


class MemberSource(GroupReader):
    """A source of a group: the part of it that ordered and unordered groups share."""

    def __init__(self, member: GroupMember) -> None:
        self._member = member
        self.stall = member.stall
        self.silence = member.silence

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        return await self._member.receive(limit, wait)

    async def undelivered(self) -> object:
        return await self._member.undelivered()

    async def ack(self, records: Sequence[Received]) -> None:
        self._member.ack(records)

    async def aclose(self) -> None:
        await self._member.aclose()


def is_open(record: KafkaReceived) -> bool:
    """Whether the record is unsettled, in an assignment that has not ended."""
    still_open: bool = record.token.tracker.is_open(record.offset)
    return still_open
