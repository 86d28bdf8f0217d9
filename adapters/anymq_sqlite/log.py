"""The log: topics, and messages in the order of their commits. Functions of the connection."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from anymq.driver import Outcome
from anymq.errors import NotFound

# Errors of one record's contents; any other error is the database's.
_RECORD_ERRORS = (sqlite3.DataError, sqlite3.IntegrityError, OverflowError, UnicodeError)

_INSERT = """
INSERT INTO messages (seq, topic, uniq, key, body, headers, time) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (uniq, topic) WHERE uniq IS NOT NULL DO NOTHING
"""


class Entry(NamedTuple):
    """A message to append."""

    topic: str
    uniq: str
    key: str | None
    body: bytes
    headers: str


COLUMNS = """
messages.seq, CAST(key AS TEXT), CAST(body AS BLOB), CAST(headers AS TEXT), CAST(time AS REAL)
"""
"""The columns of a `Message`. The casts are for rows of other programs: SQLite stores any type."""


class Message(NamedTuple):
    """A message as it is stored. Written by another program, `headers` need not be JSON."""

    seq: int
    key: str | None
    body: bytes
    headers: str
    time: float


def declare(db: sqlite3.Connection, name: str, retention: float | None) -> None:
    """Make topic `name` exist; a `retention` replaces the one it has."""
    db.execute("INSERT INTO topics (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    if retention is not None:
        db.execute("UPDATE topics SET retention = ? WHERE name = ?", (retention, name))


def topic_id(db: sqlite3.Connection, name: str) -> int:
    """Return the id of topic `name`; raises `NotFound`."""
    row = db.execute("SELECT id FROM topics WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"topic {name!r} does not exist")
    found: int = row[0]
    return found


def last_seq(db: sqlite3.Connection) -> int:
    """Return the highest `seq` ever given, 0 if none."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    return row[0] if row else 0


def append(db: sqlite3.Connection, entries: Sequence[Entry]) -> list[Outcome]:
    """Store `entries` and return one outcome for each; a repeated one keeps its first place."""
    now = time.time()
    topics: dict[str, int | NotFound] = {
        name: _find(db, name) for name in {e.topic for e in entries}
    }
    outcomes: list[Outcome] = []
    rows: list[tuple[object, ...]] = []
    seq = last_seq(db)
    for topic, uniq, key, body, headers in entries:
        found = topics[topic]
        if isinstance(found, int):
            seq += 1
            rows.append((seq, found, uniq, key, body, headers, now))
            outcomes.append(str(seq))
        else:
            outcomes.append(found)
    if rows and not _insert_all(db, rows):
        fates = iter([_insert_one(db, row) for row in rows])
        outcomes = [next(fates) if isinstance(outcome, str) else outcome for outcome in outcomes]
    return outcomes


def _find(db: sqlite3.Connection, name: str) -> int | NotFound:
    try:
        return topic_id(db, name)
    except NotFound as error:
        return error


def _insert_all(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> bool:
    """Insert all `rows`, or none and return False: one was there already, or is at fault."""
    db.execute("SAVEPOINT append")
    try:
        complete = db.executemany(_INSERT, rows).rowcount == len(rows)
    except _RECORD_ERRORS:
        complete = False
    if not complete:
        db.execute("ROLLBACK TO append")
    db.execute("RELEASE append")
    return complete


def _insert_one(db: sqlite3.Connection, row: tuple[object, ...]) -> Outcome:
    seq, topic, uniq = row[:3]
    try:
        if not db.execute(_INSERT, row).rowcount:
            query = "SELECT seq FROM messages WHERE uniq = ? AND topic = ?"
            (seq,) = db.execute(query, (uniq, topic)).fetchone()
    except _RECORD_ERRORS as error:
        return error
    return str(seq)


def has_after(db: sqlite3.Connection, topic: int, seq: int) -> bool:
    """Whether `topic` has messages after `seq`."""
    query = "SELECT 1 FROM messages WHERE topic = ? AND seq > ? LIMIT 1"
    return db.execute(query, (topic, seq)).fetchone() is not None


def after(
    db: sqlite3.Connection, topic: int, seq: int, *, limit: int, max_bytes: int
) -> list[Message]:
    """Return the messages of `topic` after `seq`: the first, then more within both bounds."""
    query = f"SELECT {COLUMNS} FROM messages WHERE topic = ? AND seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
    rows = db.execute(query, (topic, seq, limit))
    return list(bounded(map(Message._make, rows), max_bytes))


def bounded(messages: Iterator[Message], max_bytes: int) -> Iterator[Message]:
    """Yield `messages` until their bodies exceed `max_bytes`, but at least one."""
    total = 0
    for message in messages:
        yield message
        total += len(message.body)
        if total >= max_bytes:
            return
