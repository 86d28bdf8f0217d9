"""The tables, and the version of them that a file has."""

from __future__ import annotations

import sqlite3

from anymq.errors import ConfigurationError

APPLICATION_ID = 0x616E6D71  # "anmq", in the header of the file
VERSION = 1

_TABLES = """
CREATE TABLE topics (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  name      TEXT NOT NULL UNIQUE,
  retention REAL                 -- seconds; NULL: the default of whoever sweeps
);

-- The log of all topics. `seq` is never used twice, and commits in its order.
CREATE TABLE messages (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  topic   INTEGER NOT NULL,
  uniq    TEXT,                  -- deduplicates publishes
  key     TEXT,
  body    BLOB NOT NULL,
  headers TEXT NOT NULL DEFAULT '{}',
  time    REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0)
);
CREATE INDEX messages_by_topic ON messages (topic);
CREATE UNIQUE INDEX messages_by_uniq ON messages (uniq, topic) WHERE uniq IS NOT NULL;

-- `cursor`: the last `seq` that a member has taken for the first time.
CREATE TABLE groups (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  topic  INTEGER NOT NULL,
  name   TEXT NOT NULL,
  cursor INTEGER NOT NULL,
  UNIQUE (topic, name)
);

-- What has been taken or given back, and is not done.
CREATE TABLE pending (
  grp          INTEGER NOT NULL,
  seq          INTEGER NOT NULL,
  due          REAL NOT NULL,    -- from when it may be taken: end of the lease or of the delay
  owner        TEXT,             -- the member that has it, NULL if none
  fence        INTEGER NOT NULL, -- changes whenever the row changes hands
  redeliveries INTEGER NOT NULL,
  PRIMARY KEY (grp, seq)
) WITHOUT ROWID;
CREATE INDEX pending_by_due ON pending (grp, due);

-- The keys of the idempotency store.
CREATE TABLE claims (
  key   TEXT PRIMARY KEY,
  owner TEXT,                    -- NULL: done
  until REAL NOT NULL            -- end of the lease, or of the memory of what is done
) WITHOUT ROWID;
CREATE INDEX claims_by_until ON claims (until);
"""


def exists(db: sqlite3.Connection) -> bool:
    """Whether the tables exist; raises `ConfigurationError` if the file is not ours to use."""
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID and version:
        if version > VERSION:
            raise ConfigurationError(
                f"the file has version {version} of anymq's tables, this anymq knows version "
                f"{VERSION}: upgrade anymq"
            )
        return True
    if application or version or db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise ConfigurationError(
            "the file is a SQLite database of another application; give anymq a file of its own"
        )
    return False


def create(db: sqlite3.Connection) -> None:
    """Make the tables, if no other process was first."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if not exists(db):
            for statement in _TABLES.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
