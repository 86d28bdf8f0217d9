"""`MemoryLog`: a topic as an ordered group reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from anymq.driver import Cell, Clock, PartitionedLog, Received, SourceLost, Start, ordered

from .source import received
from .space.group import Group
from .space.log import Log, Stored


class MemoryLog(PartitionedLog):
    """Places are sequence numbers as text; they count through all partitions."""

    def __init__(self, log: Log, group: Group, clock: Clock, *, member: str = "") -> None:
        """Let `member` count as a member of `group` until the end; without one, just look."""
        self.partitions = log.partitions
        self._log = log
        self._group = group
        self._clock = clock
        self._member = member
        self._turn = 0
        self._event = asyncio.Event()
        if member:
            group.members[member] = self._event

    async def place(self, partition: int, start: Start) -> str:
        self._check()
        return str(self._log.behind(start))

    async def read(self, behind: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        clock = self._clock
        until = clock.monotonic() + wait
        while True:
            self._check()
            taken = self._next(behind, limit)
            left = until - clock.monotonic()
            if taken or limit == 0 or left <= 0:
                return [received(stored) for stored in taken]
            self._event.clear()
            await clock.wait(self._event, self._log.soonest(left))

    def _next(self, behind: Mapping[int, str], limit: int) -> list[Stored]:
        """Read the partitions in turn, each time beginning with another one."""
        self._turn += 1
        numbers = sorted(behind)
        first = self._turn % len(numbers) if numbers else 0
        taken: list[Stored] = []
        for number in numbers[first:] + numbers[:first]:
            if len(taken) >= limit:
                break
            taken += self._log.lane_after(number, int(behind[number]), limit - len(taken))
        return taken

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

    def _check(self) -> None:
        if self._group.deleted:
            raise SourceLost(f"the group {self._group.name} was deleted")

    async def aclose(self) -> None:
        self._group.members.pop(self._member, None)
