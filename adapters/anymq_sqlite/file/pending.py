"""Pending deliveries of unordered groups, taken and settled. Functions of the connection.

A row of `pending` is a message that its group has taken and not settled. `due` is the time from
which it may be taken, by the file's clock; while a member owns it, this is when its lease expires.
`fence` is a new random number with every take, and 0 while the row has no owner. So a settlement
with another fence is stale and changes nothing. `redeliveries` counts the earlier deliveries whose
handlers are known to have started; while the row has no owner, the last one is left out. A row that
is due and still has an owner was left by a member that died, before or after its handler started.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from anymq.driver import SourceLost

from .. import delays
from ..topology import Group
from . import log
from .schema import clock_skew, file_time


class Token(NamedTuple):
    """Settles one delivery, as long as its row has the same fence."""

    seq: int
    fence: int


class Taken(NamedTuple):
    """A message that a member has taken.

    `redeliveries` counts the earlier deliveries whose handlers are known to have started. `expired`
    says that there was one more, whose lease expired.
    """

    message: log.Message
    token: Token
    redeliveries: int
    expired: bool


class Return(NamedTuple):
    """A message to return to its group; its next delivery shows `redeliveries`."""

    token: Token
    delay: float
    redeliveries: int


class Start(NamedTuple):
    """A handler that starts; if it is not settled, the next delivery shows `redeliveries`."""

    token: Token
    redeliveries: int


def find_cursor(db: sqlite3.Connection, group: Group) -> tuple[int, int]:
    """Return the topic and the cursor of `group`; raises `SourceLost` if it was deleted."""
    query = "SELECT topic, cursor FROM groups WHERE id = ? AND name = ?"
    row: tuple[int, int] | None = db.execute(query, group).fetchone()
    if row is None:
        raise SourceLost(f"group {group.name!r} was deleted")
    return row


def next_wait(db: sqlite3.Connection, group: Group) -> float | None:
    """Return the seconds until there may be something to take, None if only a publish adds it."""
    topic, cursor = find_cursor(db, group)
    if log.has_after(db, topic, cursor):
        return 0.0
    delayed, due = delays.next_due(db, topic), _next_due(db, group)
    waits = [] if delayed is None else [delayed - time.time()]
    if due is not None:
        waits.append(due - file_time(db))
    return max(0.0, min(waits)) if waits else None


def _next_due(db: sqlite3.Connection, group: Group) -> float | None:
    """Return when the next lease expires or delay ends, by the file's clock."""
    if skew := clock_skew(file_time(db)):
        query = "SELECT min(iif(owner IS NULL, due - ?, due)) FROM pending WHERE grp = ?"
        due: float | None = db.execute(query, (skew, group.id)).fetchone()[0]
        return due
    query = "SELECT due FROM pending WHERE grp = ? ORDER BY due LIMIT 1"
    row = db.execute(query, (group.id,)).fetchone()
    return row[0] if row else None


def take(
    db: sqlite3.Connection, group: Group, *, owner: str, lease: float, limit: int, max_bytes: int
) -> list[Taken]:
    """Take up to `limit` messages for `owner`: first those that are due, then new ones."""
    topic, cursor = find_cursor(db, group)
    now = file_time(db)
    delays.move_due(db, topic, time.time())
    fence = random.getrandbits(62) + 1
    taken = _due(db, group, fence=fence, now=now, limit=limit, max_bytes=max_bytes)
    if taken:
        update = """
        UPDATE pending SET due = ?, taken = ?, owner = ?, fence = ?, redeliveries = ?
        WHERE grp = ? AND seq = ?
        """
        rows = [
            (now + lease, now, owner, fence, item.redeliveries, group.id, item.token.seq)
            for item in taken
        ]
        db.executemany(update, rows)
    limit -= len(taken)
    max_bytes -= sum(len(item.message.body) for item in taken)
    if limit > 0 and max_bytes > 0:
        new = log.after(db, topic, cursor, limit=limit, max_bytes=max_bytes)
        if new:
            last = new[-1].seq
            _insert_new(db, group, (now + lease, now, owner, fence, topic, cursor, last))
            taken += [Taken(message, Token(message.seq, fence), 0, False) for message in new]
    return taken


def _insert_new(
    db: sqlite3.Connection, group: Group, values: tuple[float, float, str, int, int, int, int]
) -> None:
    """Insert the new messages of `take`, and move the cursor to the last one."""
    insert = """
    INSERT INTO pending (grp, seq, due, taken, owner, fence, redeliveries)
    SELECT ?, seq, ?, ?, ?, ?, 0 FROM messages WHERE topic = ? AND seq > ? AND seq <= ?
    """
    db.execute(insert, (group.id, *values))
    db.execute("UPDATE groups SET cursor = ? WHERE id = ?", (values[-1], group.id))


def _due(
    db: sqlite3.Connection, group: Group, *, fence: int, now: float, limit: int, max_bytes: int
) -> list[Taken]:
    """Return the messages that are due, in the order of their due times.

    Leases expire by the file's clock. A delay may also end by the wall clock, in case that was
    wrong when the file's clock was set.
    """
    query = f"""
    SELECT pending.seq, redeliveries + (owner IS NULL), owner, {log.COLUMNS}
    FROM pending LEFT JOIN messages ON messages.seq = pending.seq
    WHERE grp = ? AND due <= ? AND (owner IS NULL OR due <= ?)
    ORDER BY due, pending.seq LIMIT ?
    """  # noqa: S608
    values = (group.id, now + clock_skew(now), now, limit)
    taken: list[Taken] = []
    deleted: list[tuple[int, int]] = []
    for seq, redeliveries, owner, found, *columns in db.execute(query, values):
        if found is None:
            deleted.append((group.id, seq))
            continue
        message = log.Message(seq, *columns)
        taken.append(Taken(message, Token(seq, fence), redeliveries, owner is not None))
        max_bytes -= len(message.body)
        if max_bytes <= 0:
            break
    if deleted:  # by another program
        db.executemany("DELETE FROM pending WHERE grp = ? AND seq = ?", deleted)
    return taken


def settle(db: sqlite3.Connection, group: Group, tokens: Iterable[Token]) -> int:
    """Delete the rows of `tokens`, which are settled. Return how many were not stale."""
    delete = "DELETE FROM pending WHERE grp = ? AND seq BETWEEN ? AND ? AND fence = ?"
    rows = [(group.id, *run) for run in _runs(tokens)]
    return db.executemany(delete, rows).rowcount


def _runs(tokens: Iterable[Token]) -> Iterator[tuple[int, int, int]]:
    """Yield first, last and fence of each run of consecutive `seq`s with one fence."""
    first = last = fence = -1
    for seq, shown in sorted(set(tokens)):
        if seq == last + 1 and shown == fence:
            last = seq
            continue
        if last >= 0:
            yield first, last, fence
        first, last, fence = seq, seq, shown
    if last >= 0:
        yield first, last, fence


def return_to_group(db: sqlite3.Connection, group: Group, returns: Sequence[Return]) -> None:
    """Let any member take these messages again, each after its delay.

    Those without a delay may be taken at once, before all other messages.
    """
    now = file_time(db)
    update = """
    UPDATE pending SET due = ?, owner = NULL, fence = 0, redeliveries = ?
    WHERE grp = ? AND seq = ? AND fence = ?
    """
    values = [
        (now + delay if delay > 0 else 0.0, redeliveries - 1, group.id, seq, fence)
        for (seq, fence), delay, redeliveries in returns
    ]
    db.executemany(update, values)


def begin(db: sqlite3.Connection, group: Group, starts: Sequence[Start]) -> None:
    """Count the started handlers of these messages."""
    update = "UPDATE pending SET redeliveries = ? WHERE grp = ? AND seq = ? AND fence = ?"
    values = [(number, group.id, seq, fence) for (seq, fence), number in starts]
    db.executemany(update, values)


def extend(db: sqlite3.Connection, group: Group, tokens: Iterable[Token], *, lease: float) -> None:
    """Renew the lease of each."""
    due = file_time(db) + lease
    update = "UPDATE pending SET due = ? WHERE grp = ? AND seq = ? AND fence = ?"
    db.executemany(update, [(due, group.id, seq, fence) for seq, fence in tokens])


def return_all(db: sqlite3.Connection, group: Group, owner: str) -> None:
    """Return all messages of `owner` to the group, uncounted."""
    update = """
    UPDATE pending SET due = 0, owner = NULL, fence = 0, redeliveries = redeliveries - 1
    WHERE grp = ? AND owner = ?
    """
    db.execute(update, (group.id, owner))
