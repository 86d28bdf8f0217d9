"""The log: topics, and messages in the order of their commits. Functions of the connection.

Before anything is added to a topic, or taken from it, its delayed messages that are due are let in:
so the log is in the order of time, but for jumps of the clock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from anymq.driver import (
    ConfigurationError,
    Duplicate,
    NotFound,
    Outcome,
    Start,
    TopicSpec,
    partition_of,
)

from .. import delays
from ..errors import RECORD_ERRORS

_INSERT = """
INSERT INTO messages (seq, topic, part, uniq, key, body, headers, time)
VALUES {} ON CONFLICT (uniq, topic) WHERE uniq IS NOT NULL DO NOTHING
"""
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?)"
_ONE = _INSERT.format(_VALUES)
# Python's lock changes hands with every step of a statement: one step for many rows.
_ROWS = 50
_MANY = _INSERT.format(", ".join([_VALUES] * _ROWS))
_LARGEST = (1 << 63) - 1


class Topic(NamedTuple):
    """A topic that exists."""

    id: int
    partitions: int

    def part(self, entry: Entry) -> int | None:
        """Return the partition of `entry`, None if there is only one."""
        if self.partitions == 1:
            return None
        if entry.key is None:
            return entry.turn % self.partitions
        return partition_of(entry.key, self.partitions)


class Entry(NamedTuple):
    """A message to append from the time `due` on; without a key, `turn` says to which partition."""

    topic: str
    uniq: str
    key: str | None
    body: bytes
    headers: str
    due: float | None
    turn: int


COLUMNS = """
messages.seq, CAST(key AS TEXT), CAST(body AS BLOB), CAST(headers AS TEXT), CAST(time AS REAL),
ifnull(CAST(part AS INTEGER), 0)
"""
"""The columns of a `Message`. The casts are for rows of other programs: SQLite stores any type."""


class Message(NamedTuple):
    """A message as it is stored. Written by another program, `headers` need not be JSON."""

    seq: int
    key: str | None
    body: bytes
    headers: str
    time: float
    part: int


def declare(db: sqlite3.Connection, topic: TopicSpec) -> None:
    """Make `topic` exist; a retention replaces the one it has.

    Raises `ConfigurationError` if it exists with another number of partitions.
    """
    insert = "INSERT INTO topics (name, partitions) VALUES (?, ?) ON CONFLICT DO NOTHING"
    db.execute(insert, (topic.native, topic.partitions or 1))
    count = find(db, topic.native).partitions
    if topic.partitions not in (None, count):
        raise ConfigurationError(
            f"the topic {topic.name} has {count} partitions, not {topic.partitions}"
        )
    update = """
    UPDATE topics SET retention = ifnull(?, retention), retention_bytes = ifnull(?, retention_bytes)
    WHERE name = ?
    """
    if (topic.retention, topic.retention_bytes) != (None, None):
        db.execute(update, (topic.retention, topic.retention_bytes, topic.native))


def find(db: sqlite3.Connection, name: str) -> Topic:
    """Return the topic called `name`; raises `NotFound`."""
    row = db.execute("SELECT id, partitions FROM topics WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"topic {name!r} does not exist")
    return Topic(*row)


def last_seq(db: sqlite3.Connection) -> int:
    """Return the highest `seq` ever given, 0 if none."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    return row[0] if row else 0


def append(db: sqlite3.Connection, entries: Sequence[Entry]) -> list[Outcome]:
    """Store `entries` and return one outcome for each; a repeated one keeps its first place."""
    now = time.time()
    topics = {name: _find(db, name, now) for name in {entry.topic for entry in entries}}
    outcomes: list[Outcome] = []
    rows: list[tuple[object, ...]] = []
    seq = last_seq(db)
    for entry in entries:
        topic = topics[entry.topic]
        if not isinstance(topic, Topic):
            outcomes.append(topic)
            continue
        row = (topic.id, topic.part(entry), entry.uniq, entry.key, entry.body, entry.headers)
        if entry.due is not None and entry.due > now:
            outcomes.append(delays.hold(db, entry.due, row))
        else:
            seq += 1
            rows.append((seq, *row, now))
            outcomes.append(str(seq))
    if rows and not _insert_all(db, rows):
        fates = iter([_insert_one(db, row) for row in rows])
        outcomes = [next(fates) if type(outcome) is str else outcome for outcome in outcomes]
    return outcomes


def _find(db: sqlite3.Connection, name: str, now: float) -> Topic | NotFound:
    try:
        topic = find(db, name)
    except NotFound as error:
        return error
    delays.ripen(db, topic.id, now)
    return topic


def _insert_all(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> bool:
    """Insert all `rows`, or none and return False: one was there already, or is at fault."""
    db.execute("SAVEPOINT append")
    try:
        complete = _insert(db, rows) == len(rows)
    except RECORD_ERRORS:
        complete = False
    if not complete:
        db.execute("ROLLBACK TO append")
    db.execute("RELEASE append")
    return complete


def _insert(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert `rows` and return how many were not there."""
    many = len(rows) - len(rows) % _ROWS
    count = 0
    for at in range(0, many, _ROWS):
        values = list(chain.from_iterable(rows[at : at + _ROWS]))
        count += db.execute(_MANY, values).rowcount
    return count + db.executemany(_ONE, rows[many:]).rowcount if rows[many:] else count


def _insert_one(db: sqlite3.Connection, row: tuple[object, ...]) -> Outcome:
    seq, topic, _, uniq = row[:4]
    try:
        if not db.execute(_ONE, row).rowcount:
            query = "SELECT seq FROM messages WHERE uniq = ? AND topic = ?"
            (seq,) = db.execute(query, (uniq, topic)).fetchone()
            return Duplicate(str(seq))
    except RECORD_ERRORS as error:
        return error
    return str(seq)


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
    """Return the messages of `topic` after `seq`: the first, then more within both bounds.

    With `part`, only those of that partition; for a topic that has more than one.
    """
    only = "" if part is None else "AND part = ?"
    query = f"""
    SELECT {COLUMNS} FROM messages WHERE topic = ? AND seq > ? {only} ORDER BY seq LIMIT ?
    """  # noqa: S608
    values = (topic, seq, limit) if part is None else (topic, seq, part, limit)
    rows = db.execute(query, values)
    return list(bounded(map(Message._make, rows), max_bytes))


def behind(db: sqlite3.Connection, topic: int, start: Start) -> int:
    """Return the `seq` behind which reading begins for `start`; raises `ConfigurationError`."""
    if start == "earliest":
        return 0
    if start == "latest":
        return last_seq(db)
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigurationError(f"start {start!r} has no time zone")
        return _before(db, topic, start.timestamp())
    if not (start.isascii() and start.isdecimal() and len(start) < len(str(_LARGEST))):
        raise ConfigurationError(f"{start!r} is not a position: expected a number")
    return min(max(int(start) - 1, 0), last_seq(db))


def _before(db: sqlite3.Connection, topic: int, moment: float) -> int:
    """Return a `seq` that only messages of `topic` follow that are of `moment` or younger."""
    query = "SELECT seq, time FROM messages WHERE topic = ? AND seq > ? ORDER BY seq LIMIT 1"
    low, high = 0, last_seq(db)
    while low < high:
        middle = (low + high) // 2
        row = db.execute(query, (topic, middle)).fetchone()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0]
    return low


def bounded(messages: Iterator[Message], max_bytes: int) -> Iterator[Message]:
    """Yield `messages` until their bodies exceed `max_bytes`, but at least one."""
    total = 0
    for message in messages:
        yield message
        total += len(message.body)
        if total >= max_bytes:
            return
