"""Retention: deletes old messages that every group has settled."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from functools import partial
from typing import NamedTuple

from anymq.driver import AnymqError, supervise

from ..connection import Database

_TRANSACTION_ROWS = 500
_LARGEST_SEQ = (1 << 63) - 1


class TopicRetention(NamedTuple):
    """Retention of one topic.

    Of the messages up to `floor`, those older than `cutoff` may be deleted. So may those that,
    together with all younger ones, have more than `max_bytes` bytes.
    """

    id: int
    floor: int
    cutoff: float
    max_bytes: int | None


class RetentionSweeper:
    """Applies the retention of all topics every `interval` seconds, in short transactions.

    Several processes may do so at the same time.
    """

    def __init__(self, database: Database, retention: float, interval: float) -> None:
        self._database = database
        self._retention = retention
        self._interval = interval
        self._task = supervise(self._run(), name=f"sweep {database.path.name}")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            # The same failure is raised to callers that publish and receive.
            with contextlib.suppress(sqlite3.Error, OSError, AnymqError):
                await self.sweep()

    async def sweep(self) -> int:
        """Delete what the retention allows; return the number of deleted messages."""
        deleted = 0
        now = time.time()
        for topic in await self._database.read(lambda db: _topics(db, now, self._retention)):
            excess = await self._excess(topic)
            job = partial(_delete_after, topic=topic, excess=excess)
            after: int | None = 0
            while after is not None:
                count, after = await self._database.write(partial(job, after=after))
                deleted += count
        return deleted

    async def _excess(self, topic: TopicRetention) -> int:
        """Return the `seq` up to which messages exceed `max_bytes`, 0 if none does."""
        if topic.max_bytes is None:
            return 0
        seq, left = _LARGEST_SEQ, topic.max_bytes
        while left >= 0:
            job = partial(_subtract_bytes, topic=topic.id, before=seq, left=left)
            lower, left = await self._database.read(job)
            if lower is None:
                return 0
            seq = lower
        return seq

    async def aclose(self) -> None:
        """Stop the sweeps."""
        self._task.cancel()
        await asyncio.wait([self._task])


def _topics(db: sqlite3.Connection, now: float, retention: float) -> list[TopicRetention]:
    """Return the topics to sweep: those that have a group, or a retention of their own."""
    query = """
    SELECT topics.id, ifnull(min(iif(ordered, NULL, cursor)), ?),
      iif(count(groups.id), ? - ifnull(retention, ?), ifnull(? - retention, 0)), retention_bytes
    FROM topics LEFT JOIN groups ON groups.topic = topics.id GROUP BY topics.id
    HAVING retention IS NOT NULL OR retention_bytes IS NOT NULL OR count(groups.id)
    """
    return [TopicRetention(*row) for row in db.execute(query, (_LARGEST_SEQ, now, retention, now))]


def _subtract_bytes(
    db: sqlite3.Connection, *, topic: int, before: int, left: int
) -> tuple[int | None, int]:
    """Subtract the sizes of up to 500 messages before `before`, youngest first, from `left`.

    Return the `seq` of the last one, None if there was none, and the bytes that are left. They are
    negative if that message is the first to exceed the bound.
    """
    query = """
    SELECT seq, length(body) FROM messages WHERE topic = ? AND seq < ? ORDER BY seq DESC LIMIT ?
    """
    last: int | None = None
    for seq, size in db.execute(query, (topic, before, _TRANSACTION_ROWS)):
        last = seq
        left -= size
        if left < 0:
            break
    return last, left


def _delete_after(
    db: sqlite3.Connection, *, topic: TopicRetention, excess: int, after: int
) -> tuple[int, int | None]:
    """Delete some of the 500 messages after `after`; return how many, and where to continue."""
    window = """
    SELECT seq, time FROM messages WHERE topic = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?
    """
    rows = db.execute(window, (topic.id, after, topic.floor, _TRANSACTION_ROWS)).fetchall()
    # The log is in the order of time, except where the clock was set: a young message ends a sweep.
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
    return count, old[-1] if len(old) == _TRANSACTION_ROWS else None
