"""`Group`: the queues of a group, and what of its topic goes into which."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from anymq.driver import ConfigurationError

from . import convert, topology
from .consumer import Delivery
from .link import Link, QueueDown

LIMIT = "x-delivery-limit"
ENDLESS = topology.DELIVERY_LIMIT - 1_000_000
"""A limit of deliveries from here on is anymq's own, and as good as none."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the topic `exchange`: `queue` is its queue, or that of the partition 0.

    An ordered group has a queue for each partition, and until it has read what was in the topic
    before, one more for that: its history. `partitions` is None for a group without order.
    """

    exchange: str
    queue: str
    partitions: int | None = None

    @property
    def log(self) -> str:
        """The log of the topic."""
        return topology.log_of(self.exchange)

    @property
    def jobs(self) -> str:
        """The queue of the one job that fills a new group from the log."""
        return topology.fill_of(self.queue)

    @property
    def seam(self) -> str:
        """The exchange, and the stream behind it, that join the queues to the log."""
        return topology.seam_of(self.queue)

    @property
    def attempts(self) -> str:
        """The stream of attempts that the queues cannot count; made when there is one to note."""
        return topology.stream(f"{self.queue}._attempts")

    @property
    def live(self) -> dict[str, str]:
        """The queues of what is published, by the pattern of routing keys that each takes."""
        if self.partitions is None or self.partitions == 1:
            return {self.queue: topology.EVERYTHING}
        return {self.partition(number): f"p{number}.#" for number in range(self.partitions)}

    @property
    def histories(self) -> list[str]:
        """The queues of what was published before, by partition: of an ordered group only."""
        return [self.history(number) for number in range(self.partitions or 0)]

    def partition(self, number: int) -> str:
        """The queue of a partition."""
        return f"{self.queue}._p{number}" if number else self.queue

    def history(self, number: int) -> str:
        """The queue of what was in a partition before the group was made."""
        return f"{self.queue}._h{number}"

    def filled(self, delivery: Delivery) -> str | None:
        """The queue into which a message of the log goes; None for one of no partition."""
        if self.partitions is None:
            return self.queue
        number = 0 if self.partitions == 1 else convert.partition(delivery)
        return None if number is None or number >= self.partitions else self.history(number)

    def arguments(self, life: int = 0) -> dict[str, Any]:
        """What the queues of this group are declared with.

        `life` counts how often the group was made anew. It is kept in the limit of deliveries,
        which is as good as none whatever the count: so the queue itself tells whoever declares it.
        """
        limit = {LIMIT: topology.DELIVERY_LIMIT - life}
        single = {} if self.partitions is None else {topology.SINGLE: True}
        return {**topology.GROUP_ARGUMENTS, **limit, **single}

    async def claim(self, link: Link, life: int = 0) -> int:
        """Make the group's first queue, which says whether it is ordered; return its life.

        It may be there: then `life` is not applied.
        """
        found = await topology.adopt(link, self.queue, self.arguments(life))
        self._check(found)
        if bool(found.get(topology.SINGLE)) != (self.partitions is not None):
            mode = "ordered" if self.partitions is None else "not ordered"
            raise ConfigurationError(
                f"the group {self.queue!r} is {mode}: it stays so from its first subscription on"
            )
        return topology.DELIVERY_LIMIT - int(found.get(LIMIT, topology.DELIVERY_LIMIT))

    def _check(self, found: dict[str, Any]) -> None:
        """Refuse a queue that another program has made under the group's name."""
        kind, limit = found.get("x-queue-type", "classic"), int(found.get(LIMIT, 0))
        if kind == "quorum" and limit >= ENDLESS and found.get("durable", True):
            return
        kind = kind if found.get("durable", True) else "transient"
        extra = f" with {LIMIT}={limit or 'the default'}" if kind == "quorum" else ""
        raise ConfigurationError(
            f"the queue {self.queue!r} was not made by anymq: it is a {kind} queue{extra}, and has "
            "nothing of what its topic holds. Delete it, choose another group, or map the group to "
            f"it as it is: names={{'<topic>.<group>': {self.queue!r}}}"
        )

    async def make(self, link: Link, *, with_history: bool, life: int = 0) -> int:
        """Make the group's queues, where they are not there yet; return its life.

        The first one comes last: whoever finds that finds the others as well.
        """
        others = [queue for queue in self.live if queue != self.queue]
        for queue in [*(self.histories if with_history else ()), *others]:
            await topology.ensure_queue(link, queue, self.arguments())
        return await self.claim(link, life)

    async def delete(self, link: Link) -> None:
        """Delete all there is of it."""
        with suppress(QueueDown):  # See `fill`: then it stays so, and nobody needs it.
            await topology.delete_seam(link, self.seam)
        queues = [self.jobs, *self.histories, *self.live, self.attempts]
        for queue in queues:
            await topology.delete_queue(link, queue)

    async def bind(self, link: Link) -> None:
        """Let the queues have what is published."""
        for queue, pattern in self.live.items():
            await topology.bind(link, queue, self.exchange, pattern)
