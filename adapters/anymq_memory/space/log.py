"""`Log`: one topic, its records in order and those that wait for their time."""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from anymq.driver import Clock, ConfigurationError, Outcome, Record, Start, TopicSpec, partition_of

from .group import Group

_DIGITS = 18


@dataclass(slots=True)
class Stored:
    """A record in its topic's log. `time` never goes back from one to the next."""

    sequence: int
    record: Record
    time: float
    partition: int


class Log:
    """One topic: records with sequence numbers that are never used twice, groups, and readers.

    Every look at `records` first lets in the delayed ones that are due and drops what is over the
    retention and behind every group. A read waits no longer than `soonest`: nobody announces what
    falls due.
    """

    def __init__(self, clock: Clock, partitions: int = 1) -> None:
        self.partitions = partitions
        self.retention: float | None = None
        self.retention_bytes: int | None = None
        self.last = 0
        """The sequence of the youngest record there ever was."""
        self.bytes = 0
        self.deleted = False
        self.groups: dict[str, Group] = {}
        self.readers: set[asyncio.Event] = set()
        self._clock = clock
        self._records: list[Stored] = []
        self._lanes = [self._records] if partitions == 1 else [[] for _ in range(partitions)]
        self._delayed: list[tuple[float, int, Record]] = []
        self._serial = count()
        self._turn = -1

    @property
    def records(self) -> list[Stored]:
        """What the topic holds now, oldest first."""
        self._refresh(self._clock.now())
        return self._records

    @property
    def first(self) -> int:
        """The sequence of the oldest record, or the next one to be given."""
        return self.last - len(self._records) + 1

    @property
    def delayed(self) -> int:
        """How many records wait for their time."""
        self._refresh(self._clock.now())
        return len(self._delayed)

    def soonest(self, wait: float, due: float | None = None) -> float:
        """Return `wait` seconds, or less: until `due` (monotonic), or the next delayed record."""
        if self._delayed:
            wait = min(wait, self._delayed[0][0] - self._clock.now())
        if due is not None:
            wait = min(wait, due - self._clock.monotonic())
        return max(0.0, wait)

    def settings(self, topic: TopicSpec) -> None:
        """Take over what `topic` says; raises `ConfigurationError` for other partitions."""
        if topic.partitions not in (None, self.partitions):
            raise ConfigurationError(
                f"the topic {topic.name} has {self.partitions} partitions, not {topic.partitions}"
            )
        if topic.retention is not None:
            self.retention = topic.retention
        if topic.retention_bytes is not None:
            self.retention_bytes = topic.retention_bytes

    def extend(self, records: Iterable[Record]) -> list[Outcome]:
        """Store `records` and return their positions."""
        now = self._clock.now()
        self._refresh(now)
        outcomes: list[Outcome] = []
        for record in records:
            if record.deliver_at is not None and record.deliver_at > now:
                heapq.heappush(self._delayed, (record.deliver_at, next(self._serial), record))
                outcomes.append(None)
            else:
                outcomes.append(str(self._store(record, now)))
        self.wake()
        return outcomes

    def behind(self, start: Start) -> int:
        """Return the sequence of the last record before `start`."""
        records = self.records
        before = self.first - 1
        if start == "earliest":
            return before
        if start == "latest":
            return self.last
        if isinstance(start, datetime):
            if start.tzinfo is None:
                raise ConfigurationError(f"start {start!r} has no time zone")
            return before + bisect_left(records, start.timestamp(), key=lambda item: item.time)
        if not (start.isascii() and start.isdecimal() and len(start) <= _DIGITS):
            raise ConfigurationError(f"{start!r} is not a position: expected a number")
        return min(max(int(start) - 1, before), self.last)

    def after(self, sequence: int, limit: int) -> list[Stored]:
        """Return up to `limit` records that follow `sequence`."""
        records = self.records
        index = max(0, sequence - self.first + 1)
        return records[index : index + limit]

    def lane(self, partition: int) -> list[Stored]:
        """Return the records of `partition`, oldest first."""
        self._refresh(self._clock.now())
        return self._lanes[partition]

    def lane_after(self, partition: int, sequence: int, limit: int) -> list[Stored]:
        """Return up to `limit` records of `partition` that follow `sequence`."""
        lane = self.lane(partition)
        index = bisect_right(lane, sequence, key=lambda item: item.sequence)
        return lane[index : index + limit]

    def settled(self, cursors: Mapping[int, int]) -> int:
        """Return how many of the oldest records lie behind the `cursors` of their partitions."""
        nexts = [self.lane_after(number, cursor, 1) for number, cursor in cursors.items()]
        first = min((found[0].sequence for found in nexts if found), default=self.last + 1)
        return first - self.first

    def wake(self) -> None:
        """Tell everybody who waits to look again."""
        for group in self.groups.values():
            group.wake()
        for event in self.readers:
            event.set()

    def purge(self) -> None:
        """Drop all records, delayed ones too, and what the groups have out of them."""
        self._drop(len(self._records))
        self._delayed.clear()
        for group in self.groups.values():
            group.forget()

    def delete(self) -> None:
        """Say goodbye to all who read."""
        self.deleted = True
        self.purge()
        for group in self.groups.values():
            group.delete()
        self.wake()

    def _refresh(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            due, _, record = heapq.heappop(self._delayed)
            self._store(record, due)
            self.wake()
        if self.retention is not None or self.retention_bytes is not None:
            self._trim(now)

    def _store(self, record: Record, now: float) -> int:
        self.last = sequence = self.last + 1
        records = self._records
        if records and records[-1].time > now:
            now = records[-1].time
        if self.partitions == 1:
            records.append(Stored(sequence, record, now, 0))
        else:
            partition = self._partition(record.key)
            stored = Stored(sequence, record, now, partition)
            records.append(stored)
            self._lanes[partition].append(stored)
        self.bytes += len(record.body)
        return sequence

    def _partition(self, key: str | None) -> int:
        if key is not None:
            return partition_of(key, self.partitions)
        self._turn = (self._turn + 1) % self.partitions
        return self._turn

    def _trim(self, now: float) -> None:
        oldest = -float("inf") if self.retention is None else now - self.retention
        excess = 0 if self.retention_bytes is None else self.bytes - self.retention_bytes
        drop, done = 0, self._done()
        while drop < done and (excess > 0 or self._records[drop].time < oldest):
            excess -= len(self._records[drop].record.body)
            drop += 1
        if drop:
            self._drop(drop)

    def _done(self) -> int:
        """Return how many of the oldest records no group needs: what is out, it holds itself."""
        return min((group.cursor for group in self.groups.values()), default=len(self._records))

    def _drop(self, number: int) -> None:
        for stored in self._records[:number]:
            self.bytes -= len(stored.record.body)
        del self._records[:number]
        first = self.first
        for lane in self._lanes if self.partitions > 1 else ():
            del lane[: bisect_left(lane, first, key=lambda item: item.sequence)]
        for group in self.groups.values():
            group.cursor = max(0, group.cursor - number)
