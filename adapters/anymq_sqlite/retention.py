"""Deleting what is old and done with."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from functools import partial
from typing import NamedTuple

from anymq.errors import AnymqError

from .database import Database

# Messages looked at in one transaction.
_WINDOW = 500


class Topic(NamedTuple):
    """A topic to sweep: messages up to `floor` that are older than `cutoff` may go."""

    id: int
    floor: int
    cutoff: float


class Janitor:
    """Sweeps the file every `interval` seconds, a little at a time; several may do so at once."""

    def __init__(self, database: Database, retention: float, interval: float) -> None:
        self._database = database
        self._retention = retention
        self._interval = interval
        self._task = asyncio.create_task(self._run(), name=f"sweep {database.path.name}")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            # What keeps one sweep from its work is told to those who publish and receive.
            with contextlib.suppress(sqlite3.Error, OSError, AnymqError):
                await self.sweep()

    async def sweep(self) -> int:
        """Delete what may go, and return how many messages that were."""
        deleted = 0
        now = time.time()
        for topic in await self._database.read(lambda db: topics(db, now, self._retention)):
            place: int | None = 0
            while place is not None:
                count, place = await self._database.write(partial(sweep, topic=topic, place=place))
                deleted += count
        return deleted

    async def aclose(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.wait([self._task])


def topics(db: sqlite3.Connection, now: float, retention: float) -> list[Topic]:
    """Return the topics to sweep; without a group, only those with a retention of their own."""
    query = """
    SELECT topics.id, ifnull(min(cursor), 1 << 62), ? - ifnull(retention, ?)
    FROM topics LEFT JOIN groups ON groups.topic = topics.id
    GROUP BY topics.id HAVING retention IS NOT NULL OR count(groups.id)
    """
    return [Topic(*row) for row in db.execute(query, (now, retention))]


def sweep(db: sqlite3.Connection, *, topic: Topic, place: int) -> tuple[int, int | None]:
    """Delete among the messages that follow `place`; return how many, and the next place if any."""
    window = """
    SELECT seq, time FROM messages WHERE topic = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?
    """
    rows = db.execute(window, (topic.id, place, topic.floor, _WINDOW)).fetchall()
    # The log is in the order of time but for the clock's jumps: the first young one ends the sweep.
    old = [seq for seq, stored in rows if stored < topic.cutoff]
    if not old:
        return 0, None
    delete = """
    DELETE FROM messages WHERE seq = ? AND NOT EXISTS (
      SELECT 1 FROM groups JOIN pending ON grp = groups.id AND pending.seq = messages.seq
      WHERE groups.topic = messages.topic
    )
    """
    count = db.executemany(delete, [(seq,) for seq in old]).rowcount
    return count, old[-1] if len(old) == _WINDOW else None
