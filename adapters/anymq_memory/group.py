"""A group: how far it has come, what its members have out, and the cells of an ordered one."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from anymq.errors import StateError
from anymq.partitioned_log import Cell

if TYPE_CHECKING:
    from .topic import Stored


@dataclass(slots=True)
class Out:
    """One delivery of a record to one group: in a member's hands, or waiting to come back."""

    stored: Stored
    attempt: int
    owner: str | None = None
    taken: float = 0.0
    due: float = 0.0
    """When it may be delivered (waiting), or when its lease ends (owned)."""

    @property
    def tries(self) -> int:
        """How often it was delivered: `attempt` is the next one of what waits."""
        return self.attempt - (self.owner is None)


@dataclass(slots=True)
class Group:
    """How many of the topic's records it has been given, the `cursor`, and which are out.

    An ordered group has cells instead; its cursor is how many of the oldest are settled.
    """

    name: str
    ordered: bool
    cursor: int = 0
    deleted: bool = False
    out: dict[int, Out] = field(default_factory=dict)
    schedule: list[tuple[float, int, int]] = field(default_factory=list)
    members: dict[str, asyncio.Event] = field(default_factory=dict)
    cells: dict[int, Cell] = field(default_factory=dict)
    serial: count[int] = field(default_factory=count)

    def wake(self) -> None:
        """Tell every waiting member to look again."""
        for event in self.members.values():
            event.set()

    def plan(self, number: int, out: Out) -> None:
        """Look at this delivery again when it is due."""
        heapq.heappush(self.schedule, (out.due, next(self.serial), number))

    def due(self, now: float) -> int | None:
        """Take and return the number of a delivery that can be handed out at `now`."""
        while self.schedule and self.schedule[0][0] <= now:
            _, _, number = heapq.heappop(self.schedule)
            out = self.out.get(number)
            if out is not None and out.due <= now:
                return number
        return None

    def next_due(self) -> float | None:
        """Return when to look again, None if nothing is scheduled."""
        return self.schedule[0][0] if self.schedule else None

    def begin(self, behind: int, first: int) -> None:
        """Start anew behind the sequence `behind` of a topic whose oldest record is `first`."""
        self.forget()
        self.cursor = max(0, behind - first + 1)

    def delete(self) -> None:
        """Leave nothing to read or to settle."""
        self.deleted = True
        self.forget()
        self.cells.clear()

    def forget(self) -> None:
        """Drop what is out; who holds it settles nothing any more."""
        self.out.clear()
        self.schedule.clear()

    def check_idle(self) -> None:
        """Raise `StateError` if the group has live members."""
        if self.members:
            raise StateError(f"the group {self.name} has {len(self.members)} live members")
