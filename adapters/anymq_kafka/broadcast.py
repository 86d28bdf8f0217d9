"""`BroadcastSource`: a reader of its own, without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anymq.driver import Listener, Reader, Received, SourceLost, SubscribeSpec, logger

from .client.fetcher import Fetched
from .client.internals import AIOKafkaConsumer, TopicPartition, has_ended, kafka
from .connection import Clients, stop_consumer
from .group.watchdog import Progress
from .messages import Unreadable
from .positions import check, partitions_of, places_for
from .topology import Topology

log = logger("anymq.kafka")

CLOSE_GRACE = 1.5
LOOK_TIMEOUT = 5.0
JUMP_PAUSE = 10.0


class BroadcastSource(Reader):
    """Reads every partition, also those that are added later, from its beginning.

    Its place is in memory: a consumer that has fallen silent is replaced by one that goes on from
    there. A jump in the offsets may be a transaction's end, or what compaction left out: whether
    retention has deleted what was not read, the beginning of the log tells.
    """

    def __init__(
        self,
        topic: str,
        consumer: AIOKafkaConsumer,
        places: dict[TopicPartition, int],
        clients: Clients,
        topology: Topology,
        listener: Listener,
    ) -> None:
        self._listener = listener
        self._jumps: dict[TopicPartition, int] = {}
        """Where there was a jump that has not been looked at."""
        self._look_after = 0.0
        self._topic = topic
        self._consumer = consumer
        self._fetched = Fetched(consumer, clients.options.max_decompressed)
        self._places = places
        self._clients = clients
        self._topology = topology
        self._closed = False
        self._stall = clients.options.stall_timeout
        self._progress = Progress()
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time() + self._stall
        self._assign()

    @classmethod
    async def open(
        cls, spec: SubscribeSpec, listener: Listener, clients: Clients, topology: Topology
    ) -> BroadcastSource:
        """Fix the place to begin at, in every partition."""
        topic = spec.topic.native
        check(spec.start)
        tps = await partitions_of(topology, topic)
        consumer = clients.consumer(None)
        try:
            async with asyncio.timeout(clients.options.request_timeout):
                await clients.start(consumer)
                if isinstance(spec.place, dict):
                    places = dict(spec.place)
                else:
                    places = await places_for(clients, consumer, tps, spec.start)
            source = cls(topic, consumer, places, clients, topology, listener)
            if spec.place is not None:
                source._jumps = dict(places)
            return source
        except BaseException:
            await stop_consumer(consumer, 0)
            raise

    @property
    def place(self) -> object:
        return dict(self._places)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            self._moved()
            return ()
        if has_ended(self._consumer):
            await self._replace("its reading task has ended")
        elif self._loop.time() >= self._next:
            self._next = self._loop.time() + self._stall
            async with asyncio.timeout(LOOK_TIMEOUT):
                await self._look()
        self._follow_partitions()
        if self._jumps and self._loop.time() >= self._look_after:
            await self._tell_gaps()
        try:
            found = await self._fetched.read(wait, limit)
        except TimeoutError:
            return ()
        batch: list[Received] = []
        for tp, records in found:
            if isinstance(records[0], Unreadable):
                self._listener.unreadable(records, records[0].reason)
            else:
                batch += records
            place = self._places[tp]
            if records[0].offset > place:
                self._jumps.setdefault(tp, place)
            self._places[tp] = records[-1].offset + 1
        if batch:
            self._moved()
        return batch

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await stop_consumer(self._consumer, CLOSE_GRACE)

    async def _tell_gaps(self) -> None:
        """Say what was deleted before it was read; now and then, for most jumps are none."""
        async with asyncio.timeout(LOOK_TIMEOUT):
            begins = await self._consumer.beginning_offsets(list(self._jumps))
        self._look_after = self._loop.time() + JUMP_PAUSE
        jumps, self._jumps = self._jumps, {}
        for tp, place in jumps.items():
            if begins[tp] > place:
                if self._places[tp] == place:
                    self._places[tp] = begins[tp]
                    self._consumer.seek(tp, begins[tp])
                number = tp.partition
                self._listener.skipped(f"{number}:{place - 1}", f"{number}:{begins[tp]}")

    def _moved(self) -> None:
        self._next = self._loop.time() + self._stall
        self._progress.forget()

    def _assign(self) -> None:
        self._consumer.assign(list(self._places))
        for tp, place in self._places.items():
            self._consumer.seek(tp, place)

    def _follow_partitions(self) -> None:
        known = self._consumer.partitions_for_topic(self._topic) or ()
        if len(known) > len(self._places):
            for number in known:
                self._places.setdefault(TopicPartition(self._topic, number), 0)
            self._assign()

    async def _look(self) -> None:
        if await self._topology.partitions(self._topic) is None:
            raise SourceLost(f"{self._topic} is gone") from kafka.UnknownTopicOrPartitionError(
                self._topic
            )
        try:
            stuck = await self._progress.stuck(self._consumer, list(self._places))
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
            return
        if stuck:
            await self._replace(f"reading does not go on: {stuck}")

    async def _replace(self, reason: str) -> None:
        log.debug("%s: a new consumer (%s)", self._topic, reason)
        consumer = self._clients.consumer(None)
        try:
            async with asyncio.timeout(self._clients.options.request_timeout):
                await self._clients.start(consumer)
        except BaseException:
            await stop_consumer(consumer, 0)
            raise
        old, self._consumer = self._consumer, consumer
        self._fetched = Fetched(consumer, self._clients.options.max_decompressed)
        self._assign()
        self._moved()
        await stop_consumer(old, CLOSE_GRACE)
