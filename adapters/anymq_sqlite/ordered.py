"""`SqliteLog`: a topic as an ordered group reads it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anymq.driver import Cell, PartitionedLog, Received, Start, ordered

from . import delays
from .file import log, pending
from .file import presence as members
from .file.pending import Group
from .file.presence import Membership
from .messages import stored
from .source import RECEIVE_BYTES

if TYPE_CHECKING:
    from .driver import SqliteDriver


class SqliteLog(PartitionedLog):
    """Places are `seq`s as text; they count through all partitions and topics.

    With `member`, it keeps that member of `group` alive for as long as the cells are asked for.
    """

    def __init__(
        self,
        driver: SqliteDriver,
        topic: log.Topic,
        name: str,
        group: Group,
        *,
        member: str | None = None,
    ) -> None:
        self.partitions = topic.partitions
        self._driver = driver
        self._database = driver.native
        self._topic = topic
        self._name = name
        self._group = group
        self._member = member
        self._membership = Membership(self._database, group, member) if member else None
        self._changed = driver.watch.add(name)
        self._turn = 0
        self._closed = False

    async def place(self, partition: int, start: Start) -> str:
        return str(await self._database.read(lambda db: log.behind(db, self._topic.id, start)))

    async def read(self, behind: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        deadline = time.monotonic() + wait
        while limit > 0:
            self._changed.clear()
            self._turn += 1
            messages, due = await self._database.read(lambda db: self._read(db, behind, limit))
            if messages:
                return [stored(message) for message in messages]
            if due is not None and due <= time.time():
                await self._driver.ripen(self._name)
                continue
            left = None if due is None else due - time.time()
            if not await self._driver.watch.wait(self._changed, deadline, left):
                break
        return []

    def _read(
        self, db: sqlite3.Connection, behind: Mapping[int, str], limit: int
    ) -> tuple[Sequence[log.Message], float | None]:
        """Read the partitions in turn, each time beginning with another one."""
        pending.place(db, self._group)
        numbers = sorted(behind)
        first = self._turn % len(numbers) if numbers else 0
        found: list[log.Message] = []
        size = 0
        for number in numbers[first:] + numbers[:first]:
            if len(found) >= limit or size >= RECEIVE_BYTES:
                break
            new = log.after(
                db,
                self._topic.id,
                int(behind[number]),
                limit=limit - len(found),
                max_bytes=RECEIVE_BYTES - size,
                part=number if self.partitions > 1 else None,
            )
            size += sum(len(message.body) for message in new)
            found += new
        return found, delays.next_ripe(db, self._topic.id)

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
            done = db.execute(insert, (part, cell.value, cursor, *self._group))
        else:
            update = """
            UPDATE cells SET value = ?, cursor = ?, revision = revision + 1
            WHERE grp = ? AND part = ? AND revision = ?
            """
            row = (cell.value, cursor, self._group.id, part, cell.revision)
            done = db.execute(update, row)
        return cell.revision + 1 if done.rowcount else None

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._driver.watch.remove(self._name, self._changed)
        if self._member is not None:
            name = self._member
            await self._database.write(lambda db: members.leave(db, self._group, name))
