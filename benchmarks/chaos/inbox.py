"""An idempotency store whose note and the handler's effect are one transaction."""

from __future__ import annotations

import sqlite3
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Self

from anymq import URL
from anymq_sqlite import SqliteStore

effect: ContextVar[str | None] = ContextVar("chaos-effect", default=None)
"""What the handler that runs in this context wants to have happened once it is done."""

_TABLE = "CREATE TABLE IF NOT EXISTS effects (id TEXT NOT NULL)"


class Inbox(SqliteStore):
    """Does the handler's effect when it notes that the message is done: both, or neither.

    `effects` has no constraint: what is applied twice is there twice.
    """

    @classmethod
    async def at(cls, path: Path) -> Self:
        """Open the store in this file, made where it is not there."""
        store = await cls.open(URL.parse(f"sqlite:///{path}"))
        await store.database.write(lambda db: db.execute(_TABLE))
        return store

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        """Mark `key` done and do its effect, unless `owner` no longer holds it."""
        what = effect.get()

        def both(db: sqlite3.Connection) -> bool:
            update = "UPDATE claims SET owner = NULL, until = ? WHERE key = ? AND owner = ?"
            if not db.execute(update, (time.time() + keep, key, owner)).rowcount:
                return False
            db.execute("INSERT INTO effects (id) VALUES (?)", (what,))
            return True

        return await self.database.write(both)


def committed(path: Path) -> list[str]:
    """Return the ids of all effects in this file; none if there is no such file."""
    if not path.exists():
        return []
    with sqlite3.connect(path) as db:
        return [row[0] for row in db.execute("SELECT id FROM effects")]
