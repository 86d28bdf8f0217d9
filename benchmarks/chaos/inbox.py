"""A transactional inbox: an idempotency store that commits completion and effect together."""

from __future__ import annotations

import sqlite3
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Self

from anymq import URL
from anymq_sqlite import SqliteStore

effect: ContextVar[str | None] = ContextVar("chaos-effect", default=None)
"""The effect requested by the handler in this context, committed with its completion."""

_TABLE = "CREATE TABLE IF NOT EXISTS effects (id TEXT NOT NULL)"


class Inbox(SqliteStore):
    """Commits the handler's effect in the transaction that marks its message as completed.

    The table `effects` has no constraint, so an effect applied twice appears twice.
    """

    @classmethod
    async def at(cls, path: Path) -> Self:
        """Open the store in the file at `path`, created if missing."""
        store = await cls.open(URL.parse(f"sqlite:///{path}"))
        await store.database.write(lambda db: db.execute(_TABLE))
        return store

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        """Mark `key` as completed and apply its effect, unless `owner` has lost the claim."""
        what = effect.get()

        def both(db: sqlite3.Connection) -> bool:
            update = "UPDATE claims SET owner = NULL, until = ? WHERE key = ? AND owner = ?"
            if not db.execute(update, (time.time() + keep, key, owner)).rowcount:
                return False
            db.execute("INSERT INTO effects (id) VALUES (?)", (what,))
            return True

        return await self.database.write(both)


def committed(path: Path) -> list[str]:
    """Return the ids of all effects in the file at `path`; none if it does not exist."""
    if not path.exists():
        return []
    with sqlite3.connect(path) as db:
        return [row[0] for row in db.execute("SELECT id FROM effects")]
