"""`Lane`: one partition of an ordered group, as one member reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from aiormq.exceptions import ChannelNotFoundEntity

from . import convert, topology
from .attempts import Attempts
from .consumer import Cancelled, Consumer, Delivery
from .group import Group
from .link import Link

_HIGHEST = 2**16


class Lane:
    """First the partition's history, while there is one, then its queue.

    Of all members that consume a queue the server lets one have its messages (single active
    consumer): the one with the highest priority. One that joins with a higher priority gets them
    when the active one has settled what it holds, and not before. Priorities are a hash of the
    member and the queue: so the partitions spread, and most stay where they are when others come or
    go. Before RabbitMQ 4.0 priorities say nothing, and the first member has all.
    """

    def __init__(
        self,
        link: Link,
        group: Group,
        number: int,
        *,
        attempts: Attempts,
        member: str,
        prefetch: int,
    ) -> None:
        self.number = number
        self.on_change: Callable[[], None] = lambda: None
        self._link = link
        self._live = group.partition(number)
        self._history: str | None = group.history(number)
        self._attempts = attempts
        self._prefetch = prefetch
        self._priority = _priority(member, self._live)
        self._consumer: Consumer | None = None
        self._ends: set[int] = set()

    @property
    def consumer(self) -> Consumer:
        """What reads the queue now."""
        assert self._consumer is not None
        return self._consumer

    async def open(self) -> None:
        """Begin with the history, or with the queue if there is none any more."""
        if self._history is not None and await self._is_over(self._history):
            self._history = None
        if self._history is not None:
            try:
                self._consumer = await self._consume(self._history)
            except ChannelNotFoundEntity:
                self._history = None
        if self._history is None:
            self._consumer = await self._consume(self._live)

    async def advance(self) -> None:
        """Go on to the queue, if the history has come to its end. Raises what ends the lane."""
        error = self.consumer.error
        if self._history is None or (error is not None and not isinstance(error, Cancelled)):
            if error is not None:
                raise error
            return
        if error is None:
            if not self._ends or not self._ends.issuperset(self.consumer.unsettled):
                return
            await self._attempts.end(self._history)
            await topology.delete_queue(self._link, self._history)
        # Its owner has read it to the end, and deleted it; or it has moved.
        await self.aclose()
        self._ends.clear()
        await self.open()

    async def unread(self) -> object:
        """Return the queue and how much is in it, if the server knows of no consumer there."""
        queue = self.consumer.queue
        ready, consumers = await topology.counts(self._link, queue)
        return (queue, ready) if ready and not consumers else None

    async def take(self, limit: int) -> list[Delivery]:
        """Take what is there."""
        taken = await self.consumer.take(limit, 0)
        ends = [one for one in taken if convert.marker(one) is not None]
        self._ends.update(one.tag for one in ends)
        return [one for one in taken if one.tag not in self._ends] if ends else taken

    async def aclose(self) -> None:
        """Close the channel: the next member gets what is unsettled, in order."""
        if self._consumer is not None:
            await self._consumer.aclose()

    async def _is_over(self, history: str) -> bool:
        there = await topology.exists(self._link, history)
        return not there or await self._attempts.has_ended(history)

    async def _consume(self, queue: str) -> Consumer:
        consumer = await Consumer.open(
            self._link, queue, prefetch=self._prefetch, arguments={"x-priority": self._priority}
        )
        consumer.on_change = self._changed
        return consumer

    def _changed(self) -> None:
        self.on_change()


def _priority(member: str, queue: str) -> int:
    digest = hashlib.sha256(f"{member}\n{queue}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _HIGHEST
