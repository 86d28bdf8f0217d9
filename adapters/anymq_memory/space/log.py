"""`TopicLog`: one topic, its records in order, its delayed records and its groups."""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import count

from anymq.driver import Clock, ConfigurationError, Outcome, Record, Start, TopicSpec, partition_of

from ..messages import StoredRecord
from .group import Group

_MOST_DIGITS = 18
"""Digits of a position: so that every position fits into 64 bits."""


class TopicLog:
    """One topic: records with sequence numbers that are never used twice, groups, and readers.

    Each access to `records` first stores the delayed records that are due, and deletes records
    that exceed the retention and are behind the cursors of all groups. No timer runs: a reader
    waits no longer than `bounded_wait`, so it sees a delayed record when it is due.
    """

    def __init__(self, clock: Clock, partitions: int = 1) -> None:
        self.partitions = partitions
        self.retention: float | None = None
        self.retention_bytes: int | None = None
        self.last = 0
        """The sequence of the youngest record, retained or deleted."""
        self.bytes = 0
        self.deleted = False
        self.groups: dict[str, Group] = {}
        self.readers: set[asyncio.Event] = set()
        self._clock = clock
        self._records: list[StoredRecord] = []
        self._by_partition = [self._records] if partitions == 1 else [[] for _ in range(partitions)]
        self._delayed: list[tuple[float, int, Record]] = []
        self._serial = count()
        self._round_robin = -1

    @property
    def records(self) -> list[StoredRecord]:
        """The retained records, oldest first."""
        self._refresh(self._clock.now())
        return self._records

    @property
    def first(self) -> int:
        """The sequence of the oldest retained record; the next sequence if there is none."""
        return self.last - len(self._records) + 1

    @property
    def delayed(self) -> int:
        """The number of delayed records that are not due."""
        self._refresh(self._clock.now())
        return len(self._delayed)

    def bounded_wait(self, wait: float, due: float | None = None) -> float:
        """Return `wait` seconds, or less: until `due` (monotonic), or the next delayed record."""
        if self._delayed:
            wait = min(wait, self._delayed[0][0] - self._clock.now())
        if due is not None:
            wait = min(wait, due - self._clock.monotonic())
        return max(0.0, wait)

    def configure(self, topic: TopicSpec) -> None:
        """Apply the retention of `topic`.

        Raises `ConfigurationError` for another number of partitions.
        """
        if topic.partitions not in (None, self.partitions):
            raise ConfigurationError(
                f"the topic {topic.name} has {self.partitions} partitions, not {topic.partitions}"
            )
        if topic.retention is not None:
            self.retention = topic.retention
        if topic.retention_bytes is not None:
            self.retention_bytes = topic.retention_bytes

    def append(self, records: Iterable[Record]) -> list[Outcome]:
        """Store `records` and return their positions; None for those that are delayed."""
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

    def sequence_before(self, start: Start) -> int:
        """Return the sequence of the last record before `start`."""
        records = self.records
        before = self.first - 1
        if start == "earliest":
            return before
        if start == "latest":
            return self.last
        if isinstance(start, datetime):
            return before + bisect_left(records, start.timestamp(), key=lambda item: item.time)
        if not (start.isascii() and start.isdecimal() and len(start) <= _MOST_DIGITS):
            raise ConfigurationError(f"{start!r} is not a position: expected a number")
        return min(max(int(start) - 1, before), self.last)

    def cursor_at(self, start: Start) -> int:
        """Return the `Group.cursor` of a group that starts at `start`."""
        return max(0, self.sequence_before(start) - self.first + 1)

    def after(self, sequence: int, limit: int) -> list[StoredRecord]:
        """Return up to `limit` records that follow `sequence`."""
        records = self.records
        index = max(0, sequence - self.first + 1)
        return records[index : index + limit]

    def partition(self, number: int) -> list[StoredRecord]:
        """Return the retained records of one partition, oldest first."""
        self._refresh(self._clock.now())
        return self._by_partition[number]

    def partition_after(self, number: int, sequence: int, limit: int) -> list[StoredRecord]:
        """Return up to `limit` records of one partition that follow `sequence`."""
        records = self.partition(number)
        index = bisect_right(records, sequence, key=lambda item: item.sequence)
        return records[index : index + limit]

    def settled(self, cursors: Mapping[int, int]) -> int:
        """Return how many of the oldest records are not after the `cursors` of their partitions."""
        following = [self.partition_after(number, cursor, 1) for number, cursor in cursors.items()]
        first = min((found[0].sequence for found in following if found), default=self.last + 1)
        return first - self.first

    def wake(self) -> None:
        """Wake all waiting members and readers."""
        for group in self.groups.values():
            group.wake()
        for event in self.readers:
            event.set()

    def purge(self) -> None:
        """Delete all records, delayed and pending ones included."""
        self._delete_oldest(len(self._records))
        self._delayed.clear()
        for group in self.groups.values():
            group.discard_pending()

    def delete(self) -> None:
        """Mark the topic and its groups as deleted, delete all records, and wake all readers."""
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
            self._apply_retention(now)

    def _store(self, record: Record, now: float) -> int:
        self.last = sequence = self.last + 1
        records = self._records
        if records and records[-1].time > now:
            now = records[-1].time
        if self.partitions == 1:
            records.append(StoredRecord(sequence, record, now, 0))
        else:
            partition = self._partition_for(record.key)
            stored = StoredRecord(sequence, record, now, partition)
            records.append(stored)
            self._by_partition[partition].append(stored)
        self.bytes += len(record.body)
        return sequence

    def _partition_for(self, key: str | None) -> int:
        if key is not None:
            return partition_of(key, self.partitions)
        self._round_robin = (self._round_robin + 1) % self.partitions
        return self._round_robin

    def _apply_retention(self, now: float) -> None:
        oldest = -float("inf") if self.retention is None else now - self.retention
        excess = 0 if self.retention_bytes is None else self.bytes - self.retention_bytes
        number, delivered = 0, self._delivered_to_all()
        while number < delivered and (excess > 0 or self._records[number].time < oldest):
            excess -= len(self._records[number].record.body)
            number += 1
        if number:
            self._delete_oldest(number)

    def _delivered_to_all(self) -> int:
        """Return how many of the oldest records no group needs from the log.

        Pending deliveries keep their records themselves.
        """
        return min((group.cursor for group in self.groups.values()), default=len(self._records))

    def _delete_oldest(self, number: int) -> None:
        for stored in self._records[:number]:
            self.bytes -= len(stored.record.body)
        del self._records[:number]
        first = self.first
        for records in self._by_partition if self.partitions > 1 else ():
            del records[: bisect_left(records, first, key=lambda item: item.sequence)]
        for group in self.groups.values():
            group.cursor = max(0, group.cursor - number)
