"""A group: how far it has come, what its members have out, and the cells of an ordered one."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from anymq.driver import ONLY_GROUP, Cell, Published, Record, StateError

if TYPE_CHECKING:
    from .log import Stored


class Out(Published):
    """One delivery of a record to one group: in a member's hands, or waiting to come back.

    What a member has in its hands, the core settles: it is the group's as long as it is the one
    in `Group.out`. What comes back is another one.
    """

    __slots__ = ("attempt", "due", "number", "owner", "stored", "taken")

    def __init__(
        self,
        number: int,
        stored: Stored,
        attempt: int,
        owner: str | None,
        taken: float,
        due: float,
    ) -> None:
        self.number = number
        self.stored = stored
        self.attempt = attempt
        self.owner = owner
        self.taken = taken
        self.due = due
        """When it may be delivered (waiting), or when its lease ends (owned); monotonic: the wall
        clock may be set while a handler runs."""
        self.body = stored.record.body
        self.not_before = None

    @property
    def tries(self) -> int:
        """How often it was delivered: `attempt` is the next one of what waits."""
        return self.attempt - (self.owner is None)

    @property
    def fresh(self) -> bool:
        return self.attempt == 1 and ONLY_GROUP not in self.stored.record.own

    def header(self, name: str) -> str | None:
        record = self.stored.record
        return record.own.get(name) or record.common.get(name)

    @property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        return self.stored.record.headers

    @property
    def position(self) -> str:  # type: ignore[override]
        return str(self.stored.sequence)

    @property
    def native(self) -> Record:
        return self.stored.record

    @property
    def key(self) -> str | None:  # type: ignore[override]
        return self.stored.record.key

    @property
    def content_type(self) -> str | None:  # type: ignore[override]
        return self.stored.record.content_type

    @property
    def time(self) -> float:  # type: ignore[override]
        return self.stored.time

    @property
    def redeliveries(self) -> int:  # type: ignore[override]
        return self.attempt - 1

    @property
    def partition(self) -> int:  # type: ignore[override]
        return self.stored.partition


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
    schedule: list[tuple[float, int, Sequence[int]]] = field(default_factory=list)
    overdue: deque[int] = field(default_factory=deque)
    members: dict[str, asyncio.Event] = field(default_factory=dict)
    cells: dict[int, Cell] = field(default_factory=dict)
    serial: count[int] = field(default_factory=count)
    number: int = 0
    """Of the next delivery."""

    def wake(self) -> None:
        """Tell every waiting member to look again."""
        for event in self.members.values():
            event.set()

    def plan(self, numbers: Sequence[int], due: float) -> None:
        """Look at these deliveries again when they are due."""
        heapq.heappush(self.schedule, (due, next(self.serial), numbers))

    def due(self, now: float) -> Out | None:
        """Return a delivery that can be handed out at `now`; it is looked at no more."""
        while True:
            while self.overdue:
                out = self.out.get(self.overdue.popleft())
                if out is not None and out.due <= now:
                    return out
            if not self.schedule or self.schedule[0][0] > now:
                return None
            self.overdue.extend(heapq.heappop(self.schedule)[2])

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
        self.overdue.clear()

    def check_idle(self) -> None:
        """Raise `StateError` if the group has live members."""
        if self.members:
            raise StateError(f"the group {self.name} has {len(self.members)} live members")
