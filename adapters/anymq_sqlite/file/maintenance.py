"""Deleting what is old and done with."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from functools import partial
from typing import NamedTuple

from anymq.driver import AnymqError, supervise

from ..connection import Database

# Messages looked at in one transaction.
_WINDOW = 500
_LARGEST = (1 << 63) - 1


class Topic(NamedTuple):
    """A topic to sweep: messages up to `floor` may go that are older than `cutoff`.

    Also those that, together with all younger ones, are more than `most` bytes.
    """

    id: int
    floor: int
    cutoff: float
    most: int | None


class Janitor:
    """Sweeps the file every `interval` seconds, a little at a time; several may do so at once."""

    def __init__(self, database: Database, retention: float, interval: float) -> None:
        self._database = database
        self._retention = retention
        self._interval = interval
        self._task = supervise(self._run(), name=f"sweep {database.path.name}")

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
            excess = await self._excess(topic)
            job = partial(sweep, topic=topic, excess=excess)
            place: int | None = 0
            while place is not None:
                count, place = await self._database.write(partial(job, place=place))
                deleted += count
        return deleted

    async def _excess(self, topic: Topic) -> int:
        """Return the `seq` up to which messages are too many bytes, 0 if there are not."""
        if topic.most is None:
            return 0
        place, left = _LARGEST, topic.most
        while left >= 0:
            job = partial(weigh, topic=topic.id, place=place, left=left)
            following, left = await self._database.read(job)
            if following is None:
                return 0
            place = following
        return place

    async def aclose(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.wait([self._task])


def topics(db: sqlite3.Connection, now: float, retention: float) -> list[Topic]:
    """Return the topics to sweep; without a group, only those with a bound of their own."""
    query = """
    SELECT topics.id, ifnull(min(iif(ordered, NULL, cursor)), ?),
      iif(count(groups.id), ? - ifnull(retention, ?), ifnull(? - retention, 0)), retention_bytes
    FROM topics LEFT JOIN groups ON groups.topic = topics.id GROUP BY topics.id
    HAVING retention IS NOT NULL OR retention_bytes IS NOT NULL OR count(groups.id)
    """
    return [Topic(*row) for row in db.execute(query, (_LARGEST, now, retention, now))]


def weigh(db: sqlite3.Connection, *, topic: int, place: int, left: int) -> tuple[int | None, int]:
    """Go down from `place` while `left` bytes are not used up; return where that ended, and `left`.

    The place is None when there is nothing below; `left` is negative when the message there is
    one too many.
    """
    query = """
    SELECT seq, length(body) FROM messages WHERE topic = ? AND seq < ? ORDER BY seq DESC LIMIT ?
    """
    last: int | None = None
    for seq, size in db.execute(query, (topic, place, _WINDOW)):
        last = seq
        left -= size
        if left < 0:
            break
    return last, left


def sweep(
    db: sqlite3.Connection, *, topic: Topic, excess: int, place: int
) -> tuple[int, int | None]:
    """Delete among the messages that follow `place`; return how many, and the next place if any."""
    window = """
    SELECT seq, time FROM messages WHERE topic = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?
    """
    rows = db.execute(window, (topic.id, place, topic.floor, _WINDOW)).fetchall()
    # The log is in the order of time but for the clock's jumps: the first young one ends the sweep.
    old = [seq for seq, stored in rows if stored < topic.cutoff or seq <= excess]
    if not old:
        return 0, None
    delete = """
    DELETE FROM messages WHERE seq = ? AND NOT EXISTS (
      SELECT 1 FROM groups JOIN pending ON grp = groups.id AND pending.seq = messages.seq
      WHERE groups.topic = messages.topic
    ) AND NOT EXISTS (
      SELECT 1 FROM groups
      LEFT JOIN cells ON grp = groups.id AND cells.part = ifnull(messages.part, 0)
      WHERE groups.topic = messages.topic AND ordered AND ifnull(cells.cursor, 0) < messages.seq
    )
    """
    count = db.executemany(delete, [(seq,) for seq in old]).rowcount
    return count, old[-1] if len(old) == _WINDOW else None
