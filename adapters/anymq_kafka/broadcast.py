"""`BroadcastSource`: a reader of its own, without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anymq.driver import Nack, Received, Source, SourceLost, SubscribeSpec
from anymq.logs import logger

from .aio import AIOKafkaConsumer, TopicPartition, has_ended, kafka
from .clients import Clients, stop_consumer
from .fetched import Fetched
from .places import check, partitions_of, places_for
from .topology import Topology
from .watch import Progress

log = logger("anymq.kafka")

CLOSE_GRACE = 1.5
LOOK_TIMEOUT = 5.0


class BroadcastSource(Source):
    """Reads every partition, also those that are added later, from its beginning.

    Its place is in memory: a consumer that has fallen silent is replaced by one that goes on from
    there.
    """

    def __init__(
        self,
        topic: str,
        consumer: AIOKafkaConsumer,
        places: dict[TopicPartition, int],
        clients: Clients,
        topology: Topology,
    ) -> None:
        self._topic = topic
        self._consumer = consumer
        self._fetched = Fetched(consumer)
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
        cls, spec: SubscribeSpec, clients: Clients, topology: Topology
    ) -> BroadcastSource:
        """Fix the place to begin at, in every partition."""
        topic = spec.topic.native
        check(spec.start)
        tps = await partitions_of(topology, topic)
        consumer = clients.consumer(None)
        try:
            async with asyncio.timeout(clients.options.request_timeout):
                await clients.start(consumer)
                places = await places_for(clients, consumer, tps, spec.start)
            return cls(topic, consumer, places, clients, topology)
        except BaseException:
            await stop_consumer(consumer, 0)
            raise

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
        try:
            found = await self._fetched.read(wait, limit)
        except TimeoutError:
            return ()
        batch: list[Received] = []
        for tp, records in found:
            batch += records
            self._places[tp] = records[-1].offset + 1
        if batch:
            self._moved()
        return batch

    async def ack(self, records: Sequence[Received]) -> None:
        """Nothing to settle."""

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def release(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await stop_consumer(self._consumer, CLOSE_GRACE)

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
        self._fetched = Fetched(consumer)
        self._assign()
        self._moved()
        await stop_consumer(old, CLOSE_GRACE)
