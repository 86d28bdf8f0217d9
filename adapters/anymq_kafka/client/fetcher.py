"""`RecordFetcher`: returns the records that aiokafka's fetcher has fetched, a few at a time.

It replaces `getmany()`. It takes an answer out of aiokafka's fetcher at once, so that the fetcher
requests the next one meanwhile, and decodes the records itself (`batch_reader`). aiokafka holds the
bytes of an answer in a local variable only, so `FetchRecorder` copies the reference on their way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anymq.driver import MissingDependency

from ..messages import KafkaReceived, from_aiokafka
from .batch_reader import BatchReader, read_batches
from .codec import MAX_DECOMPRESSED
from .compat import AIOKafkaConsumer, FetchRequest, TopicPartition, kafka

BUSY_FETCH_WAIT_MS = 20
"""Milliseconds that the broker may wait for new records while earlier ones are still being read.

aiokafka sends a node no other fetch meanwhile, not even for a partition that has been read up."""

FetchedRecords = list[tuple[TopicPartition, Sequence[KafkaReceived]]]


class FetchRecorder:
    """aiokafka's client as its fetcher uses it, with the bytes of every fetch answer recorded."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.answers: dict[TopicPartition, tuple[int, bytes]] = {}
        """By partition the offset that was fetched from, and the bytes of the answer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any, **options: Any) -> Any:
        answer = await self._client.send(node, request, **options)
        if isinstance(request, FetchRequest):
            self._record(request, answer)
        return answer

    def _record(self, request: Any, answer: Any) -> None:
        begins = {
            (topic, partition): begin
            for topic, partitions in request.topics
            for partition, begin, _ in partitions
        }
        for topic, partitions in answer.topics:
            for partition, *_, data in partitions:
                begin = begins.get((topic, partition))
                if data and begin is not None:
                    self.answers[TopicPartition(topic, partition)] = (begin, data)


@dataclass(slots=True)
class OpenAnswer:
    """An answer whose records are being returned, and the assignment in which it was fetched."""

    reader: BatchReader
    assignment: Any


class RecordFetcher:
    """Reads the records that `consumer` fetches. One task at a time may use it.

    `consumer` must have been started. A batch may decompress to `max_decompressed` bytes.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, max_decompressed: int = MAX_DECOMPRESSED
    ) -> None:
        parts: Any = consumer
        self._max_decompressed = max_decompressed
        self._consumer = parts
        self._fetcher = parts._fetcher
        self._recorder = FetchRecorder(self._fetcher._client)
        self._fetcher._client = self._recorder
        self._idle_wait_ms = self._fetcher._fetch_max_wait_ms
        self._open: dict[TopicPartition, OpenAnswer] = {}
        self.ends: dict[TopicPartition, int] = {}
        """Partitions in which the last `read` reached the end of an answer, and that end.

        All offsets below it have been read. The last of them may hold no record but the marker of
        a transaction."""

    async def read(self, timeout: float, limit: int) -> FetchedRecords:
        """Return up to `limit` records, waiting up to `timeout` seconds for the first."""
        self.ends = {}
        consumer = self._consumer
        if consumer._closed:
            raise kafka.ConsumerStoppedError
        consumer._coordinator.check_errors()
        subscriptions = consumer._subscription
        with subscriptions.fetch_context():
            if subscriptions.reassignment_in_progress:
                async with asyncio.timeout(max(timeout, 0)):
                    await subscriptions.wait_for_assignment()
            found = self._take(limit)
            if not found and timeout > 0 and await self._wait_for_answer(timeout):
                found = self._take(limit)
        return found

    def is_open(self, tp: TopicPartition) -> bool:
        """Whether more of what has been fetched of `tp` is still to be returned."""
        return tp in self._open

    def keep_alive(self) -> None:
        """Count as polled, so that the consumer does not leave its group while nothing is read."""
        with self._consumer._subscription.fetch_context():
            pass

    async def _wait_for_answer(self, timeout: float) -> bool:
        arrived = self._fetcher._create_fetch_waiter()
        await asyncio.wait((arrived,), timeout=timeout)
        if not arrived.done():
            arrived.cancel()
            return False
        arrived.result()
        return not self._consumer._closed

    def _take(self, limit: int) -> FetchedRecords:
        found: FetchedRecords = []
        for tp in list(self._open):
            if limit <= 0:
                break
            limit -= self._continue(tp, limit, found)
        fetched = self._fetcher._records
        for tp in [tp for tp in fetched if tp not in self._open]:
            if limit <= 0:
                break
            if not hasattr(fetched[tp], "check_assignment"):
                if not found:
                    self._raise(tp)
                break
            limit -= self._begin(tp, limit, found)
        if len(self._recorder.answers) > len(fetched):
            # aiokafka discards an answer if its partition or position has changed meanwhile.
            answers = self._recorder.answers
            self._recorder.answers = {tp: answers[tp] for tp in answers if tp in fetched}
        busy = found or self._open
        self._fetcher._fetch_max_wait_ms = BUSY_FETCH_WAIT_MS if busy else self._idle_wait_ms
        return found

    def _continue(self, tp: TopicPartition, limit: int, found: FetchedRecords) -> int:
        opened = self._open[tp]
        if not opened.assignment.active:
            del self._open[tp]
            return 0
        if opened.assignment.state_value(tp).paused:
            return 0
        try:
            records = opened.reader.take(limit)
        except kafka.CorruptRecordException:
            del self._open[tp]
            self._fetcher.seek_to(tp, opened.reader.begin)
            if found:
                return 0  # the next read meets the error again
            raise
        if not opened.reader:
            del self._open[tp]
            self.ends[tp] = opened.reader.end
        if records:
            found.append((tp, records))
        return len(records)

    def _begin(self, tp: TopicPartition, limit: int, found: FetchedRecords) -> int:
        """Open the answer that was fetched from `tp`."""
        fetcher = self._fetcher
        result = fetcher._records[tp]
        begin, data = self._recorder.answers.pop(tp, (-1, b""))
        if not result.check_assignment(tp):
            self._release(tp)
            return 0
        current = data and begin == result._partition_records.next_fetch_offset
        try:
            reader = read_batches(tp, data, begin, self._max_decompressed) if current else None
        except MissingDependency:
            # Return the records before it first. The next read meets the error again.
            self._release(tp)
            fetcher.seek_to(tp, begin)
            if found:
                return 0
            raise
        if reader is None:
            return self._read_by_aiokafka(tp, limit, found)
        result._assignment.state_value(tp).consumed_to(reader.end)
        self._release(tp)
        self._open[tp] = OpenAnswer(reader, result._assignment)
        return self._continue(tp, limit, found)

    def _read_by_aiokafka(self, tp: TopicPartition, limit: int, found: FetchedRecords) -> int:
        result = self._fetcher._records[tp]
        begin = result._assignment.state_value(tp).position
        try:
            records = [from_aiokafka(record) for record in result.getall(limit)]
        except kafka.KafkaError:
            # aiokafka has advanced over the records before the error, which are lost here.
            self._fetcher.seek_to(tp, begin)
            if found:
                return 0
            raise
        if not result.has_more():
            self.ends[tp] = result._assignment.state_value(tp).position
            self._release(tp)
        if records:
            found.append((tp, records))
        return len(records)

    def _raise(self, tp: TopicPartition) -> None:
        error = self._fetcher._records[tp]
        self._release(tp)
        error.check_raise()

    def _release(self, tp: TopicPartition) -> None:
        """Let aiokafka fetch the next records of `tp`."""
        del self._fetcher._records[tp]
        self._fetcher._notify(self._fetcher._wait_consume_future)
