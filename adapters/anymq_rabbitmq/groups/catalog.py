"""`Catalog`: a stream that lists the topics and groups made by anymq, because AMQP lists nothing.

An entry is written before the topic or group is made, and the reader asks the server which of them
exist. So the stream may list too much, and never too little. It does not list what other programs
made. It also has the times of purges: messages that were delayed before do not come any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import messages
from ..client.fetcher import Delivery, Fetcher
from ..client.protocol import ensure_queue
from ..connection import Connection
from ..positions import WINDOW, Log, open_stream
from ..publisher import Publisher

STREAM = "anymq._names"
_ARGUMENTS: dict[str, Any] = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


@dataclass(slots=True)
class CatalogEntries:
    """The content of the stream: groups by topic, and times of purges (nanoseconds) by exchange."""

    groups: dict[str, set[str]] = field(default_factory=dict)
    purged: dict[str, int] = field(default_factory=dict)
    next_offset: int = 0
    """The offset after the last entry."""

    def learn(self, deliveries: Sequence[Delivery]) -> None:
        """Add these entries."""
        for one in deliveries:
            match json.loads(one.body):
                case {"purged": str(exchange), "at": int(at)}:
                    self.purged[exchange] = max(at, self.purged.get(exchange, 0))
                case {"deleted": str(topic)}:
                    self.groups.pop(topic, None)
                case {"topic": str(topic), "group": str(group)}:
                    self.groups.setdefault(topic, set()).add(group)
                case {"topic": str(topic)}:
                    self.groups.setdefault(topic, set())
                case _:  # An entry of a later version.
                    continue


class Catalog:
    """Reads and writes the stream."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher
        self._made = False

    async def add_topic(self, topic: str) -> None:
        """List a topic, before it is made."""
        await self._write({"topic": topic})

    async def add_group(self, topic: str, group: str) -> None:
        """List a group, before it is made."""
        await self._write({"topic": topic, "group": group})

    async def add_purge(self, exchange: str) -> None:
        """Record a purge: messages delayed for the topic up to now are discarded."""
        await self._write({"purged": exchange, "at": time.time_ns()})

    async def drop_topic(self, topic: str) -> None:
        """Drop a deleted topic and its groups."""
        await self._write({"deleted": topic})

    async def read(self) -> CatalogEntries:
        """Return all entries written up to now."""
        await self._ensure()
        entries = CatalogEntries()
        async for deliveries, after in Log(STREAM, self._connection, self._publisher).read("first"):
            entries.learn(deliveries)
            entries.next_offset = after
        return entries

    async def follow(self, entries: CatalogEntries) -> Fetcher:
        """Read the entries written after `entries`, without end."""
        return await open_stream(
            self._connection, STREAM, prefetch=WINDOW, offset=entries.next_offset
        )

    async def _write(self, entry: dict[str, Any]) -> None:
        await self._ensure()
        body = json.dumps(entry).encode()
        await self._publisher.publish_all([messages.internal_message(STREAM, body)])

    async def _ensure(self) -> None:
        if not self._made:
            await ensure_queue(self._connection, STREAM, _ARGUMENTS)
            self._made = True
