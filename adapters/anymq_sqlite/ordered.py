"""`SqlitePartitions`: one topic as an ordered group reads it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence

from anymq.driver import Cell, PartitionedLog, Received, Start, ordered

from . import delays
from .connection import Database
from .file import log, pending, presence
from .file.notifications import TopicEvents
from .file.presence import Membership
from .messages import received
from .positions import seq_before
from .topology import Group, Topic


class SqlitePartitions(PartitionedLog):
    """The partitions of one topic. A place is a `seq`, which counts all partitions and topics.

    With `member`, each `load` and `save` keeps that member of the group alive.
    """

    def __init__(
        self,
        database: Database,
        events: TopicEvents,
        *,
        topic: Topic,
        name: str,
        group: Group,
        member: str | None = None,
    ) -> None:
        self.partitions = topic.partitions
        self._database = database
        self._events = events
        self._topic = topic
        self._name = name
        self._group = group
        self._member = member
        self._membership = Membership(database, group, member) if member else None
        self._changed = events.add(name)
        self._reads = 0
        self._closed = False

    async def cursor_at(self, partition: int, start: Start) -> str:
        return str(await self._database.read(lambda db: seq_before(db, self._topic.id, start)))

    async def read(self, after: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        deadline = time.monotonic() + wait
        while limit > 0:
            self._changed.clear()
            self._reads += 1
            messages, due = await self._database.read(lambda db: self._read(db, after, limit))
            if messages:
                return [received(message) for message in messages]
            if due is not None and due <= time.time():
                await delays.move_all_due(self._database, self._events, self._name)
                continue
            left = None if due is None else due - time.time()
            if not await self._events.wait(self._changed, deadline, left):
                break
        return []

    def _read(
        self, db: sqlite3.Connection, after: Mapping[int, str], limit: int
    ) -> tuple[Sequence[log.Message], float | None]:
        """Read the partitions in turn, starting each time with another one."""
        pending.find_cursor(db, self._group)
        numbers = sorted(after)
        first = self._reads % len(numbers) if numbers else 0
        found: list[log.Message] = []
        size = 0
        for number in numbers[first:] + numbers[:first]:
            if len(found) >= limit or size >= log.READ_BYTES:
                break
            new = log.after(
                db,
                self._topic.id,
                int(after[number]),
                limit=limit - len(found),
                max_bytes=log.READ_BYTES - size,
                part=number if self.partitions > 1 else None,
            )
            size += sum(len(message.body) for message in new)
            found += new
        return found, delays.next_due(db, self._topic.id)

    async def load(self) -> Mapping[int, Cell]:
        if self._membership is not None:
            self._membership.renew()
        return await self._database.read(self._load)

    def _load(self, db: sqlite3.Connection) -> Mapping[int, Cell]:
        query = """
        SELECT part, value, revision FROM cells
        WHERE grp = (SELECT id FROM groups WHERE id = ? AND name = ?)
        """
        return {part: Cell(*cell) for part, *cell in db.execute(query, self._group)}

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        if self._membership is not None:
            self._membership.renew()
        return await self._database.write(
            lambda db: {part: self._save(db, part, cell) for part, cell in cells.items()}
        )

    def _save(self, db: sqlite3.Connection, part: int, cell: Cell) -> int | None:
        cursor = int(ordered.cursor_of(cell.value))
        if cell.revision == 0:
            insert = """
            INSERT OR IGNORE INTO cells (grp, part, value, cursor, revision)
            SELECT id, ?, ?, ?, 1 FROM groups WHERE id = ? AND name = ?
            """
            written = db.execute(insert, (part, cell.value, cursor, *self._group))
        else:
            update = """
            UPDATE cells SET value = ?, cursor = ?, revision = revision + 1
            WHERE grp = ? AND part = ? AND revision = ?
            """
            row = (cell.value, cursor, self._group.id, part, cell.revision)
            written = db.execute(update, row)
        return cell.revision + 1 if written.rowcount else None

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._events.remove(self._name, self._changed)
        if self._member is not None:
            name = self._member
            await self._database.write(lambda db: presence.leave(db, self._group, name))
