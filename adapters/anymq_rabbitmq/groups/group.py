"""`Group`: the queues of one group, and the messages of its topic that go into each."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from anymq.driver import ConfigurationError

from .. import messages
from ..client import protocol
from ..client.fetcher import Delivery
from ..connection import Connection, QueueDown
from .schema import (
    EVERYTHING,
    GROUP_ARGUMENTS,
    LEAST_NO_LIMIT,
    LIMIT,
    NO_LIMIT,
    SINGLE_ACTIVE,
    log_of,
    stream_name,
)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the topic `exchange`: `queue` is its queue, or that of partition 0.

    An ordered group has a queue for each partition. Until it has read the past of the topic it has
    one more for each partition: the history. `partitions` is None for a group without order.
    """

    exchange: str
    queue: str
    partitions: int | None = None

    @property
    def log(self) -> str:
        """The log of the topic."""
        return log_of(self.exchange)

    @property
    def checkpoints(self) -> str:
        """The queue of the backfill's checkpoint, while a new group is filled from the log."""
        return f"{self.queue}._fill"

    @property
    def live_tap(self) -> str:
        """The exchange that leads to the queues while they are filled, and the stream behind it."""
        return stream_name(f"{self.queue}._seam")

    @property
    def attempts(self) -> str:
        """The stream of attempts that the queues cannot count; made for the first note."""
        return stream_name(f"{self.queue}._attempts")

    @property
    def live(self) -> dict[str, str]:
        """The queues of messages published since the group began, each with its binding pattern."""
        if self.partitions is None or self.partitions == 1:
            return {self.queue: EVERYTHING}
        return {self.partition(number): f"p{number}.#" for number in range(self.partitions)}

    @property
    def histories(self) -> list[str]:
        """The queues of messages published before, by partition: of an ordered group only."""
        return [self.history(number) for number in range(self.partitions or 0)]

    def partition(self, number: int) -> str:
        """Return the queue of a partition."""
        return f"{self.queue}._p{number}" if number else self.queue

    def history(self, number: int) -> str:
        """Return the queue of the messages of a partition from before the group was made."""
        return f"{self.queue}._h{number}"

    def backfilled(self, delivery: Delivery) -> str | None:
        """Return the queue that a message of the log is copied into; None without a partition."""
        if self.partitions is None:
            return self.queue
        number = 0 if self.partitions == 1 else messages.routed_partition(delivery)
        return None if number is None or number >= self.partitions else self.history(number)

    def arguments(self, generation: int = 0) -> dict[str, Any]:
        """Return the arguments of the group's queues.

        `generation` counts how often the group was reset. It is stored in the limit of
        deliveries, which stays as good as none, so every declaration of the queue finds it.
        """
        limit = {LIMIT: NO_LIMIT - generation}
        single = {} if self.partitions is None else {SINGLE_ACTIVE: True}
        return {**GROUP_ARGUMENTS, **limit, **single}

    async def claim(self, connection: Connection, generation: int = 0) -> int:
        """Make or find the group's first queue, and return its generation.

        An existing queue keeps its own generation. Raises `ConfigurationError` if the existing
        group is ordered and this one is not, or the reverse.
        """
        found = await protocol.adopt_queue(connection, self.queue, self.arguments(generation))
        self._check(found)
        if bool(found.get(SINGLE_ACTIVE)) != (self.partitions is not None):
            mode = "ordered" if self.partitions is None else "not ordered"
            raise ConfigurationError(
                f"the group {self.queue!r} is {mode}: it stays so from its first subscription on"
            )
        return NO_LIMIT - int(found.get(LIMIT, NO_LIMIT))

    def _check(self, found: dict[str, Any]) -> None:
        """Refuse a queue that another program has made under the group's name."""
        kind, limit = found.get("x-queue-type", "classic"), int(found.get(LIMIT, 0))
        if kind == "quorum" and limit >= LEAST_NO_LIMIT and found.get("durable", True):
            return
        kind = kind if found.get("durable", True) else "transient"
        extra = f" with {LIMIT}={limit or 'the default'}" if kind == "quorum" else ""
        raise ConfigurationError(
            f"the queue {self.queue!r} was not made by anymq: it is a {kind} queue{extra}, without "
            "the messages of its topic. Delete it, choose another group, or map the group to it as "
            f"it is: names={{'<topic>.<group>': {self.queue!r}}}"
        )

    async def make(self, connection: Connection, *, with_history: bool, generation: int = 0) -> int:
        """Make the group's queues that do not exist; return its generation.

        The first queue is made last: a member that finds it finds the others as well.
        """
        others = [queue for queue in self.live if queue != self.queue]
        for queue in [*(self.histories if with_history else ()), *others]:
            await protocol.ensure_queue(connection, queue, self.arguments())
        return await self.claim(connection, generation)

    async def bind(self, connection: Connection) -> None:
        """Route the topic's messages to the queues."""
        for queue, pattern in self.live.items():
            await protocol.bind(connection, queue, self.exchange, pattern)

    async def delete(self, connection: Connection) -> None:
        """Delete the group's queues, exchange and streams; no error if absent."""
        with suppress(QueueDown):  # A crash during an earlier deletion: it stays down, unused.
            await self.delete_live_tap(connection)
        for queue in [self.checkpoints, *self.histories, *self.live, self.attempts]:
            await protocol.delete_queue(connection, queue)

    async def declare_live_tap(self, connection: Connection, arguments: dict[str, Any]) -> None:
        """Make the exchange that leads to the queues, and to a stream of its own name."""
        tap = self.live_tap
        await protocol.ensure_queue(connection, tap, arguments)
        async with connection.request_channel() as channel:
            await connection.call(protocol.declare_exchange(channel, tap, "topic"))
            await connection.call(protocol.bind_queue(channel, tap, tap, EVERYTHING))
            for queue, pattern in self.live.items():
                await connection.call(protocol.bind_queue(channel, queue, tap, pattern))

    async def bind_live_tap(self, connection: Connection) -> None:
        """Route the topic's messages to the queues and to the stream, in one step."""
        async with connection.request_channel() as channel:
            await connection.call(
                protocol.bind_exchange(channel, self.live_tap, self.exchange, EVERYTHING)
            )

    async def delete_live_tap(self, connection: Connection) -> None:
        """Delete the exchange and the stream; no error if absent."""
        async with connection.request_channel() as channel:
            await connection.call(protocol.delete_exchange(channel, self.live_tap))
            await connection.call(channel.queue_delete(self.live_tap))
