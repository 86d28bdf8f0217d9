"""A Kafka publisher over aiokafka."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from urllib.parse import urlsplit

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]

from tests.foreign.raw import STORED, Foreign, Raw

ANY_TIME = str(2**63 - 1)


class RawKafka(Raw):
    backend = "kafka"
    prefix = "ce_"

    async def open(self) -> None:
        self._address = urlsplit(self.url).netloc
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._address, max_request_size=50_000_000
        )
        await self._producer.start()

    async def close(self) -> None:
        await self._producer.stop()

    async def make(self, topic: str) -> None:
        """Create a topic of three partitions that accepts and keeps records of any time."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._address)
        await admin.start()
        limits = {
            "message.timestamp.after.max.ms": ANY_TIME,
            "message.timestamp.before.max.ms": ANY_TIME,
            "retention.ms": "-1",
        }
        try:
            await admin.create_topics([NewTopic(topic, 3, 1, topic_configs=limits)])
        finally:
            await admin.close()

    async def publish(self, topic: str, messages: Sequence[Foreign]) -> list[str]:
        sent: list[Awaitable[object] | str] = []
        for message in messages:
            try:
                future = await self._producer.send(
                    topic,
                    message.body,
                    key=message.key,
                    timestamp_ms=message.time,
                    headers=list(message.headers),
                )
            except Exception as error:
                sent.append(repr(error))
            else:
                sent.append(future)
        await self._producer.flush()
        return [item if isinstance(item, str) else await _outcome(item) for item in sent]


async def _outcome(future: Awaitable[object]) -> str:
    try:
        await future
    except Exception as error:
        return repr(error)
    return STORED
