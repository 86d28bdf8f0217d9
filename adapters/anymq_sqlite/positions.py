"""Start positions as `seq`s, and reading a topic from one of them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial

from anymq.driver import ConfigurationError, Received, Start, TopicSpec

from .connection import Database
from .file import log
from .messages import received
from .topology import find_topic

_PAGE_RECORDS = 500
_LARGEST_SEQ = (1 << 63) - 1


def seq_before(db: sqlite3.Connection, topic: int, start: Start) -> int:
    """Return a `seq` after which reading from `start` begins; raises `ConfigurationError`."""
    if start == "earliest":
        return 0
    if start == "latest":
        return log.last_seq(db)
    if isinstance(start, datetime):
        return _seq_before_time(db, topic, start.timestamp())
    if not (start.isascii() and start.isdecimal() and len(start) < len(str(_LARGEST_SEQ))):
        raise ConfigurationError(f"{start!r} is not a position: expected a number")
    return min(max(int(start) - 1, 0), log.last_seq(db))


def _seq_before_time(db: sqlite3.Connection, topic: int, time: float) -> int:
    """Return a `seq` after which all messages of `topic` are of `time` or later."""
    query = "SELECT seq, time FROM messages WHERE topic = ? AND seq > ? ORDER BY seq LIMIT 1"
    low, high = 0, log.last_seq(db)
    while low < high:
        middle = (low + high) // 2
        row = db.execute(query, (topic, middle)).fetchone()
        if row is None or row[1] >= time:
            high = middle
        else:
            low = row[0]
    return low


async def browse(
    database: Database, topic: TopicSpec, start: Start
) -> AsyncIterator[Sequence[Received]]:
    """Yield the messages of `topic` from `start` to the end of the log as of this call."""
    seq, end = await database.read(lambda db: _range(db, topic, start))
    while seq < end:
        page = await database.read(partial(_page, topic=topic, seq=seq, end=end))
        if not page:
            return
        yield [received(message) for message in page]
        seq = page[-1].seq


def _range(db: sqlite3.Connection, topic: TopicSpec, start: Start) -> tuple[int, int]:
    return seq_before(db, find_topic(db, topic.native).id, start), log.last_seq(db)


def _page(db: sqlite3.Connection, *, topic: TopicSpec, seq: int, end: int) -> list[log.Message]:
    found = find_topic(db, topic.native).id
    page = log.after(db, found, seq, limit=_PAGE_RECORDS, max_bytes=log.READ_BYTES)
    return [message for message in page if message.seq <= end]
