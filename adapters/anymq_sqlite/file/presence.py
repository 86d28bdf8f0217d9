"""Who reads for a group: rows that are believed for a while. Functions of the connection."""

from __future__ import annotations

import socket
import sqlite3
import time
from typing import TYPE_CHECKING, NamedTuple

from anymq.driver import StateError

from . import clock

if TYPE_CHECKING:
    from ..connection import Database
    from .pending import Group

_BELIEVED = 15.0
_RENEWED = 5.0
_HOST = socket.gethostname()


class Member(NamedTuple):
    """A member that has been heard of lately."""

    name: str
    host: str


class Membership:
    """Keeps the row of one member fresh, from the join until it leaves or dies."""

    def __init__(self, database: Database, group: Group, name: str) -> None:
        self._database = database
        self._group = group
        self._name = name
        self._due = time.monotonic() + _RENEWED

    def renew(self) -> None:
        """Write the row again, if it is time to; called every few seconds. Waits for nothing."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _RENEWED
            self._database.post(lambda db: enter(db, self._group, self._name), writes=True)


def enter(db: sqlite3.Connection, group: Group, name: str) -> None:
    """Let `name` count as a live member of `group`, if that exists, for a while from now on."""
    now = clock.now(db)
    insert = """
    INSERT OR REPLACE INTO members (grp, name, host, until)
    SELECT id, ?, ?, ? FROM groups WHERE id = ? AND name = ?
    """
    db.execute(insert, (name, _HOST, now + _BELIEVED, *group))
    db.execute("DELETE FROM members WHERE grp = ? AND until < ?", (group.id, now))


def leave(db: sqlite3.Connection, group: Group, name: str) -> None:
    """Let `name` be no member any more."""
    db.execute("DELETE FROM members WHERE grp = ? AND name = ?", (group.id, name))


def live(db: sqlite3.Connection, group: Group) -> list[Member]:
    """Return the live members of `group`."""
    query = "SELECT name, host FROM members WHERE grp = ? AND until >= ? ORDER BY name"
    return [Member(*row) for row in db.execute(query, (group.id, clock.now(db)))]


def check_idle(db: sqlite3.Connection, group: Group) -> None:
    """Raise `StateError` if `group` has live members."""
    if found := live(db, group):
        raise StateError(f"the group {group.name} has {len(found)} live members")
