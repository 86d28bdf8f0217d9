"""`PartitionConsumer`: one member's consumer of one partition of an ordered group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from aiormq.exceptions import ChannelNotFoundEntity

from .. import messages
from ..client import protocol
from ..client.fetcher import ConsumerCancelled, Delivery, Fetcher
from ..connection import Connection
from .attempts import Attempts
from .group import Group

_PRIORITIES = 2**16


class PartitionConsumer:
    """Reads the partition's history while there is one, and then its queue.

    Of all members that consume a queue the server delivers to one (single active consumer): the one
    with the highest priority. A member that joins with a higher priority becomes active when the
    present one has settled all its deliveries, and not before. Priorities are a hash of member and
    queue, so partitions spread over the members, and most stay where they are when a member joins
    or leaves. Before RabbitMQ 4.0 priorities have no effect, and the first member has all.
    """

    def __init__(
        self,
        connection: Connection,
        group: Group,
        number: int,
        *,
        attempts: Attempts,
        member: str,
        prefetch: int,
    ) -> None:
        self.number = number
        self.on_change: Callable[[], None] = lambda: None
        """Called when there may be a delivery to take, or an error."""
        self._connection = connection
        self._live = group.partition(number)
        self._history: str | None = group.history(number)
        self._attempts = attempts
        self._prefetch = prefetch
        self._priority = _priority(member, self._live)
        self._fetcher: Fetcher | None = None
        self._end_marks: set[int] = set()
        """The tags of markers, of which the last is the end of the history."""

    @property
    def fetcher(self) -> Fetcher:
        """The present fetcher, of the history or the queue."""
        assert self._fetcher is not None
        return self._fetcher

    async def open(self) -> None:
        """Start with the history, or with the queue if the history has been read."""
        if self._history is not None and await self._is_over(self._history):
            self._history = None
        if self._history is not None:
            try:
                self._fetcher = await self._consume(self._history)
            except ChannelNotFoundEntity:
                self._history = None
        if self._history is None:
            self._fetcher = await self._consume(self._live)

    async def advance(self) -> None:
        """Continue with the queue if the history has been read and settled.

        Raises the fetcher's error unless the history's consumer was cancelled.
        """
        error = self.fetcher.error
        cancelled = isinstance(error, ConsumerCancelled)
        if self._history is None or (error is not None and not cancelled):
            if error is not None:
                raise error
            return
        if error is None:
            if not self._end_marks or not self._end_marks.issuperset(self.fetcher.unsettled):
                return
            await self._attempts.end_history(self._history)
            await protocol.delete_queue(self._connection, self._history)
        # After a cancellation: its owner has read and deleted it, or it has moved to another node.
        await self.aclose()
        self._end_marks.clear()
        await self.open()

    async def undelivered(self) -> object:
        """Return the queue and its number of ready messages, if the server has no consumer."""
        queue = self.fetcher.queue
        ready, consumers = await protocol.queue_counts(self._connection, queue)
        return (queue, ready) if ready and not consumers else None

    async def take(self, limit: int) -> list[Delivery]:
        """Take up to `limit` buffered deliveries."""
        taken = await self.fetcher.take(limit, 0)
        marks = [one for one in taken if messages.marker(one) is not None]
        self._end_marks.update(one.tag for one in marks)
        return [one for one in taken if one.tag not in self._end_marks] if marks else taken

    async def aclose(self) -> None:
        """Close the channel: the next member gets the unsettled messages, in order."""
        if self._fetcher is not None:
            await self._fetcher.aclose()

    async def _is_over(self, history: str) -> bool:
        exists = await protocol.queue_exists(self._connection, history)
        return not exists or await self._attempts.has_ended(history)

    async def _consume(self, queue: str) -> Fetcher:
        fetcher = await Fetcher.open(
            self._connection,
            queue,
            prefetch=self._prefetch,
            arguments={"x-priority": self._priority},
        )
        fetcher.on_change = self._changed
        return fetcher

    def _changed(self) -> None:
        self.on_change()


def _priority(member: str, queue: str) -> int:
    digest = hashlib.sha256(f"{member}\n{queue}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _PRIORITIES
