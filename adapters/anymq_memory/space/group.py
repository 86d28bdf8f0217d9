"""`Group`: the cursor, pending deliveries, members and lease records of one consumer group."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from anymq.driver import Cell, StateError

from ..messages import PendingDelivery


@dataclass(slots=True)
class Group:
    """One consumer group of a topic.

    `cursor` is the number of the topic's retained records that have been delivered to the group,
    counted from the oldest. `pending` holds the deliveries that are in flight or wait for a retry.
    An ordered group has `cells`, one for each partition, instead of pending deliveries; its cursor
    is the number of the oldest records that are settled.
    """

    name: str
    ordered: bool
    cursor: int = 0
    deleted: bool = False
    pending: dict[int, PendingDelivery] = field(default_factory=dict)
    schedule: list[tuple[float, int, Sequence[int]]] = field(default_factory=list)
    """A heap: when to check which deliveries."""
    overdue: deque[int] = field(default_factory=deque)
    """Deliveries to check before the schedule."""
    members: dict[str, asyncio.Event] = field(default_factory=dict)
    cells: dict[int, Cell] = field(default_factory=dict)
    serial: count[int] = field(default_factory=count)
    next_number: int = 0
    """The number of the next delivery."""

    def wake(self) -> None:
        """Wake every waiting member."""
        for event in self.members.values():
            event.set()

    def check_at(self, due: float, numbers: Sequence[int]) -> None:
        """Check these deliveries at the monotonic time `due`."""
        heapq.heappush(self.schedule, (due, next(self.serial), numbers))

    def pop_due(self, now: float) -> PendingDelivery | None:
        """Return a delivery that may be redelivered at `now`, and remove it from the schedule."""
        while True:
            while self.overdue:
                delivery = self.pending.get(self.overdue.popleft())
                if delivery is not None and delivery.due <= now:
                    return delivery
            if not self.schedule or self.schedule[0][0] > now:
                return None
            self.overdue.extend(heapq.heappop(self.schedule)[2])

    def next_check(self) -> float | None:
        """Return the time of the next scheduled check, None if there is none."""
        return self.schedule[0][0] if self.schedule else None

    def reset(self, cursor: int) -> None:
        """Discard all pending deliveries and continue at `cursor`."""
        self.discard_pending()
        self.cursor = cursor

    def delete(self) -> None:
        """Mark the group as deleted and discard its state."""
        self.deleted = True
        self.discard_pending()
        self.cells.clear()

    def discard_pending(self) -> None:
        """Discard all pending deliveries; later settlements of them are ignored."""
        self.pending.clear()
        self.schedule.clear()
        self.overdue.clear()

    def check_idle(self) -> None:
        """Raise `StateError` if the group has live members."""
        if self.members:
            raise StateError(f"the group {self.name} has {len(self.members)} live members")
