"""`BroadcastReader`: reads every partition of a topic, without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anymq.driver import Listener, Reader, Received, SubscribeSpec, logger

from .client.compat import AIOKafkaConsumer, TopicPartition
from .client.fetcher import RecordFetcher
from .client.internals import has_ended
from .connection import Clients, stop_consumer
from .group.watchdog import check_topics, lagging_positions
from .messages import UnreadableBatch
from .positions import Offsets, check_start, start_offsets
from .topology import Topology, partitions_of

log = logger("anymq.kafka")

CLOSE_SECONDS = 1.5
LOOK_UP_SECONDS = 5.0
GAP_CHECK_SECONDS = 10.0
"""Between two checks for lost messages. Most gaps are markers, or records lost to compaction."""


class BroadcastReader(Reader):
    """Reads every partition, and partitions that are added later from their beginning.

    Its offsets are in memory. A consumer that has ended is replaced, and the new one continues
    there. A gap in the offsets is a loss only where the log begins above the gap's first offset.
    """

    def __init__(
        self,
        topic: str,
        consumer: AIOKafkaConsumer,
        offsets: Offsets,
        clients: Clients,
        topology: Topology,
        listener: Listener,
    ) -> None:
        self._listener = listener
        self._gaps: Offsets = {}
        """By partition the first offset of a gap that was not checked yet."""
        self._next_gap_check = 0.0
        self._topic = topic
        self._consumer = consumer
        self._fetcher = RecordFetcher(consumer, clients.options.max_decompressed)
        self._offsets = offsets
        self._clients = clients
        self._topology = topology
        self._closed = False
        self.stall = clients.options.stall_timeout
        self._loop = asyncio.get_running_loop()
        self._assign()

    @classmethod
    async def open(
        cls, spec: SubscribeSpec, listener: Listener, clients: Clients, topology: Topology
    ) -> BroadcastReader:
        """Fix the start offset of every partition, and return the reader."""
        topic = spec.topic.native
        check_start(spec.start)
        tps = await partitions_of(topology, topic)
        consumer = clients.consumer(None)
        try:
            async with asyncio.timeout(clients.options.request_timeout):
                await clients.start(consumer)
                if isinstance(spec.position, dict):
                    offsets = dict(spec.position)
                else:
                    offsets = await start_offsets(clients, consumer, tps, spec.start)
            reader = cls(topic, consumer, offsets, clients, topology, listener)
            if spec.position is not None:
                reader._gaps = dict(offsets)
            return reader
        except BaseException:
            await stop_consumer(consumer, 0)
            raise

    @property
    def position(self) -> object:
        return dict(self._offsets)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return ()
        if has_ended(self._consumer):
            await self._replace_consumer()
        self._follow_partitions()
        if self._gaps and self._loop.time() >= self._next_gap_check:
            await self._check_gaps()
        try:
            found = await self._fetcher.read(wait, limit)
        except TimeoutError:
            return ()
        batch: list[Received] = []
        for tp, records in found:
            if isinstance(records[0], UnreadableBatch):
                self._listener.unreadable(records, records[0].reason)
            else:
                batch += records
            offset = self._offsets[tp]
            if records[0].offset > offset:
                self._gaps.setdefault(tp, offset)
            self._offsets[tp] = records[-1].offset + 1
        return batch

    async def undelivered(self) -> object:
        await check_topics(self._topology, [self._topic])
        return await lagging_positions(self._consumer, list(self._offsets)) or None

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await stop_consumer(self._consumer, CLOSE_SECONDS)

    async def _check_gaps(self) -> None:
        """Report the gaps that are losses."""
        async with asyncio.timeout(LOOK_UP_SECONDS):
            begins = await self._consumer.beginning_offsets(list(self._gaps))
        self._next_gap_check = self._loop.time() + GAP_CHECK_SECONDS
        gaps, self._gaps = self._gaps, {}
        for tp, offset in gaps.items():
            if begins[tp] > offset:
                if self._offsets[tp] == offset:
                    self._offsets[tp] = begins[tp]
                    self._consumer.seek(tp, begins[tp])
                number = tp.partition
                self._listener.skipped(f"{number}:{offset - 1}", f"{number}:{begins[tp]}")

    def _assign(self) -> None:
        self._consumer.assign(list(self._offsets))
        for tp, offset in self._offsets.items():
            self._consumer.seek(tp, offset)

    def _follow_partitions(self) -> None:
        known = self._consumer.partitions_for_topic(self._topic) or ()
        if len(known) > len(self._offsets):
            for number in known:
                self._offsets.setdefault(TopicPartition(self._topic, number), 0)
            self._assign()

    async def _replace_consumer(self) -> None:
        log.debug("the consumer of %s has ended; continuing with another", self._topic)
        consumer = self._clients.consumer(None)
        try:
            async with asyncio.timeout(self._clients.options.request_timeout):
                await self._clients.start(consumer)
        except BaseException:
            await stop_consumer(consumer, 0)
            raise
        ended, self._consumer = self._consumer, consumer
        self._fetcher = RecordFetcher(consumer, self._clients.options.max_decompressed)
        self._assign()
        await stop_consumer(ended, CLOSE_SECONDS)
