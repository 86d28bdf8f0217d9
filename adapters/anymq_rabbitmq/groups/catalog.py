"""`Names`: the topics and groups that anymq has made, in a stream, as AMQP lists nothing.

A name is written before the thing is made, and whoever lists them asks the server whether they are
there: so the stream may say too much, and never too little. What was made without anymq is not in
it. It also says when a topic was purged: what was delayed before does not come any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import convert, topology
from .consumer import Consumer, Delivery
from .link import Link
from .log import WINDOW, Log
from .publisher import Publisher

STREAM = "anymq._names"
_ARGUMENTS: dict[str, Any] = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


@dataclass(slots=True)
class Known:
    """What the stream says: groups by topic, and purges (nanoseconds) by exchange."""

    groups: dict[str, set[str]] = field(default_factory=dict)
    purged: dict[str, int] = field(default_factory=dict)
    behind: int = 0
    """The offset behind what was read."""

    def learn(self, deliveries: Sequence[Delivery]) -> None:
        """Add what these say."""
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
                case _:  # What a later version may have to say.
                    continue


class Names:
    """Reads and writes the stream."""

    def __init__(self, link: Link, publisher: Publisher) -> None:
        self._link = link
        self._publisher = publisher
        self._is_there = False

    async def add_topic(self, topic: str) -> None:
        """A topic is about to be made."""
        await self._write({"topic": topic})

    async def add_group(self, topic: str, group: str) -> None:
        """A group is about to be made."""
        await self._write({"topic": topic, "group": group})

    async def add_purge(self, exchange: str) -> None:
        """What was delayed for the topic up to now shall not come."""
        await self._write({"purged": exchange, "at": time.time_ns()})

    async def drop_topic(self, topic: str) -> None:
        """A topic was deleted, with its groups."""
        await self._write({"deleted": topic})

    async def read(self) -> Known:
        """Return all that was written up to now."""
        await self._ensure()
        known = Known()
        async for deliveries, behind in Log(STREAM, self._link, self._publisher).read("first"):
            known.learn(deliveries)
            known.behind = behind
        return known

    async def follow(self, known: Known) -> Consumer:
        """Read on behind what is known, without an end."""
        return await Consumer.open(
            self._link, STREAM, prefetch=WINDOW, arguments={"x-stream-offset": known.behind}
        )

    async def _write(self, entry: dict[str, Any]) -> None:
        await self._ensure()
        body = json.dumps(entry).encode()
        await self._publisher.publish_all([convert.message_to(STREAM, body)])

    async def _ensure(self) -> None:
        if not self._is_there:
            await topology.ensure_queue(self._link, STREAM, _ARGUMENTS)
            self._is_there = True
