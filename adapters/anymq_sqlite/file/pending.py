"""Groups, and what their members have taken or given back. Functions of the connection.

A row of `pending` is a message that a group has begun and not finished. `due` is the time from
which it may be taken, by the file's `clock`: while a member has it, the end of its lease. `fence`
is drawn anew with every take and 0 in between, so a settlement that shows another one is stale and
changes nothing. `redeliveries` counts the earlier deliveries whose handlers are known to have
begun, without the last one while nobody has it. A row that has an owner when it is due was left by
a member that has vanished, begun or not.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from anymq.driver import ConfigurationError, NotFound, SourceLost, SubscribeSpec

from .. import delays
from . import clock, log


class Group(NamedTuple):
    """A group; the name is checked with every take, in case the file was replaced."""

    id: int
    name: str


class Token(NamedTuple):
    """What settles one delivery, for as long as the row shows the same fence."""

    seq: int
    fence: int


class Taken(NamedTuple):
    """A message that a member has taken.

    `redeliveries` counts the deliveries of which a handler is known to have begun; `vanished` says
    that there was one more, to a member that has vanished.
    """

    message: log.Message
    token: Token
    redeliveries: int
    vanished: bool


class Return(NamedTuple):
    """A message to give back, and how many earlier deliveries it is to show."""

    token: Token
    delay: float
    redeliveries: int


class Start(NamedTuple):
    """A handler begins; if that is all that is heard, so many earlier deliveries are to show."""

    token: Token
    redeliveries: int


def find(db: sqlite3.Connection, topic: int, name: str) -> tuple[Group, bool] | None:
    """Return group `name` of `topic` and whether it is ordered, None if there is none."""
    query = "SELECT id, ordered FROM groups WHERE topic = ? AND name = ?"
    row = db.execute(query, (topic, name)).fetchone()
    return (Group(row[0], name), bool(row[1])) if row else None


def join(db: sqlite3.Connection, topic: int, spec: SubscribeSpec) -> Group:
    """Return the group of `spec`, made at its start if it is new.

    Raises `NotFound` if it shall not be made, and `ConfigurationError` if it is ordered where
    `spec` is not, or the other way round.
    """
    name = spec.native_group
    found = find(db, topic, name)
    if found is not None:
        group, ordered = found
        if ordered is not spec.ordered:
            raise ConfigurationError(f"the group {name} is {'' if ordered else 'not '}ordered")
        return group
    if not spec.create:
        raise NotFound(f"group {name!r} does not exist")
    cursor = log.behind(db, topic, spec.start)
    insert = "INSERT INTO groups (topic, name, cursor, ordered) VALUES (?, ?, ?, ?)"
    row = (topic, name, cursor, spec.ordered)
    return Group(db.execute(insert, row).lastrowid or 0, name)


def place(db: sqlite3.Connection, group: Group) -> tuple[int, int]:
    """Return the topic and the cursor of `group`; raises `SourceLost` if it was deleted."""
    query = "SELECT topic, cursor FROM groups WHERE id = ? AND name = ?"
    row: tuple[int, int] | None = db.execute(query, group).fetchone()
    if row is None:
        raise SourceLost(f"group {group.name!r} was deleted")
    return row


def next_wait(db: sqlite3.Connection, group: Group) -> float | None:
    """Return how long there is nothing to take: 0 for not at all, None for until a publish."""
    topic, cursor = place(db, group)
    if log.has_after(db, topic, cursor):
        return 0.0
    ripe, due = delays.next_ripe(db, topic), _next_due(db, group)
    waits = [] if ripe is None else [ripe - time.time()]
    if due is not None:
        waits.append(due - clock.now(db))
    return max(0.0, min(waits)) if waits else None


def _next_due(db: sqlite3.Connection, group: Group) -> float | None:
    """Return when a lease or a wait ends next, by the file's clock."""
    if skew := clock.skew(clock.now(db)):
        query = "SELECT min(iif(owner IS NULL, due - ?, due)) FROM pending WHERE grp = ?"
        due: float | None = db.execute(query, (skew, group.id)).fetchone()[0]
        return due
    query = "SELECT due FROM pending WHERE grp = ? ORDER BY due LIMIT 1"
    row = db.execute(query, (group.id,)).fetchone()
    return row[0] if row else None


def take(
    db: sqlite3.Connection, group: Group, *, owner: str, lease: float, limit: int, max_bytes: int
) -> list[Taken]:
    """Take up to `limit` messages for `owner`: those that are due, then new ones."""
    topic, cursor = place(db, group)
    now = clock.now(db)
    delays.ripen(db, topic, time.time())
    fence = random.getrandbits(62) + 1
    taken = _due(db, group, fence=fence, now=now, limit=limit, max_bytes=max_bytes)
    if taken:
        update = """
        UPDATE pending SET due = ?, taken = ?, owner = ?, fence = ?, redeliveries = ?
        WHERE grp = ? AND seq = ?
        """
        again = [
            (now + lease, now, owner, fence, item.redeliveries, group.id, item.token.seq)
            for item in taken
        ]
        db.executemany(update, again)
    limit -= len(taken)
    max_bytes -= sum(len(item.message.body) for item in taken)
    if limit > 0 and max_bytes > 0:
        new = log.after(db, topic, cursor, limit=limit, max_bytes=max_bytes)
        if new:
            insert = """
            INSERT INTO pending (grp, seq, due, taken, owner, fence, redeliveries)
            SELECT ?, seq, ?, ?, ?, ?, 0 FROM messages WHERE topic = ? AND seq > ? AND seq <= ?
            """
            last = new[-1].seq
            values = (group.id, now + lease, now, owner, fence, topic, cursor, last)
            db.execute(insert, values)
            db.execute("UPDATE groups SET cursor = ? WHERE id = ?", (last, group.id))
            taken += [Taken(message, Token(message.seq, fence), 0, False) for message in new]
    return taken


def _due(
    db: sqlite3.Connection, group: Group, *, fence: int, now: float, limit: int, max_bytes: int
) -> list[Taken]:
    """Return what is due, longest first.

    A lease ends by the file's clock. A wait may end by the wall clock as well, which may have been
    wrong when the file's was set.
    """
    query = f"""
    SELECT pending.seq, redeliveries + (owner IS NULL), owner, {log.COLUMNS}
    FROM pending LEFT JOIN messages ON messages.seq = pending.seq
    WHERE grp = ? AND due <= ? AND (owner IS NULL OR due <= ?)
    ORDER BY due, pending.seq LIMIT ?
    """  # noqa: S608
    values = (group.id, now + clock.skew(now), now, limit)
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
    if deleted:  # by another program: nothing is left to deliver
        db.executemany("DELETE FROM pending WHERE grp = ? AND seq = ?", deleted)
    return taken


def settle(db: sqlite3.Connection, group: Group, tokens: Iterable[Token]) -> int:
    """Forget what `tokens` stand for: it is done. Return how many were still good."""
    delete = "DELETE FROM pending WHERE grp = ? AND seq BETWEEN ? AND ? AND fence = ?"
    rows = [(group.id, *run) for run in _runs(tokens)]
    return db.executemany(delete, rows).rowcount


def _runs(tokens: Iterable[Token]) -> Iterator[tuple[int, int, int]]:
    """Yield first, last and fence of each run of consecutive `seq`s that have one fence."""
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


def bury(db: sqlite3.Connection, group: Group, letters: Iterable[tuple[Token, log.Entry]]) -> None:
    """Settle each, and store its letter. A stale token leaves no letter: another member decides."""
    good = [letter for token, letter in letters if settle(db, group, (token,))]
    for outcome in log.append(db, good):
        if isinstance(outcome, BaseException):
            raise outcome


def give_back(db: sqlite3.Connection, group: Group, returns: Sequence[Return]) -> None:
    """Let others take these: each after its delay; without one at once, and before all others."""
    now = clock.now(db)
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
    """Note that the handlers of these begin."""
    update = "UPDATE pending SET redeliveries = ? WHERE grp = ? AND seq = ? AND fence = ?"
    values = [(number, group.id, seq, fence) for (seq, fence), number in starts]
    db.executemany(update, values)


def extend(db: sqlite3.Connection, group: Group, tokens: Iterable[Token], *, lease: float) -> None:
    """Begin the lease of each anew."""
    due = clock.now(db) + lease
    update = "UPDATE pending SET due = ? WHERE grp = ? AND seq = ? AND fence = ?"
    db.executemany(update, [(due, group.id, seq, fence) for seq, fence in tokens])


def leave(db: sqlite3.Connection, group: Group, owner: str) -> None:
    """Give back all that `owner` has."""
    update = """
    UPDATE pending SET due = 0, owner = NULL, fence = 0, redeliveries = redeliveries - 1
    WHERE grp = ? AND owner = ?
    """
    db.execute(update, (group.id, owner))
