"""What the tests of the Kafka adapter share: topics of their own, records, sources that die."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]

from anymq.driver import Nack, Received, Record, Source, Start, SubscribeSpec, TopicSpec
from anymq.message import new_id
from anymq.testing.harness import random_name
from anymq.url import URL
from anymq_kafka import KafkaDriver, KafkaOptions
from anymq_kafka.aio import OffsetAndMetadata, TopicPartition, abandon_consumer, committed
from anymq_kafka.source import GroupSource


class Bench:
    """One topic on one server, and the drivers and sources that a test opened."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bootstrap = url.partition("://")[2]
        self.name = random_name()
        self._drivers: list[KafkaDriver] = []
        self._sources: list[Source] = []

    async def open(
        self, url: str | None = None, *, partitions: int = 3, **options: Any
    ) -> KafkaDriver:
        # The least that brokers take: who dies is missed soonest.
        options.setdefault("session_timeout", 6.0)
        made = KafkaOptions(partitions=partitions, **options)
        driver = await KafkaDriver.open(URL.parse(url or self.url), made, timeout=10)
        self._drivers.append(driver)
        await driver.declare(self.topic())
        return driver

    async def join(
        self, driver: KafkaDriver, group: str | None = "billing", **values: Any
    ) -> Source:
        source = await driver.subscribe(self.spec(group, **values))
        self._sources.append(source)
        return source

    async def aclose(self) -> None:
        for source in self._sources:
            await source.aclose()
        for driver in self._drivers:
            await driver.aclose()

    def topic(self, name: str | None = None, **values: Any) -> TopicSpec:
        return TopicSpec(name=name or self.name, native=name or self.name, **values)

    def spec(
        self,
        group: str | None = "billing",
        *,
        start: Start = "earliest",
        topic: TopicSpec | None = None,
        create: bool = True,
    ) -> SubscribeSpec:
        topic = topic or self.topic()
        return SubscribeSpec(
            topic=topic,
            group=group,
            native_group=f"{topic.name}.{group}",
            start=start,
            ack_deadline=30.0,
            prefetch=100,
            member=new_id(),
            create=create,
        )

    def record(self, body: bytes | int = b"", *, name: str | None = None, **values: Any) -> Record:
        identity = new_id()
        return Record(
            topic=name or self.name,
            id=identity,
            unique=identity,
            body=b"%d" % body if isinstance(body, int) else body,
            headers={"ce_id": identity, **values.pop("headers", {})},
            **values,
        )

    def records(self, count: int, **values: Any) -> list[Record]:
        return [self.record(number, **values) for number in range(count)]

    def nack(self, received: Received, delay: float = 0.0) -> Nack:
        """What the core makes of a nack."""
        shown = attempt(received) + 1
        headers = {**received.headers, "anymq-attempt": str(shown)}
        copy = Record(
            topic=self.name,
            id=received.headers.get("ce_id", received.position),
            unique=new_id(),
            body=received.body,
            key=received.key,
            headers=headers,
        )
        return Nack(received, delay, shown, native_attempt=shown, copy=copy)

    async def committed(
        self, group: str = "billing", partitions: int = 3
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group has committed, as any client sees it."""
        async with self.consumer(group_id=f"{self.name}.{group}") as consumer:
            tps = [TopicPartition(self.name, number) for number in range(partitions)]
            return await committed(consumer, tps)

    async def place(self, *bodies: int) -> None:
        """Publish one record into each partition, from the first on."""
        async with self.producer() as producer:
            for partition, body in enumerate(bodies):
                await producer.send_and_wait(self.name, b"%d" % body, partition=partition)

    @contextlib.asynccontextmanager
    async def consumer(self, *topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer that knows nothing of anymq."""
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **options,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    @contextlib.asynccontextmanager
    async def producer(self, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
        """A producer that knows nothing of anymq."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, **options)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()


@contextlib.asynccontextmanager
async def bench_on(url: str) -> AsyncIterator[Bench]:
    """A `Bench` whose sources and drivers are closed at the end."""
    made = Bench(url)
    try:
        yield made
    finally:
        await made.aclose()


async def crash(source: Source) -> None:
    """Let `source` die as with its process: nothing is committed any more, the group not left."""
    assert isinstance(source, GroupSource)
    source._committer.stop()
    source._assignment.close()
    abandon_consumer(source._consumer)
    await asyncio.sleep(0)


async def until_committed(source: Source) -> None:
    """Return when everything that was acked has been committed."""
    assert isinstance(source, GroupSource)
    partitions = source._assignment.partitions

    async def clean() -> bool:
        return all(p.tracker.commit() == p.committed for p in partitions.values())

    await eventually(clean)


def attempt(received: Received) -> int:
    return int(received.headers.get("anymq-attempt", "1"))


def bodies(received: Sequence[Received]) -> list[bytes]:
    return [item.body for item in received]


def numbers(received: Sequence[Received]) -> list[int]:
    return sorted(int(item.body) for item in received)


async def take(source: Source, count: int, *, seconds: float = 20.0) -> list[Received]:
    """Receive exactly `count` records."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    assert len(got) == count, bodies(got)
    return got


async def take_through(source: Source, count: int, *, seconds: float = 60.0) -> list[Received]:
    """As `take`, through failures of the source."""
    got: list[Received] = []

    async def more() -> bool:
        with contextlib.suppress(Exception):
            got.extend(await source.receive(count - len(got), 0.2))
        return len(got) >= count

    await eventually(more, seconds=seconds)
    return got


async def nothing(source: Source, seconds: float = 1.0) -> bool:
    """Whether there is nothing to receive for a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await source.receive(100, min(0.2, seconds)):
            return False
    return True


async def eventually(
    condition: Callable[[], Awaitable[object]], *, seconds: float = 20.0, every: float = 0.02
) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(every)


async def until_gone(driver: KafkaDriver, topic: str) -> None:
    """Delete `topic` and return when it is."""
    await driver._topology._call(lambda admin: admin.delete_topics([topic]))

    async def gone() -> bool:
        return await driver._topology.partitions(topic) is None

    await eventually(gone)


def own_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
