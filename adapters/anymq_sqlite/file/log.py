"""Messages in the order of their commits, as readers find them. Functions of the connection.

Delayed messages that are due are added before a topic is written or read. So the log is in the
order of time, except where the wall clock was set.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import starmap
from typing import NamedTuple

READ_BYTES = 4 * 1024 * 1024
"""The most bytes of bodies in one read, except for a single larger message."""

COLUMNS = """
messages.seq, CAST(key AS TEXT), CAST(body AS BLOB), CAST(headers AS TEXT), CAST(time AS REAL),
ifnull(CAST(part AS INTEGER), 0)
"""
"""The columns of a `Message`. The casts are for rows of other programs: SQLite stores any type."""


class Message(NamedTuple):
    """A stored message. If another program wrote it, `headers` need not be JSON."""

    seq: int
    key: str | None
    body: bytes
    headers: str
    time: float
    part: int


def last_seq(db: sqlite3.Connection) -> int:
    """Return the highest `seq` ever given, 0 if none."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    return row[0] if row else 0


def has_after(db: sqlite3.Connection, topic: int, seq: int) -> bool:
    """Whether `topic` has messages after `seq`."""
    query = "SELECT 1 FROM messages WHERE topic = ? AND seq > ? LIMIT 1"
    return db.execute(query, (topic, seq)).fetchone() is not None


def after(
    db: sqlite3.Connection,
    topic: int,
    seq: int,
    *,
    limit: int,
    max_bytes: int,
    part: int | None = None,
) -> list[Message]:
    """Return the messages of `topic` after `seq`: the first one, and more within both bounds.

    `part` selects one partition of a topic that has more than one.
    """
    only = "" if part is None else "AND part = ?"
    query = f"""
    SELECT {COLUMNS} FROM messages WHERE topic = ? AND seq > ? {only} ORDER BY seq LIMIT ?
    """  # noqa: S608
    values = (topic, seq, limit) if part is None else (topic, seq, part, limit)
    rows = db.execute(query, values)
    return list(_bounded(starmap(Message, rows), max_bytes))


def _bounded(messages: Iterator[Message], max_bytes: int) -> Iterator[Message]:
    """Yield `messages` until their bodies reach `max_bytes`, but at least one."""
    total = 0
    for message in messages:
        yield message
        total += len(message.body)
        if total >= max_bytes:
            return
