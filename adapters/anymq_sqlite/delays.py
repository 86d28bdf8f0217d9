"""Delayed messages: rows beside the log until they are due. Functions of the connection.

There is no mover process. Each process that publishes to a topic or reads it moves the messages
that are due into the log.
"""

from __future__ import annotations

import sqlite3
import time

from anymq.driver import Duplicate, Outcome

from .connection import Database
from .errors import RECORD_ERRORS
from .file.notifications import TopicEvents
from .topology import find_topic

_HOLD = """
INSERT INTO delayed (due, topic, part, uniq, key, body, headers) SELECT ?, ?, ?, ?, ?, ?, ?
WHERE NOT EXISTS (SELECT 1 FROM messages WHERE uniq = ? AND topic = ?)
ON CONFLICT (uniq, topic) WHERE uniq IS NOT NULL DO NOTHING
"""
_DUE = "FROM delayed WHERE topic = ? AND due <= ? ORDER BY due, id LIMIT ?"
# A delayed message is confirmed as stored. So it is moved without its deduplication id, not left
# out, if one with the same id was published meanwhile.
_UNIQ = """
CASE WHEN EXISTS (SELECT 1 FROM messages WHERE uniq = delayed.uniq AND topic = delayed.topic)
THEN NULL ELSE uniq END
"""
_MOVED_AT_ONCE = 500


def hold(db: sqlite3.Connection, due: float, row: tuple[object, ...]) -> Outcome:
    """Store `row` until `due`; return its outcome, the error if the row is faulty."""
    topic, _, uniq = row[:3]
    try:
        stored = db.execute(_HOLD, (due, *row, uniq, topic)).rowcount
    except RECORD_ERRORS as error:
        return error
    return None if stored else Duplicate()


def next_due(db: sqlite3.Connection, topic: int) -> float | None:
    """Return the due time of the next delayed message of `topic`, None if there is none."""
    query = "SELECT due FROM delayed WHERE topic = ? ORDER BY due LIMIT 1"
    row = db.execute(query, (topic,)).fetchone()
    return row[0] if row else None


def move_due(db: sqlite3.Connection, topic: int, now: float) -> None:
    """Move up to 500 delayed messages of `topic` that are due at `now` into the log."""
    due = next_due(db, topic)
    if due is None or due > now:
        return
    insert = f"""
    INSERT INTO messages (topic, part, uniq, key, body, headers, time)
    SELECT topic, part, {_UNIQ}, key, body, headers, due {_DUE}
    """
    db.execute(insert, (topic, now, _MOVED_AT_ONCE))
    delete = f"DELETE FROM delayed WHERE id IN (SELECT id {_DUE})"  # noqa: S608
    db.execute(delete, (topic, now, _MOVED_AT_ONCE))


async def move_all_due(database: Database, events: TopicEvents, topic: str) -> None:
    """Move all delayed messages of `topic`, a native name, that are due; wake its readers.

    Raises `NotFound`.
    """
    while await database.read(lambda db: _has_due(db, topic)):
        await database.write(lambda db: move_due(db, find_topic(db, topic).id, time.time()))
        events.wake((topic,))


def _has_due(db: sqlite3.Connection, topic: str) -> bool:
    due = next_due(db, find_topic(db, topic).id)
    return due is not None and due <= time.time()
