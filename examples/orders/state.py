"""The state of a service, in a SQLite file of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

SCHEMA = """
CREATE TABLE IF NOT EXISTS applied (event TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS duplicates (event TEXT PRIMARY KEY, times INTEGER) WITHOUT ROWID;
"""


class State:
    """The tables of a service, and the ids of the events applied to them; a context manager.

    Transactions take microseconds, so handlers run them on the event loop. Longer ones would belong
    in `asyncio.to_thread`.
    """

    def __init__(self, file: Path, schema: str = "") -> None:
        self._file = file
        self._schema = SCHEMA + schema
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        self._connection = sqlite3.connect(self._file, isolation_level=None, timeout=10)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")  # commits survive a crash of the process
        self.db.executescript(self._schema)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.db.close()

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._connection is not None, "enter the state first"
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit the changes made in the context, or none of them; the context must not await."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def first_time(self, event: str) -> bool:
        """Mark `event` as applied, in the transaction that applies it; return False if it was."""
        insert = "INSERT INTO applied VALUES (?) ON CONFLICT DO NOTHING"
        if self.db.execute(insert, (event,)).rowcount:
            return True
        self.count_duplicate(event)
        return False

    def count_duplicate(self, event: str) -> None:
        """Count a duplicate of `event`."""
        upsert = "INSERT INTO duplicates VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1"
        self.db.execute(upsert, (event,))

    @property
    def duplicates(self) -> int:
        """Number of filtered duplicates."""
        (times,) = self.db.execute("SELECT ifnull(sum(times), 0) FROM duplicates").fetchone()
        return int(times)
