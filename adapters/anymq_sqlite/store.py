"""`SqliteStore`: the idempotency store in a file, which may be the broker's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Self

from anymq.driver import URL, Claim, ClaimState, Store, split_options

from .connection import Database
from .file import clock
from .options import StoreOptions, database_path

# Every `begin` or `mark` adds at most one row and deletes up to this many that no longer count.
_EXPIRED = 2
# Counters are rows of the same table, under keys that no claim has; the owner is the count.
_COUNTER = "\x01"


class SqliteStore(Store):
    """A three-state memory shared by the processes of one host. See `Database` for its batching."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    async def open(cls, url: URL) -> Self:
        _, options = split_options(url, StoreOptions)
        database = await Database.open(
            database_path(url),
            synchronous=options.synchronous,
            busy_timeout=options.busy_timeout,
        )
        return cls(database)

    async def begin(self, key: str, owner: str, lease: float) -> Claim:
        return await self.database.write(lambda db: _begin(db, key, owner, clock.now(db), lease))

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        def begin(db: sqlite3.Connection) -> dict[str, Claim]:
            now = clock.now(db)
            claims = {key: _begin(db, key, owner, now, lease) for key in keys}
            return {
                key: claim for key, claim in claims.items() if claim.state is not ClaimState.NEW
            }

        return await self.database.write(begin)

    async def may_know(self, prefix: str) -> bool:
        query = "SELECT 1 FROM claims WHERE key >= ? AND key < ? LIMIT 1"
        between = prefix, prefix + "\U0010ffff"
        return await self.database.read(
            lambda db: db.execute(query, between).fetchone() is not None
        )

    async def renew(self, key: str, owner: str, lease: float) -> None:
        update = "UPDATE claims SET until = ? WHERE key = ? AND owner = ?"
        await self.database.write(
            lambda db: db.execute(update, (clock.now(db) + lease, key, owner))
        )

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        return bool(await self._complete((key,), owner, keep))

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        await self._complete(keys, owner, keep)

    async def _complete(self, keys: Sequence[str], owner: str, keep: float) -> int:
        update = "UPDATE claims SET owner = NULL, until = ? WHERE key = ? AND owner = ?"

        def complete(db: sqlite3.Connection) -> int:
            until = clock.now(db) + keep
            return db.executemany(update, [(until, key, owner) for key in keys]).rowcount

        return await self.database.write(complete)

    async def abandon(self, key: str, owner: str) -> None:
        await self.abandon_many((key,), owner)

    async def abandon_many(self, keys: Sequence[str], owner: str) -> None:
        delete = "DELETE FROM claims WHERE key = ? AND owner = ?"
        rows = [(key, owner) for key in keys]
        await self.database.write(lambda db: db.executemany(delete, rows))

    async def mark(self, key: str, keep: float) -> int:
        return await self.database.write(lambda db: _mark(db, _COUNTER + key, keep))

    async def unmark(self, key: str) -> None:
        delete = "DELETE FROM claims WHERE key = ?"
        await self.database.write(lambda db: db.execute(delete, (_COUNTER + key,)))

    async def aclose(self) -> None:
        await self.database.aclose()


def _begin(db: sqlite3.Connection, key: str, owner: str, now: float, lease: float) -> Claim:
    row = db.execute("SELECT owner, until FROM claims WHERE key = ?", (key,)).fetchone()
    if row is not None and row[1] > now:
        holder, until = row
        if holder is None:
            return Claim(ClaimState.DONE)
        if holder != owner:
            return Claim(ClaimState.IN_PROGRESS, until - now)
    _set(db, key, owner, now, lease)
    return Claim(ClaimState.NEW)


def _mark(db: sqlite3.Connection, key: str, keep: float) -> int:
    now = clock.now(db)
    row = db.execute("SELECT owner FROM claims WHERE key = ? AND until > ?", (key, now)).fetchone()
    count = 1 if row is None else int(row[0]) + 1
    _set(db, key, str(count), now, keep)
    return count


def _set(db: sqlite3.Connection, key: str, owner: str, now: float, lease: float) -> None:
    upsert = """
    INSERT INTO claims (key, owner, until) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until
    """
    db.execute(upsert, (key, owner, now + lease))
    delete = """
    DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE until < ? ORDER BY until LIMIT ?)
    """
    db.execute(delete, (now, _EXPIRED))
