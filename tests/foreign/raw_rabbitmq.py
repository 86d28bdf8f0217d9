"""A RabbitMQ publisher over aiormq, the client below aio-pika."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from pamqp.commands import Basic

from tests.foreign.raw import STORED, Foreign, Raw

WINDOW = 200
"""The most messages that await their confirmations."""


class RawRabbitMQ(Raw):
    backend = "rabbitmq"
    prefix = "cloudEvents:"

    async def open(self) -> None:
        self._connection: AbstractConnection = await aiormq.connect(self.url)
        self.channel: AbstractChannel = await self._connection.channel()

    async def close(self) -> None:
        await self._connection.close()

    async def publish(self, topic: str, messages: Sequence[Foreign]) -> list[str]:
        """Publish to the exchange `topic`; if it is empty, to the queue named by the key."""
        outcomes: list[str] = []
        for start in range(0, len(messages), WINDOW):
            chunk = messages[start : start + WINDOW]
            outcomes += await asyncio.gather(*(self._one(topic, item) for item in chunk))
        return outcomes

    async def _one(self, exchange: str, message: Foreign) -> str:
        properties = Basic.Properties(headers=_table(message.headers), **message.properties)
        try:
            await self.channel.basic_publish(
                message.body or b"",
                exchange=exchange,
                routing_key=(message.key or b"").decode(),
                properties=properties,
            )
        except Exception as error:
            return repr(error)
        return STORED


def _table(headers: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the value for pamqp: text as strings, other bytes as byte arrays."""
    return {name: _typed(v) if isinstance(v, bytes) else v for name, v in headers}


def _typed(value: bytes) -> str | bytearray:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return bytearray(value)
