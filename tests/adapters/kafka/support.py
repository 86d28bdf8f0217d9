"""What the tests of the Kafka adapter share: clients that know no anymq, sources that die."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]

from anymq.driver import REAL, Reader, Received, Record
from anymq.ids import new_id
from anymq.url import URL
from anymq_kafka import KafkaDriver, KafkaOptions
from anymq_kafka.client.compat import OffsetAndMetadata, TopicPartition
from anymq_kafka.client.internals import abandon_consumer, committed
from anymq_kafka.group.member import MemberSource
from tests.adapters import support
from tests.adapters.support import eventually


class Bench(support.Bench[KafkaDriver]):
    """One topic on one server, and the drivers and sources that a test opened."""

    id_header = "ce_id"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.bootstrap = url.partition("://")[2]

    async def connect(self, url: URL, **options: Any) -> KafkaDriver:
        # The least that brokers take: who dies is missed soonest.
        options.setdefault("session_timeout", 6.0)
        options.setdefault("partitions", 3)
        return await KafkaDriver.open(url, KafkaOptions(**options), timeout=10, clock=REAL)

    def copy(self, received: Received, shown: int) -> Record:
        return Record(
            topic=self.name,
            id=received.headers.get(self.id_header, received.position),
            unique=new_id(),
            body=received.body,
            key=received.key,
            headers={**received.headers, "anymq-attempt": str(shown)},
        )

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


async def crash(source: Reader) -> None:
    """Let `source` die as with its process: nothing is committed any more, the group not left."""
    assert isinstance(source, MemberSource)
    source._member.committer.stop()
    source._member.assignment.close()
    abandon_consumer(source._member.consumer)
    await asyncio.sleep(0)


async def until_committed(source: Reader) -> None:
    """Return when everything that was acked has been committed."""
    assert isinstance(source, MemberSource)
    partitions = source._member.assignment.partitions

    async def clean() -> bool:
        return all(p.tracker.commit() == p.committed for p in partitions.values())

    await eventually(clean)


def numbers(received: Sequence[Received]) -> list[int]:
    return sorted(int(item.body) for item in received)


async def nothing(source: Reader, seconds: float = 1.0) -> bool:
    """Whether there is nothing to receive for a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await source.receive(100, min(0.2, seconds)):
            return False
    return True


async def until_gone(driver: KafkaDriver, topic: str) -> None:
    """Delete `topic` and return when it is."""
    await driver._topology.call(lambda admin: admin.delete_topics([topic]))

    async def gone() -> bool:
        return await driver._topology.partitions(topic) is None

    await eventually(gone)


def own_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
