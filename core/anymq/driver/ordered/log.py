"""`PartitionedLog`: what an adapter gives `LeasedSource` where the broker has only logs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..records import Received
from ..specs import Start


@dataclass(frozen=True, slots=True)
class Cell:
    """A small durable text with a revision: changed only by who has seen its latest state."""

    value: str
    revision: int


class PartitionedLog(ABC):
    """One topic as one group reads it in order: logs to read, and a cell for each partition.

    Made for one subscription. The methods may overlap each other. Errors of the client leave as
    they are; every call ends within a bounded time. A place is a text: `Received.position` of the
    last record read, or what `place` returned. It is compared for equality only.
    """

    partitions: int
    """How many there are; the same for the life of the topic."""

    @abstractmethod
    async def place(self, partition: int, start: Start) -> str:
        """Return the place behind which reading begins for `start`, as of now.

        For `earliest` it is what lies before the oldest record, for `latest` the youngest one's.
        """

    @abstractmethod
    async def read(self, behind: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        """Return records that follow the places `behind`, up to `limit` in all.

        Records of one partition come in its order and without gaps; `partition` and `position` are
        set, `redeliveries` and `token` are the caller's. Wait at most `wait` seconds (≤ 2) for the
        first record of any of the partitions, return early with what is there, and fairly: a full
        partition does not starve the others for ever. The same places again give the same
        records. A place whose record has been trimmed goes on at the oldest that is left.
        """

    async def undelivered(self) -> object:
        """As `Source.undelivered`, of the places that were read last."""
        return None

    @abstractmethod
    async def load(self) -> Mapping[int, Cell]:
        """Return the cells of this group by partition; those that were never saved are absent."""

    @abstractmethod
    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        """Write each cell whose revision is still the given one (0: there is none yet).

        Return once durable: for each partition the new revision, or None where somebody else
        has changed it and nothing was written. A repeated call after a lost answer may find its
        own write there and answer None.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Release what reading took; bounded. Calling it twice is harmless."""
