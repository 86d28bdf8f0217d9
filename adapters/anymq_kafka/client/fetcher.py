"""`Fetched`: what aiokafka's fetcher has brought, a few records at a time.

In the place of `getmany()`: it takes an answer out of the fetcher at once, so that the next one is
asked for while this one is worked on, and reads the records itself (`unpack`). The fetcher has the
bytes of an answer in a local variable only; they are noted as they pass by.

All that is known here of aiokafka's insides is about its fetcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anymq.driver import MissingDependency

from ..messages import KafkaReceived, received
from .batch_reader import MOST, Chunk, chunk
from .internals import AIOKafkaConsumer, FetchRequest, TopicPartition, kafka

HURRY_MS = 20
"""How long the broker may wait for new records while some are coming, or still here: aiokafka asks
for nothing else meanwhile, not even for a partition that has been read to its end since."""

Found = list[tuple[TopicPartition, Sequence[KafkaReceived]]]


class Tap:
    """aiokafka's client, as its fetcher sees it; notes what fetches have brought."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.answers: dict[TopicPartition, tuple[int, bytes]] = {}
        """Where a fetch began, and its bytes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any, **options: Any) -> Any:
        answer = await self._client.send(node, request, **options)
        if isinstance(request, FetchRequest):
            self._note(request, answer)
        return answer

    def _note(self, request: Any, answer: Any) -> None:
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
class Opened:
    """A chunk that is being handed out, during one assignment of its partition."""

    chunk: Chunk
    assignment: Any


class Fetched:
    """Reads what `consumer`, which must have been started, fetches. Used by one task at a time."""

    def __init__(self, consumer: AIOKafkaConsumer, most: int = MOST) -> None:
        """A batch may unpack to `most` bytes."""
        parts: Any = consumer
        self._most = most
        self._consumer = parts
        self._fetcher = parts._fetcher
        self._tap = Tap(self._fetcher._client)
        self._fetcher._client = self._tap
        self._patience = self._fetcher._fetch_max_wait_ms
        self._open: dict[TopicPartition, Opened] = {}
        self.ends: dict[TopicPartition, int] = {}
        """Where the last `read` came to the end of what had been fetched: below there is nothing
        more, although what lies there may be no record (a marker of a transaction)."""

    async def read(self, timeout: float, limit: int) -> Found:
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
            if not found and timeout > 0 and await self._arrival(timeout):
                found = self._take(limit)
        return found

    def is_open(self, tp: TopicPartition) -> bool:
        """Whether more of what has been fetched of `tp` is still to be returned."""
        return tp in self._open

    def touch(self) -> None:
        """Nothing is wanted now: the group shall know that this is no standstill."""
        with self._consumer._subscription.fetch_context():
            pass

    async def _arrival(self, timeout: float) -> bool:
        arrived = self._fetcher._create_fetch_waiter()
        await asyncio.wait((arrived,), timeout=timeout)
        if not arrived.done():
            arrived.cancel()
            return False
        arrived.result()
        return not self._consumer._closed

    def _take(self, limit: int) -> Found:
        found: Found = []
        for tp in list(self._open):
            if limit <= 0:
                break
            limit -= self._go_on(tp, limit, found)
        fetched = self._fetcher._records
        for tp in [tp for tp in fetched if tp not in self._open]:
            if limit <= 0:
                break
            if not hasattr(fetched[tp], "check_assignment"):
                if not found:
                    self._raise(tp)
                break
            limit -= self._begin(tp, limit, found)
        if len(self._tap.answers) > len(fetched):
            # Of some, aiokafka made nothing: their partition has moved, or its position.
            self._tap.answers = {tp: it for tp, it in self._tap.answers.items() if tp in fetched}
        self._fetcher._fetch_max_wait_ms = HURRY_MS if found or self._open else self._patience
        return found

    def _go_on(self, tp: TopicPartition, limit: int, found: Found) -> int:
        opened = self._open[tp]
        if not opened.assignment.active:
            del self._open[tp]
            return 0
        if opened.assignment.state_value(tp).paused:
            return 0
        try:
            records = opened.chunk.take(limit)
        except kafka.CorruptRecordException:
            del self._open[tp]
            self._fetcher.seek_to(tp, opened.chunk.begin)
            if found:
                return 0  # it will come again
            raise
        if not opened.chunk:
            del self._open[tp]
            self.ends[tp] = opened.chunk.end
        if records:
            found.append((tp, records))
        return len(records)

    def _begin(self, tp: TopicPartition, limit: int, found: Found) -> int:
        """Take up what has been fetched from `tp`."""
        fetcher = self._fetcher
        result = fetcher._records[tp]
        begin, data = self._tap.answers.pop(tp, (-1, b""))
        if not result.check_assignment(tp):
            self._done(tp)
            return 0
        fresh = data and begin == result._partition_records.next_fetch_offset
        try:
            opened = chunk(tp, data, begin, self._most) if fresh else None
        except MissingDependency:
            # What came before it is to be handled; this comes again, and is said then.
            self._done(tp)
            fetcher.seek_to(tp, begin)
            if found:
                return 0
            raise
        if opened is None:
            return self._left_to_aiokafka(tp, limit, found)
        result._assignment.state_value(tp).consumed_to(opened.end)
        self._done(tp)
        self._open[tp] = Opened(opened, result._assignment)
        return self._go_on(tp, limit, found)

    def _left_to_aiokafka(self, tp: TopicPartition, limit: int, found: Found) -> int:
        result = self._fetcher._records[tp]
        begin = result._assignment.state_value(tp).position
        try:
            records = [received(record) for record in result.getall(limit)]
        except kafka.KafkaError:
            # It has gone past what it had read before that.
            self._fetcher.seek_to(tp, begin)
            if found:
                return 0
            raise
        if not result.has_more():
            self.ends[tp] = result._assignment.state_value(tp).position
            self._done(tp)
        if records:
            found.append((tp, records))
        return len(records)

    def _raise(self, tp: TopicPartition) -> None:
        error = self._fetcher._records[tp]
        self._done(tp)
        error.check_raise()

    def _done(self, tp: TopicPartition) -> None:
        """Let the fetcher go on with `tp`."""
        del self._fetcher._records[tp]
        self._fetcher._notify(self._fetcher._wait_consume_future)
