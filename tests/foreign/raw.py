"""Publishers without anymq: bytes go to the broker unchanged.

`raw_kafka`, `raw_rabbitmq`, `raw_nats` and `raw_redis` implement one each over the client library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

STORED, DUPLICATE = "stored", "duplicate"
"""Outcomes of a message; any other text is the reason of the client or server for a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A message in the terms of its broker."""

    body: bytes | None = b""
    """None is Kafka's tombstone; on Redis, an entry without the field `data`."""
    key: bytes | None = None
    """The record key, or the routing key."""
    headers: Sequence[tuple[str, Any]] = ()
    """In order, with repeated names where the broker allows them. Values are bytes, or on RabbitMQ
    any type of a table."""
    time: int | None = None
    """Kafka: the timestamp in milliseconds."""
    id: str = "*"
    """Redis: the id of the entry."""
    block: bytes | None = None
    """NATS: all headers as bytes of the protocol."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """RabbitMQ: the properties besides the headers."""


class Raw(ABC):
    """A foreign publisher on one server."""

    backend: str
    prefix: str
    """The prefix of CloudEvents attributes."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def make(self, topic: str) -> None:
        """Create the topic before anymq does, if the tests need other settings."""
        del topic

    @abstractmethod
    async def publish(self, topic: str, messages: Sequence[Foreign]) -> list[str]:
        """Publish all in order; return the outcome of each."""

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def attributes(prefix: str, **values: str) -> list[tuple[str, bytes]]:
    """Return the headers of a CloudEvent in binary mode."""
    return [(f"{prefix}{name}", value.encode()) for name, value in values.items()]
