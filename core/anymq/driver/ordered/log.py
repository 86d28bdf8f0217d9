"""`PartitionedLog`: the interface over which `LeasedSource` reads logs and writes leases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..records import Received
from ..specs import Start


@dataclass(frozen=True, slots=True)
class Cell:
    """The durable text of one lease record, with the revision for compare-and-set."""

    value: str
    revision: int


class PartitionedLog(ABC):
    """The partitions of one topic for one group: a log to read and a `Cell` to write for each.

    An object belongs to one subscription. Calls may overlap each other. Exceptions of the client
    propagate unchanged, and every call ends within a bounded time. A cursor is text: the
    `Received.position` of the last record read, or a result of `cursor_at`. Cursors are compared
    for equality only.
    """

    partitions: int
    """The number of partitions, which never changes while the topic exists."""

    @abstractmethod
    async def cursor_at(self, partition: int, start: Start) -> str:
        """Return the cursor after which reading begins for `start`, as of now.

        For `earliest` it is the cursor before the oldest record, for `latest` the position of the
        youngest one.
        """

    @abstractmethod
    async def read(self, after: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        """Return records that follow the cursors `after`, up to `limit` in all.

        Return the records of one partition in order and without gaps. Set `partition` and
        `position`; the caller sets `redeliveries` and `token`. Wait at most `wait` seconds (≤ 2)
        for the first record of any partition, and return early with the records that are there.
        Read fairly, so that a full partition does not starve the others. The same cursors return
        the same records. If the record of a cursor has been trimmed, continue at the oldest that
        is left.
        """

    async def undelivered(self) -> object:
        """As `Source.undelivered`, for the cursors of the last `read`."""
        return None

    @abstractmethod
    async def load(self) -> Mapping[int, Cell]:
        """Return the cells of this group by partition, without those that were never saved."""

    @abstractmethod
    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        """Write each cell whose stored revision equals the given one (0 if none is stored).

        Return once the cells are durable. The result has the new revision of each partition, or
        None where another member has changed the cell and nothing was written. A call repeated
        after a lost answer may find its own write, and return None for it.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the readers within a bounded time. A second call does nothing."""
