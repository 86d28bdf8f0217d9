"""`KafkaDriver`: one connection to one Kafka cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import ClassVar, Self

from anymq.driver import (
    URL,
    Binding,
    Capabilities,
    Clock,
    ConfigurationError,
    Driver,
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

from . import admin as describe
from . import operate
from .broadcast import BroadcastSource
from .capabilities import CAPABILITIES
from .client.internals import CLIENT_PARTS, AIOKafkaProducer, kafka
from .connection import Clients
from .delays import Delays, delayed, is_topic
from .errors import ERRORS
from .group.pending import now_ms
from .options import KafkaOptions
from .publisher import Item, Publisher
from .secrets import hide_logins
from .source import GroupSource, OrderedGroup
from .topology import Plan, Topology, settings, size_bound

MIB = 1024 * 1024

log = logger("anymq.kafka")


class KafkaDriver(Driver):
    """A producer and an admin client; every source has a consumer of its own."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix="ce_", native_key=True)
    options: ClassVar[type[KafkaOptions]] = KafkaOptions
    tls_schemes: ClassVar[frozenset[str]] = frozenset({"kafka+ssl"})
    client_parts = CLIENT_PARTS
    client_loggers = ("aiokafka",)
    max_batch: ClassVar[int] = 1000
    overlap: ClassVar[int] = 2
    max_batch_bytes: ClassVar[int] = 4 * MIB
    # A request over the broker's socket.request.max.bytes (100 MiB) costs the connection.
    max_body: ClassVar[float] = 64 * MIB

    def __init__(self, clients: Clients, clock: Clock) -> None:
        self.clock = clock
        self._clients = clients
        self._publisher = Publisher(clients)
        self._topology = Topology(clients)
        self._delays = Delays(clients, self._topology, self._publisher)
        self._topics: dict[str, TopicSpec] = {}
        self._natives: dict[str, str] = {}
        self._said: dict[str, int] = {}
        """By topic the number of partitions of which it was said that they are more than asked for.
        """

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
            # A user who may only consume: the first publish will say so.
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
        self._delays.wake()
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
        # They cannot be taken away again, so what runs goes on with all of them.
        if self._said.get(topic.native) != count:
            self._said[topic.native] = count
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
        plan = Plan(topic.native, partitions, options.replication, config)
        await self._topology.create([plan])

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        now = now_ms()
        waiting = [
            number
            for number, record in enumerate(records)
            if record.deliver_at is not None and record.deliver_at * 1000 > now
        ]
        if not waiting:
            native = self._natives.get
            topics = [native(record.topic, record.topic) for record in records]
            return await self._publisher.store(topics, records)
        refusal = await self._make_delays(records[number].topic for number in waiting)
        outcomes: list[Outcome] = [None] * len(records)
        for number in waiting:
            outcomes[number] = refusal or self._undelayable(records[number])
        chosen = [number for number, outcome in enumerate(outcomes) if outcome is None]
        delays = frozenset(waiting)
        items = [self._item(records[n], waits=n in delays) for n in chosen]
        for number, outcome in zip(chosen, await self._publisher.publish(items), strict=True):
            outcomes[number] = outcome
            if number in delays:
                if isinstance(outcome, kafka.UnknownTopicOrPartitionError):
                    self._delays.forget()
                elif not isinstance(outcome, BaseException):
                    outcomes[number] = None
        return outcomes

    def _undelayable(self, record: Record) -> BaseException | None:
        """Return why this record in particular cannot be delayed."""
        native = self._natives.get(record.topic, record.topic)
        if is_topic(native):
            return None
        return ConfigurationError(f"nothing can be delayed for {native!r}: the name is reserved")

    def _item(self, record: Record, *, waits: bool) -> Item:
        native = self._natives.get(record.topic, record.topic)
        return delayed(native, record) if waits else (native, record)

    async def _make_delays(self, topics: Iterable[str]) -> BaseException | None:
        """Return why nothing can be delayed: that must not cost the other records."""
        specs = [self._topics.get(topic) for topic in topics]
        try:
            await self._delays.make(create=all(spec is None or spec.create for spec in specs))
        except (kafka.KafkaError, OSError) as error:
            return error
        return None

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        self._delays.wake()
        if spec.group is None:
            return await BroadcastSource.open(spec, listener, self._clients, self._topology)
        if spec.ordered:
            return await OrderedGroup.open(spec, listener, self._clients, self._topology)
        return await GroupSource.open(
            spec, listener, self._clients, self._topology, self._publisher
        )

    def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        return operate.browse(self._clients, self._topology, topic.native, start)

    async def topics(self) -> Sequence[str]:
        return await describe.topics(self._topology)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        return await describe.groups(self._topology, topic.native)

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        return await describe.describe_topic(self._clients, self._topology, topic)

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        return await describe.describe_group(self._clients, self._topology, topic, native_group)

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        await operate.seek(self._clients, self._topology, topic.native, native_group, to)

    async def delete_topic(self, topic: TopicSpec) -> None:
        await operate.delete_topic(self._topology, self._delays, topic.native)

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        await operate.delete_group(self._topology, native_group)

    async def purge(self, topic: TopicSpec) -> None:
        await operate.purge(self._topology, self._delays, topic.native)

    async def aclose(self) -> None:
        # Not side by side: a task that is cancelled before it has begun closes nothing.
        try:
            await self._delays.aclose()
        finally:
            try:
                await self._publisher.aclose()
            finally:
                await self._topology.aclose()
