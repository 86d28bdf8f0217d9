"""A Redis Streams publisher over redis-py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from tests.foreign.raw import STORED, Foreign, Raw

WINDOW = 200
"""The number of commands in one pipeline."""


class RawRedis(Raw):
    backend = "redis"
    prefix = "ce-"

    async def open(self) -> None:
        self._client = Redis.from_url(self.url)

    async def close(self) -> None:
        await self._client.aclose()

    async def publish(self, topic: str, messages: Sequence[Foreign]) -> list[str]:
        outcomes: list[str] = []
        for start in range(0, len(messages), WINDOW):
            pipeline = self._client.pipeline(transaction=False)
            for message in messages[start : start + WINDOW]:
                pipeline.execute_command("XADD", topic, message.id, *_fields(message))
            answers = await pipeline.execute(raise_on_error=False)
            outcomes += [repr(item) if isinstance(item, Exception) else STORED for item in answers]
        return outcomes


def _fields(message: Foreign) -> list[Any]:
    flat: list[Any] = [part for pair in message.headers for part in pair]
    return flat if message.body is None else [*flat, "data", message.body]
