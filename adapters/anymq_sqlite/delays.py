"""What is not due yet: rows beside the log, let in when they are. Functions of the connection."""

from __future__ import annotations

import sqlite3

from anymq.driver import Duplicate, Outcome

from .errors import RECORD_ERRORS

_HOLD = """
INSERT INTO delayed (due, topic, part, uniq, key, body, headers) SELECT ?, ?, ?, ?, ?, ?, ?
WHERE NOT EXISTS (SELECT 1 FROM messages WHERE uniq = ? AND topic = ?)
ON CONFLICT (uniq, topic) WHERE uniq IS NOT NULL DO NOTHING
"""
_DUE = "FROM delayed WHERE topic = ? AND due <= ? ORDER BY due, id LIMIT ?"
# Its receipt said that it is stored: one with the same id that was published meanwhile is no reason
# to leave it out.
_UNIQ = """
CASE WHEN EXISTS (SELECT 1 FROM messages WHERE uniq = delayed.uniq AND topic = delayed.topic)
THEN NULL ELSE uniq END
"""
# Let in by one transaction at most.
_RIPE = 500


def hold(db: sqlite3.Connection, due: float, row: tuple[object, ...]) -> Outcome:
    """Store `row` until `due`, unless it is there already; return the error if it is at fault."""
    topic, _, uniq = row[:3]
    try:
        stored = db.execute(_HOLD, (due, *row, uniq, topic)).rowcount
    except RECORD_ERRORS as error:
        return error
    return None if stored else Duplicate()


def next_ripe(db: sqlite3.Connection, topic: int) -> float | None:
    """Return when the next delayed message of `topic` is due, None if there is none."""
    query = "SELECT due FROM delayed WHERE topic = ? ORDER BY due LIMIT 1"
    row = db.execute(query, (topic,)).fetchone()
    return row[0] if row else None


def ripen(db: sqlite3.Connection, topic: int, now: float) -> None:
    """Let in the delayed messages of `topic` that are due at `now`, or as many as fit for once."""
    due = next_ripe(db, topic)
    if due is None or due > now:
        return
    insert = f"""
    INSERT INTO messages (topic, part, uniq, key, body, headers, time)
    SELECT topic, part, {_UNIQ}, key, body, headers, due {_DUE}
    """
    db.execute(insert, (topic, now, _RIPE))
    delete = f"DELETE FROM delayed WHERE id IN (SELECT id {_DUE})"  # noqa: S608
    db.execute(delete, (topic, now, _RIPE))
