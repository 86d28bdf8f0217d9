"""The state that brokers of one name share: topics, groups, deliveries."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

from anymq.driver import Record


@dataclass(slots=True)
class Stored:
    """A record in its topic's log, or a copy for one group."""

    sequence: int
    record: Record
    time: float


@dataclass(slots=True)
class Out:
    """One delivery of a record to one group: in a member's hands, or waiting to come back."""

    stored: Stored
    attempt: int
    owner: str | None = None
    due: float = 0.0
    """When it may be delivered (waiting), or when its lease ends (owned)."""


@dataclass(slots=True)
class Group:
    """A cursor on a topic and what is out. `changed` wakes the members that wait."""

    cursor: int
    out: dict[int, Out] = field(default_factory=dict)
    schedule: list[tuple[float, int, int]] = field(default_factory=list)
    members: set[asyncio.Event] = field(default_factory=set)
    serial: count[int] = field(default_factory=count)

    def wake(self) -> None:
        """Tell every waiting member to look again."""
        for event in self.members:
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


@dataclass(slots=True)
class Log:
    """One topic: its records in order, its groups, and the broadcast readers to wake."""

    records: list[Stored] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    readers: set[asyncio.Event] = field(default_factory=set)

    def append(self, record: Record, now: float) -> int:
        """Store `record` and return its sequence; a repeated one is stored once."""
        known = self.seen.get(record.unique)
        if known is not None:
            return known
        sequence = len(self.records) + 1
        self.records.append(Stored(sequence, record, now))
        self.seen[record.unique] = sequence
        for group in self.groups.values():
            group.wake()
        for event in self.readers:
            event.set()
        return sequence


class Space:
    """The topics of one name; lives while a broker uses it."""

    _shared: ClassVar[dict[str, Space]] = {}

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self._users = 0
        self._name = ""

    @classmethod
    def join(cls, name: str) -> Space:
        """Return the space called `name`, or a private one for the empty name."""
        space = cls._shared.setdefault(name, cls()) if name else cls()
        space._name = name
        space._users += 1
        return space

    def leave(self) -> None:
        """One broker less; the last one takes a named space with it."""
        self._users -= 1
        if self._users == 0 and self._name:
            self._shared.pop(self._name, None)
