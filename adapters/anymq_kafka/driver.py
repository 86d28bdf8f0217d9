"""`KafkaDriver`: one connection to one Kafka cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import ClassVar, Self

from anymq.driver import (
    URL,
    Binding,
    Capabilities,
    Check,
    Clock,
    ConfigurationError,
    Driver,
    Endpoint,
    ErrorTable,
    GroupInfo,
    Listener,
    Outcome,
    Reader,
    Received,
    Record,
    Start,
    SubscribeSpec,
    TopicInfo,
    TopicSpec,
    logger,
)

from . import admin, checks, positions
from .broadcast import BroadcastReader
from .capabilities import CAPABILITIES
from .client.compat import CLIENT_PARTS, AIOKafkaProducer, kafka
from .client.internals import hide_logins
from .connection import Clients, endpoints
from .delays import DelayMover, delayed_copy, is_target
from .errors import ERRORS
from .messages import now_ms
from .options import KafkaOptions
from .ordered import OrderedGroup
from .publisher import Publisher
from .source import GroupSource
from .topology import TopicPlan, Topology, settings, size_bound

MIB = 1024 * 1024

log = logger("anymq.kafka")


class KafkaDriver(Driver):
    """A producer and an admin client for the whole process. Every source has its own consumer."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix="ce_", native_key=True)
    options: ClassVar[type[KafkaOptions]] = KafkaOptions
    name_option = "client_id"
    tls_schemes: ClassVar[frozenset[str]] = frozenset({"kafka+ssl"})
    client_parts = CLIENT_PARTS
    client_loggers = ("aiokafka",)
    grants = checks.GRANTS
    max_batch: ClassVar[int] = 1000
    overlap: ClassVar[int] = 2
    max_batch_bytes: ClassVar[int] = 4 * MIB
    # The broker closes the connection of a request over socket.request.max.bytes (100 MiB).
    max_body: ClassVar[float] = 64 * MIB

    def __init__(self, clients: Clients, clock: Clock) -> None:
        self.clock = clock
        self._clients = clients
        self._publisher = Publisher(clients)
        self._topology = Topology(clients)
        self._mover = DelayMover(clients, self._topology, self._publisher)
        self._topics: dict[str, TopicSpec] = {}
        self._natives: dict[str, str] = {}
        self._surplus: dict[str, int] = {}
        """By topic with more partitions than it was declared with: the number that was logged."""

    @classmethod
    async def open(cls, url: URL, options: KafkaOptions, *, timeout: float, clock: Clock) -> Self:
        hide_logins()
        clients = Clients(url, options)
        deadline = asyncio.get_running_loop().time() + timeout
        await clients.probe(timeout)
        driver = cls(clients, clock)
        try:
            async with asyncio.timeout_at(deadline):
                await driver._publisher.open()
        except kafka.ClusterAuthorizationFailedError:
            # A user who may only consume. The first publish will raise the error.
            return driver
        except BaseException:
            await driver.aclose()
            raise
        return driver

    @property
    def native(self) -> AIOKafkaProducer | None:
        """The producer in use; None while there is none."""
        return self._publisher.producer

    async def ping(self) -> None:
        await self._topology.ping()

    async def declare(self, topic: TopicSpec) -> None:
        self._topics[topic.name] = topic
        self._natives[topic.name] = topic.native
        self._mover.start()
        if topic.create:
            await self._create(topic)
        if topic.partitions is None:
            return
        count = await self._topology.partitions(topic.native)
        if count is None or count == topic.partitions:
            return
        if count < topic.partitions:
            raise ConfigurationError(
                f"the topic {topic.native} has {count} partitions, not {topic.partitions}"
            )
        # Kafka cannot remove partitions, so anymq continues with all of them.
        if self._surplus.get(topic.native) != count:
            self._surplus[topic.native] = count
            log.warning(
                "the topic %s has %d partitions, more than the %d that are asked for: all of them "
                "are used, and keys are spread over all",
                topic.native,
                count,
                topic.partitions,
            )

    async def _create(self, topic: TopicSpec) -> None:
        options = self._clients.options
        retention = options.retention if topic.retention is None else topic.retention
        partitions = topic.partitions or options.partitions
        config = settings(body=options.max_body, retention=retention)
        if topic.retention_bytes is not None:
            config |= size_bound(topic.retention_bytes, partitions)
        plan = TopicPlan(topic.native, partitions, options.replication, config)
        await self._topology.create([plan])

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        now = now_ms()
        delayed = [
            number
            for number, record in enumerate(records)
            if record.deliver_at is not None and record.deliver_at * 1000 > now
        ]
        native = self._natives.get
        topics = [native(record.topic, record.topic) for record in records]
        if not delayed:
            return await self._publisher.publish(topics, records)
        return await self._publish_some_delayed(topics, records, frozenset(delayed))

    async def _publish_some_delayed(
        self, topics: Sequence[str], records: Sequence[Record], delayed: frozenset[int]
    ) -> Sequence[Outcome]:
        """Publish `records`, those at the indexes `delayed` into the delay tiers."""
        failure = await self._prepare_tiers(records[number].topic for number in delayed)
        outcomes: list[Outcome] = [None] * len(records)
        for number in delayed:
            outcomes[number] = failure or _refusal(topics[number])
        chosen = [number for number, outcome in enumerate(outcomes) if outcome is None]
        items = [
            delayed_copy(topics[n], records[n]) if n in delayed else (topics[n], records[n])
            for n in chosen
        ]
        stored = await self._publisher.publish(
            [topic for topic, _ in items], [record for _, record in items]
        )
        for number, outcome in zip(chosen, stored, strict=True):
            outcomes[number] = outcome
            if number in delayed:
                if isinstance(outcome, kafka.UnknownTopicOrPartitionError):
                    self._mover.forget()
                elif not isinstance(outcome, BaseException):
                    outcomes[number] = None
        return outcomes

    async def _prepare_tiers(self, topics: Iterable[str]) -> BaseException | None:
        """Create the delay tiers; return the error, because it must not fail the other records."""
        specs = [self._topics.get(topic) for topic in topics]
        try:
            await self._mover.prepare(create=all(spec is None or spec.create for spec in specs))
        except (kafka.KafkaError, OSError) as error:
            return error
        return None

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        self._mover.start()
        if spec.group is None:
            return await BroadcastReader.open(spec, listener, self._clients, self._topology)
        if spec.ordered:
            return await OrderedGroup.open(spec, listener, self._clients, self._topology)
        return await GroupSource.open(
            spec, listener, self._clients, self._topology, self._publisher
        )

    @classmethod
    def endpoints(cls, url: URL, options: KafkaOptions) -> Sequence[Endpoint]:
        return endpoints(url, options)

    def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        return checks.checks(self._clients, self._topology, self._publisher, scratch)

    def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        return positions.browse(self._clients, self._topology, topic.native, start)

    async def topics(self) -> Sequence[str]:
        return await admin.topics(self._topology)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        return await admin.groups(self._topology, topic.native)

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        return await admin.describe_topic(self._clients, self._topology, topic.native)

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        return await admin.describe_group(self._clients, self._topology, topic.native, native_group)

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        await admin.seek(self._clients, self._topology, topic.native, native_group, to)

    async def delete_topic(self, topic: TopicSpec) -> None:
        await admin.delete_topic(self._topology, self._mover, topic.native)

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        await admin.delete_group(self._topology, native_group)

    async def purge(self, topic: TopicSpec) -> None:
        await admin.purge(self._topology, self._mover, topic.native)

    async def aclose(self) -> None:
        # One after the other: a task that is cancelled before it has begun would close nothing.
        try:
            await self._mover.aclose()
        finally:
            try:
                await self._publisher.aclose()
            finally:
                await self._topology.aclose()


def _refusal(native: str) -> BaseException | None:
    """Return the error of a delayed publish to a topic that cannot have one."""
    if is_target(native):
        return None
    return ConfigurationError(f"nothing can be delayed for {native!r}: the name is reserved")
