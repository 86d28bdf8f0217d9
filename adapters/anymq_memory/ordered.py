"""`MemoryPartitions`: one topic as an ordered group reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from anymq.driver import Cell, Clock, PartitionedLog, Received, SourceLost, Start, ordered

from .messages import StoredRecord, received
from .space.group import Group
from .space.log import TopicLog


class MemoryPartitions(PartitionedLog):
    """The partitions of one topic. A place is a sequence number, which counts all partitions."""

    def __init__(self, log: TopicLog, group: Group, clock: Clock, *, member: str = "") -> None:
        """Register `member` in `group` until `aclose`; for inspection, leave it empty."""
        self.partitions = log.partitions
        self._log = log
        self._group = group
        self._clock = clock
        self._member = member
        self._reads = 0
        self._changed = asyncio.Event()
        if member:
            group.members[member] = self._changed

    async def cursor_at(self, partition: int, start: Start) -> str:
        self._check_exists()
        return str(self._log.sequence_before(start))

    async def read(self, after: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        clock = self._clock
        until = clock.monotonic() + wait
        while True:
            self._check_exists()
            found = self._next(after, limit)
            left = until - clock.monotonic()
            if found or limit == 0 or left <= 0:
                return [received(stored) for stored in found]
            self._changed.clear()
            await clock.wait(self._changed, self._log.bounded_wait(left))

    def _next(self, after: Mapping[int, str], limit: int) -> list[StoredRecord]:
        """Read the partitions in turn, starting each time with another one."""
        self._reads += 1
        numbers = sorted(after)
        first = self._reads % len(numbers) if numbers else 0
        found: list[StoredRecord] = []
        for number in numbers[first:] + numbers[:first]:
            if len(found) >= limit:
                break
            found += self._log.partition_after(number, int(after[number]), limit - len(found))
        return found

    async def load(self) -> Mapping[int, Cell]:
        return dict(self._group.cells)

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        revisions = {number: self._save(number, cell) for number, cell in cells.items()}
        self._group.cursor = self._log.settled(
            {
                number: int(ordered.cursor_of(cell.value))
                for number, cell in self._group.cells.items()
            }
        )
        return revisions

    def _save(self, number: int, cell: Cell) -> int | None:
        known = self._group.cells.get(number)
        if cell.revision != (known.revision if known else 0):
            return None
        self._group.cells[number] = Cell(cell.value, cell.revision + 1)
        return cell.revision + 1

    def _check_exists(self) -> None:
        if self._group.deleted:
            raise SourceLost(f"the group {self._group.name} was deleted")

    async def aclose(self) -> None:
        self._group.members.pop(self._member, None)
