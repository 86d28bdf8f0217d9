"""Members of groups: rows that count as live for 15 s. Functions of the connection."""

from __future__ import annotations

import socket
import sqlite3
import time
from typing import NamedTuple

from anymq.driver import StateError

from ..connection import Database
from ..topology import Group
from .schema import file_time

_LIVE_SECONDS = 15.0
_RENEW_SECONDS = 5.0
_HOST = socket.gethostname()


class Member(NamedTuple):
    """A live member of a group."""

    name: str
    host: str


class Membership:
    """Heartbeat of one member: it keeps the member's row up to date."""

    def __init__(self, database: Database, group: Group, name: str) -> None:
        self._database = database
        self._group = group
        self._name = name
        self._due = time.monotonic() + _RENEW_SECONDS

    def renew(self) -> None:
        """Queue an update of the row if the last one is 5 s old; return at once."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _RENEW_SECONDS
            self._database.post(lambda db: enter(db, self._group, self._name), writes=True)


def enter(db: sqlite3.Connection, group: Group, name: str) -> None:
    """Count `name` as a live member of `group` for 15 s. Do nothing if the group is gone."""
    now = file_time(db)
    insert = """
    INSERT OR REPLACE INTO members (grp, name, host, until)
    SELECT id, ?, ?, ? FROM groups WHERE id = ? AND name = ?
    """
    db.execute(insert, (name, _HOST, now + _LIVE_SECONDS, *group))
    db.execute("DELETE FROM members WHERE grp = ? AND until < ?", (group.id, now))


def leave(db: sqlite3.Connection, group: Group, name: str) -> None:
    """Delete the row of the member."""
    db.execute("DELETE FROM members WHERE grp = ? AND name = ?", (group.id, name))


def live(db: sqlite3.Connection, group: Group) -> list[Member]:
    """Return the live members of `group`."""
    query = "SELECT name, host FROM members WHERE grp = ? AND until >= ? ORDER BY name"
    return [Member(*row) for row in db.execute(query, (group.id, file_time(db)))]


def check_idle(db: sqlite3.Connection, group: Group) -> None:
    """Raise `StateError` if `group` has live members."""
    if found := live(db, group):
        raise StateError(f"the group {group.name} has {len(found)} live members")
