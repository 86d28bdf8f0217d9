"""`SqliteStore`: the idempotency store in a file, which may be the broker's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Self

from anymq.driver import URL, Claim, ClaimState, Store, split_options

from .connection import Database
from .file.schema import file_time
from .options import StoreOptions, database_path

_DELETED_PER_CALL = 2
"""Expired rows that each `begin` or `mark` deletes. It adds one row at most."""
_COUNTER_PREFIX = "\x01"
"""The keys of counters begin with it, and no claim's key does. The owner field is the count."""


class SqliteStore(Store):
    """Claims shared by the processes of one host. Concurrent calls share a transaction."""

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
        return await self.database.write(lambda db: _begin(db, key, owner, file_time(db), lease))

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        def begin(db: sqlite3.Connection) -> dict[str, Claim]:
            now = file_time(db)
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
            lambda db: db.execute(update, (file_time(db) + lease, key, owner))
        )

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        return bool(await self._complete((key,), owner, keep))

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        await self._complete(keys, owner, keep)

    async def _complete(self, keys: Sequence[str], owner: str, keep: float) -> int:
        update = "UPDATE claims SET owner = NULL, until = ? WHERE key = ? AND owner = ?"

        def complete(db: sqlite3.Connection) -> int:
            until = file_time(db) + keep
            return db.executemany(update, [(until, key, owner) for key in keys]).rowcount

        return await self.database.write(complete)

    async def abandon(self, key: str, owner: str) -> None:
        await self.abandon_many((key,), owner)

    async def abandon_many(self, keys: Sequence[str], owner: str) -> None:
        delete = "DELETE FROM claims WHERE key = ? AND owner = ?"
        rows = [(key, owner) for key in keys]
        await self.database.write(lambda db: db.executemany(delete, rows))

    async def mark(self, key: str, keep: float) -> int:
        return await self.database.write(lambda db: _mark(db, _COUNTER_PREFIX + key, keep))

    async def unmark(self, key: str) -> None:
        delete = "DELETE FROM claims WHERE key = ?"
        await self.database.write(lambda db: db.execute(delete, (_COUNTER_PREFIX + key,)))

    async def aclose(self) -> None:
        await self.database.aclose()


def _begin(db: sqlite3.Connection, key: str, owner: str, now: float, lease: float) -> Claim:
    row = db.execute("SELECT owner, until FROM claims WHERE key = ?", (key,)).fetchone()
    if row is not None and row[1] > now:
        claimed_by, until = row
        if claimed_by is None:
            return Claim(ClaimState.DONE)
        if claimed_by != owner:
            return Claim(ClaimState.IN_PROGRESS, until - now)
    _set(db, key, owner, now, lease)
    return Claim(ClaimState.NEW)


def _mark(db: sqlite3.Connection, key: str, keep: float) -> int:
    now = file_time(db)
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
    db.execute(delete, (now, _DELETED_PER_CALL))
