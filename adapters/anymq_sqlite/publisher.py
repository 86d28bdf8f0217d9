"""Publishing: rows are added to the log, or to the delayed messages. Functions of the connection.

Delayed messages of the same topic that are due are added first.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from itertools import chain

from anymq.driver import Duplicate, NotFound, Outcome, partition_of

from . import delays
from .errors import RECORD_ERRORS
from .file import log
from .messages import Entry
from .topology import Topic, find_topic

_INSERT = """
INSERT INTO messages (seq, topic, part, uniq, key, body, headers, time)
VALUES {} ON CONFLICT (uniq, topic) WHERE uniq IS NOT NULL DO NOTHING
"""
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_ONE = _INSERT.format(_VALUES)
_ROWS_PER_STATEMENT = 50  # each step of a statement releases and takes Python's lock
_INSERT_MANY = _INSERT.format(", ".join([_VALUES] * _ROWS_PER_STATEMENT))


def append(db: sqlite3.Connection, entries: Sequence[Entry]) -> list[Outcome]:
    """Store `entries` and return one outcome for each; a repeated publish keeps its position."""
    now = time.time()
    topics = {name: _find(db, name, now) for name in {entry.topic for entry in entries}}
    outcomes: list[Outcome] = []
    rows: list[tuple[object, ...]] = []
    seq = log.last_seq(db)
    for entry in entries:
        topic = topics[entry.topic]
        if not isinstance(topic, Topic):
            outcomes.append(topic)
            continue
        part = _partition(topic, entry)
        row = (topic.id, part, entry.uniq, entry.key, entry.body, entry.headers)
        if entry.due is not None and entry.due > now:
            outcomes.append(delays.hold(db, entry.due, row))
        else:
            seq += 1
            rows.append((seq, *row, now))
            outcomes.append(str(seq))
    if rows and not _insert_all(db, rows):
        stored = iter([_insert_one(db, row) for row in rows])
        outcomes = [next(stored) if type(outcome) is str else outcome for outcome in outcomes]
    return outcomes


def _find(db: sqlite3.Connection, name: str, now: float) -> Topic | NotFound:
    try:
        topic = find_topic(db, name)
    except NotFound as error:
        return error
    delays.move_due(db, topic.id, now)
    return topic


def _partition(topic: Topic, entry: Entry) -> int | None:
    """Return the partition of `entry`, None if the topic has only one."""
    if topic.partitions == 1:
        return None
    if entry.key is None:
        return entry.round_robin % topic.partitions
    return partition_of(entry.key, topic.partitions)


def _insert_all(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> bool:
    """Insert all `rows`; or none, and return False, if one is a duplicate or faulty."""
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
    """Insert `rows` and return how many of them were no duplicates."""
    many = len(rows) - len(rows) % _ROWS_PER_STATEMENT
    count = 0
    for start in range(0, many, _ROWS_PER_STATEMENT):
        values = list(chain.from_iterable(rows[start : start + _ROWS_PER_STATEMENT]))
        count += db.execute(_INSERT_MANY, values).rowcount
    return count + db.executemany(_INSERT_ONE, rows[many:]).rowcount if rows[many:] else count


def _insert_one(db: sqlite3.Connection, row: tuple[object, ...]) -> Outcome:
    seq, topic, _, uniq = row[:4]
    try:
        if not db.execute(_INSERT_ONE, row).rowcount:
            query = "SELECT seq FROM messages WHERE uniq = ? AND topic = ?"
            (seq,) = db.execute(query, (uniq, topic)).fetchone()
            return Duplicate(str(seq))
    except RECORD_ERRORS as error:
        return error
    return str(seq)
