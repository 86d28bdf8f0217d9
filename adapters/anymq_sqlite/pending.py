"""Groups, and what their members have taken or given back. Functions of the connection.

A row of `pending` is a message that a group has begun and not finished. `due` is the time from
which it may be taken: while a member has it, the end of its lease. `fence` is drawn anew with every
take and 0 in between, so a settlement that shows another one is stale and changes nothing.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from anymq.driver import SourceLost, Start
from anymq.errors import NotFound

from . import log


class Group(NamedTuple):
    """A group; the name is checked with every take, in case the file was replaced."""

    id: int
    name: str


class Token(NamedTuple):
    """What settles one delivery, for as long as the row shows the same fence."""

    seq: int
    fence: int


class Taken(NamedTuple):
    """A message that a member has taken."""

    message: log.Message
    token: Token
    redeliveries: int


class Return(NamedTuple):
    """A message to give back: `shift` is added to its count of redeliveries."""

    token: Token
    delay: float
    shift: int


def join(db: sqlite3.Connection, topic: int, name: str, *, start: Start, create: bool) -> Group:
    """Return group `name` of `topic`, made at `start` if it is new; raises `NotFound`."""
    query = "SELECT id FROM groups WHERE topic = ? AND name = ?"
    row = db.execute(query, (topic, name)).fetchone()
    if row is None:
        if not create:
            raise NotFound(f"group {name!r} does not exist")
        cursor = 0 if start == "earliest" else log.last_seq(db)
        insert = "INSERT INTO groups (topic, name, cursor) VALUES (?, ?, ?)"
        return Group(db.execute(insert, (topic, name, cursor)).lastrowid or 0, name)
    return Group(row[0], name)


def _place(db: sqlite3.Connection, group: Group) -> tuple[int, int]:
    """Return the topic and the cursor of `group`."""
    query = "SELECT topic, cursor FROM groups WHERE id = ? AND name = ?"
    row: tuple[int, int] | None = db.execute(query, group).fetchone()
    if row is None:
        raise SourceLost(f"group {group.name!r} was deleted")
    return row


def next_due(db: sqlite3.Connection, group: Group) -> float | None:
    """Return from when there is something to take: 0 for now, None for not before a publish."""
    if log.has_after(db, *_place(db, group)):
        return 0.0
    query = "SELECT due FROM pending WHERE grp = ? ORDER BY due LIMIT 1"
    row = db.execute(query, (group.id,)).fetchone()
    return row[0] if row else None


def take(
    db: sqlite3.Connection, group: Group, *, owner: str, lease: float, limit: int, max_bytes: int
) -> list[Taken]:
    """Take up to `limit` messages for `owner`: those that are due, then new ones."""
    topic, cursor = _place(db, group)
    now = time.time()
    fence = random.getrandbits(62) + 1
    taken = _due(db, group, fence=fence, now=now, limit=limit, max_bytes=max_bytes)
    if taken:
        update = """
        UPDATE pending SET due = ?, owner = ?, fence = ?, redeliveries = ? WHERE grp = ? AND seq = ?
        """
        values = [(now + lease, owner, fence, t.redeliveries, group.id, t.token.seq) for t in taken]
        db.executemany(update, values)
    limit -= len(taken)
    max_bytes -= sum(len(item.message.body) for item in taken)
    if limit > 0 and max_bytes > 0:
        new = log.after(db, topic, cursor, limit=limit, max_bytes=max_bytes)
        if new:
            insert = """
            INSERT INTO pending (grp, seq, due, owner, fence, redeliveries)
            VALUES (?, ?, ?, ?, ?, 0)
            """
            due = now + lease
            db.executemany(insert, [(group.id, m.seq, due, owner, fence) for m in new])
            db.execute("UPDATE groups SET cursor = ? WHERE id = ?", (new[-1].seq, group.id))
            taken += [Taken(message, Token(message.seq, fence), 0) for message in new]
    return taken


def _due(
    db: sqlite3.Connection, group: Group, *, fence: int, now: float, limit: int, max_bytes: int
) -> list[Taken]:
    """Return what is due, longest first, with its count raised."""
    query = f"""
    SELECT pending.seq, redeliveries + 1, {log.COLUMNS}
    FROM pending LEFT JOIN messages ON messages.seq = pending.seq
    WHERE grp = ? AND due <= ? ORDER BY due, pending.seq LIMIT ?
    """  # noqa: S608
    taken: list[Taken] = []
    deleted: list[tuple[int, int]] = []
    for seq, redeliveries, found, *columns in db.execute(query, (group.id, now, limit)):
        if found is None:
            deleted.append((group.id, seq))
            continue
        message = log.Message(seq, *columns)
        taken.append(Taken(message, Token(seq, fence), redeliveries))
        max_bytes -= len(message.body)
        if max_bytes <= 0:
            break
    if deleted:  # by another program: nothing is left to deliver
        db.executemany("DELETE FROM pending WHERE grp = ? AND seq = ?", deleted)
    return taken


def settle(db: sqlite3.Connection, group: Group, tokens: Iterable[Token]) -> int:
    """Forget what `tokens` stand for: it is done. Return how many were still good."""
    delete = "DELETE FROM pending WHERE grp = ? AND seq = ? AND fence = ?"
    return db.executemany(delete, [(group.id, seq, fence) for seq, fence in tokens]).rowcount


def bury(db: sqlite3.Connection, group: Group, letters: Iterable[tuple[Token, log.Entry]]) -> None:
    """Settle each, and store its letter. A stale token leaves no letter: another member decides."""
    good = [letter for token, letter in letters if settle(db, group, (token,))]
    for outcome in log.append(db, good):
        if isinstance(outcome, BaseException):
            raise outcome


def give_back(db: sqlite3.Connection, group: Group, returns: Sequence[Return]) -> None:
    """Let others take these: each after its delay; without one at once, and before all others."""
    now = time.time()
    update = """
    UPDATE pending SET due = ?, owner = NULL, fence = 0, redeliveries = redeliveries + ?
    WHERE grp = ? AND seq = ? AND fence = ?
    """
    values = [
        (now + delay if delay > 0 else 0.0, shift, group.id, seq, fence)
        for (seq, fence), delay, shift in returns
    ]
    db.executemany(update, values)


def extend(db: sqlite3.Connection, group: Group, tokens: Iterable[Token], *, lease: float) -> None:
    """Begin the lease of each anew."""
    due = time.time() + lease
    update = "UPDATE pending SET due = ? WHERE grp = ? AND seq = ? AND fence = ?"
    db.executemany(update, [(due, group.id, seq, fence) for seq, fence in tokens])


def leave(db: sqlite3.Connection, group: Group, owner: str) -> None:
    """Give back all that `owner` has."""
    update = "UPDATE pending SET due = 0, owner = NULL, fence = 0 WHERE grp = ? AND owner = ?"
    db.execute(update, (group.id, owner))
