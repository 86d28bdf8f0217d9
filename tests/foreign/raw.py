"""Publishers that know nothing of anymq: bytes go to the broker as they are given.

`raw_kafka`, `raw_rabbitmq`, `raw_nats` and `raw_redis` have one each, over the client library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

STORED, DUPLICATE = "stored", "duplicate"
"""What became of a message; anything else is why the client or the server refused it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A message, in the terms of its broker."""

    body: bytes | None = b""
    """None is Kafka's tombstone; on Redis, an entry without the field `data`."""
    key: bytes | None = None
    """The record key, or the routing key."""
    headers: Sequence[tuple[str, Any]] = ()
    """In their order, with repetitions where the broker has them. Values are bytes; on RabbitMQ
    also what else a table may hold."""
    time: int | None = None
    """Kafka: milliseconds, by which the broker goes."""
    id: str = "*"
    """Redis: the id of the entry."""
    block: bytes | None = None
    """NATS: all of the headers, as they go over the wire."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """RabbitMQ: the properties besides the headers."""


class Raw(ABC):
    """A foreign publisher on one server."""

    backend: str
    prefix: str
    """What the names of CloudEvents attributes begin with."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def make(self, topic: str) -> None:
        """Make the topic before anymq comes, where it would not be made as the tests need it."""
        del topic

    @abstractmethod
    async def publish(self, topic: str, messages: Sequence[Foreign]) -> list[str]:
        """Publish all, in order; return what became of each."""

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
