"""`Group`: the queues of a group, and what of its topic goes into which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import convert, topology
from .consumer import Delivery
from .link import Link


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
        """The stream of failed attempts: of an ordered group only."""
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

    def arguments(self) -> dict[str, Any]:
        """What the queues of this group are declared with."""
        if self.partitions is None:
            return topology.GROUP_ARGUMENTS
        return {**topology.GROUP_ARGUMENTS, topology.SINGLE: True}

    async def bind(self, link: Link) -> None:
        """Let the queues have what is published."""
        for queue, pattern in self.live.items():
            await topology.bind(link, queue, self.exchange, pattern)
