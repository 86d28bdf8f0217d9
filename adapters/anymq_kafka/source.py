"""`GroupSource`: one member of a consumer group."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from anymq.driver import Nack, Received, Source, SourceLost, SubscribeSpec

from . import retry
from .aio import AIOKafkaConsumer, Consumed, TopicPartition, has_ended, kafka, refresh
from .assignment import Assignment, Partition
from .balance import Balancer
from .clients import Clients, stop_consumer
from .commits import Committer, place_group
from .records import due_of, received, size_of
from .watch import Watch

if TYPE_CHECKING:
    from .publisher import Publisher
    from .topology import Topology

log = logging.getLogger("anymq.kafka")

# How soon something given back is noticed while reading waits for the broker.
SLICE = 0.1
# aiokafka's getmany() waits without a limit while the group rebalances.
READ_GRACE = 1.0
JOIN_WAIT = 3.0
CLOSE_COMMIT, CLOSE_GRACE = 1.0, 1.2
TRIM_INTERVAL = 30.0
# What is done above a retry topic's oldest message is in the commit metadata, so it may go far.
RETRY_SPAN = 100

Token = tuple[Partition, int]


class GroupSource(Source):
    """Reads its partitions and the group's retry topics; settles by offset tracker and copies."""

    def __init__(
        self,
        spec: SubscribeSpec,
        retry_topics: tuple[str, ...],
        consumer: AIOKafkaConsumer,
        balancer: Balancer,
        clients: Clients,
        topology: Topology,
        publisher: Publisher,
    ) -> None:
        self._spec = spec
        self._options = clients.options
        self._retry_topics = retry_topics
        self._consumer = consumer
        self._topology = topology
        self._publisher = publisher
        self._given_back: deque[Received] = deque()
        self._held = retry.Held()
        self._closed = False
        self._trim_at = 0.0
        self._trimmable: dict[TopicPartition, int] = {}
        self._trimming: asyncio.Task[None] | None = None
        self._assignment = Assignment(
            consumer, balancer, retry_topics, handover=self._options.handover
        )
        self._committer = Committer(
            consumer,
            lambda: self._assignment.partitions.values(),
            interval=self._options.commit_interval,
            allowed=self._assignment.ready.wait,
            committed=self._was_committed,
        )
        self._assignment.commit = self._committer.flush
        self._assignment.on_change = self._reassigned
        self._watch = Watch(consumer, self._assignment, self._committer, topology, self._options)

    @classmethod
    async def open(
        cls, spec: SubscribeSpec, clients: Clients, topology: Topology, publisher: Publisher
    ) -> GroupSource:
        """Place the group, make its retry topics, and join it: in the background, if others do not
        give up their partitions soon."""
        topic = spec.topic.native
        retry_topics = retry.retry_topics(spec.native_group)
        if spec.create:
            await topology.create(retry.plans(retry_topics, clients.options))
        elif missing := await topology.missing(retry_topics):
            raise kafka.UnknownTopicOrPartitionError(
                f"the group {spec.native_group} needs its retry topics, and may not create them: "
                + ", ".join(missing)
            )
        partitions = await topology.partitions(topic)
        if partitions is None:
            raise kafka.UnknownTopicOrPartitionError(topic)
        await place_group(clients, spec.native_group, topic, partitions, spec.start)
        balancer = Balancer()
        consumer = clients.consumer(spec.native_group, balancer)
        try:
            async with asyncio.timeout(clients.options.request_timeout):
                await consumer.start()
        except BaseException:
            await stop_consumer(consumer, 0)
            raise
        source = cls(spec, retry_topics, consumer, balancer, clients, topology, publisher)
        try:
            consumer.subscribe([topic, *retry_topics], listener=source._assignment)
            await source._is_ready(asyncio.get_running_loop().time() + JOIN_WAIT)
        except BaseException:
            await source.aclose()
            raise
        return source

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if self._assignment.failure is not None:
            raise SourceLost("the group's offsets could not be read") from self._assignment.failure
        await self._watch.check(polling=limit > 0)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if limit <= 0:
            if self._assignment.ready.is_set():
                # A partition that does not exist: only the time of the last poll is noted.
                await self._read(0, 1, TopicPartition(self._spec.topic.native, -1))
            return ()
        while True:
            batch: list[Received] = []
            if await self._is_ready(deadline):
                batch = self._take_local(limit)
                if len(batch) < limit:
                    timeout = min(SLICE, deadline - loop.time(), self._held.wait())
                    await self._fill(batch, 0 if batch else timeout, limit - len(batch))
            if batch:
                self._watch.moved()
            if batch or loop.time() >= deadline:
                return batch

    async def ack(self, records: Sequence[Received]) -> None:
        self._done([record.token for record in records])
        # What cannot be committed at all must be seen; what cannot just now is repeated by itself.
        if (error := self._committer.error) is not None:
            self._committer.error = None
            raise error

    async def nack(self, nacks: Sequence[Nack]) -> None:
        failure = await self._put_back(nacks)
        if isinstance(failure, kafka.UnknownTopicOrPartitionError) and self._spec.create:
            await self._topology.create(retry.plans(self._retry_topics, self._options))
            refresh(self._consumer)
            failure = await self._put_back(nacks)
        if failure is not None:
            raise failure

    async def release(self, nacks: Sequence[Nack]) -> None:
        for item in nacks:
            if _is_open(item.received.token):
                partition: Partition = item.received.token[0]
                partition.local += 1
                self._given_back.append(item.received)
                self._assignment.settled(partition)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._committer.stop()
        if self._trimming is not None:
            self._trimming.cancel()
        try:
            if self._assignment.ready.is_set():
                await self._committer.flush(CLOSE_COMMIT)
        finally:
            self._assignment.close()
            self._held = retry.Held()
            self._given_back.clear()
            await stop_consumer(self._consumer, CLOSE_GRACE)

    async def _is_ready(self, deadline: float) -> bool:
        """Whether partitions may be read; waits for it at most until `deadline`."""
        ready = self._assignment.ready
        if not ready.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await ready.wait()
            except TimeoutError:
                return False
        return True

    async def _fill(self, batch: list[Received], timeout: float, limit: int) -> None:
        try:
            found = await self._read(timeout, limit)
        except kafka.KafkaError:
            if not batch:
                raise
            # What is in hand must not be lost; the error will come again.
            return
        for tp, records in found.items():
            self._take(tp, records, batch)

    async def _read(
        self, timeout: float, limit: int, *partitions: TopicPartition
    ) -> dict[TopicPartition, list[Consumed]]:
        timeout = max(0.0, timeout)
        try:
            async with asyncio.timeout(timeout + READ_GRACE):
                found: dict[TopicPartition, list[Consumed]] = await self._consumer.getmany(
                    *partitions, timeout_ms=round(timeout * 1000), max_records=limit
                )
                return found
        except TimeoutError:
            return {}
        except kafka.KafkaError as error:
            if has_ended(self._consumer):
                raise SourceLost("the consumer has ended") from error
            raise

    def _take_local(self, limit: int) -> list[Received]:
        """What was given back, then what has become due."""
        batch: list[Received] = []
        while self._given_back and len(batch) < limit:
            item = self._given_back.popleft()
            if _is_open(item.token):
                self._hand_out(item, batch)
        for partition, record in self._held.pop_due(limit - len(batch)):
            if not partition.tracker.closed:
                partition.held -= 1
                partition.held_bytes -= size_of(record)
                token = (partition, record.offset)
                self._hand_out(received(record, token, prefix=partition.prefix), batch)
                self._balance(partition)
        return batch

    def _hand_out(self, item: Received, batch: list[Received]) -> None:
        partition: Partition = item.token[0]
        if partition.leaving:
            # Its next owner delivers it; or we do, should the partition stay after all.
            partition.withheld.append(item)
        else:
            partition.local -= 1
            batch.append(item)

    def _take(self, tp: TopicPartition, records: list[Consumed], batch: list[Received]) -> None:
        partition = self._assignment.partitions.get(tp)
        if partition is None:
            log.debug("records of %s, which is not assigned, were dropped", tp)
            return
        now = retry.now_ms()
        for record in records:
            offset = record.offset
            if offset < partition.tracker.position:
                partition = self._assignment.rewind(partition, offset)
            if not partition.tracker.deliver(offset):
                self._committer.mark(partition)
            elif partition.retry and (due := due_of(record)) > now:
                partition.local += 1
                partition.held += 1
                partition.held_bytes += size_of(record)
                self._held.push(due, partition, record)
            else:
                batch.append(received(record, (partition, offset), prefix=partition.prefix))
        self._balance(partition)

    async def _put_back(self, nacks: Sequence[Nack]) -> BaseException | None:
        """Copy into the retry topics, then settle what was confirmed; return the last failure."""
        live = [item for item in nacks if _is_open(item.received.token)]
        if not live:
            return None
        copies = [(retry.bin_of(self._retry_topics, item.delay), retry.copy(item)) for item in live]
        failure: BaseException | None = None
        stored: list[Token] = []
        for item, outcome in zip(live, await self._publisher.publish(copies), strict=True):
            if isinstance(outcome, BaseException):
                failure = outcome
            else:
                stored.append(item.received.token)
        self._done(stored)
        return failure

    def _done(self, tokens: Iterable[Token]) -> None:
        changed = {partition for partition, offset in tokens if partition.tracker.done(offset)}
        for partition in changed:
            self._committer.mark(partition)
            self._assignment.settled(partition)
            if partition.paused:
                self._balance(partition)

    def _balance(self, partition: Partition) -> None:
        """Pause what is too far ahead or holds too much; resume it when half of that is gone."""
        options = self._options
        fullness = max(
            partition.tracker.span
            / (options.max_uncommitted * (RETRY_SPAN if partition.retry else 1)),
            partition.held / options.retry_window,
            partition.held_bytes / options.retry_window_bytes,
        )
        pause = fullness > 0.5 if partition.paused else fullness >= 1
        if pause != partition.paused:
            partition.paused = pause
            usable = self._assignment.ready.is_set() and not partition.tracker.closed
            if usable and not partition.leaving:
                (self._consumer.pause if pause else self._consumer.resume)(partition.tp)

    def _reassigned(self) -> None:
        self._held.drop_closed()
        self._given_back = deque(item for item in self._given_back if _is_open(item.token))
        for partition in self._assignment.partitions.values():
            if not partition.leaving:
                self._given_back += partition.withheld
                partition.withheld = []
        self._watch.moved()
        if any(partition.dirty for partition in self._assignment.partitions.values()):
            self._committer.wake()

    def _was_committed(self, partition: Partition) -> None:
        """Nothing expires in a retry topic: now and then, delete what is done."""
        if not partition.retry or not self._spec.create:
            return
        self._trimmable[partition.tp] = partition.committed[0]
        now = asyncio.get_running_loop().time()
        if now >= self._trim_at:
            self._trim_at = now + TRIM_INTERVAL
            before, self._trimmable = self._trimmable, {}
            self._trimming = asyncio.create_task(self._trim(before), name="anymq-kafka-trim")

    async def _trim(self, before: dict[TopicPartition, int]) -> None:
        try:
            await self._topology.trim(before)
        except (kafka.KafkaError, OSError) as error:
            log.debug("deleting what is done from %s failed: %r", list(before), error)


def _is_open(token: Any) -> bool:
    partition, offset = token
    is_open: bool = partition.tracker.is_open(offset)
    return is_open
