"""The tables, and the version of them that a file has."""

from __future__ import annotations

import sqlite3

from anymq.driver import ConfigurationError

APPLICATION_ID = 0x616E6D71  # "anmq", in the header of the file
FIRST = """
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

SECOND = """
ALTER TABLE topics ADD COLUMN partitions INTEGER NOT NULL DEFAULT 1;
-- Of the bodies; NULL: no bound.
ALTER TABLE topics ADD COLUMN retention_bytes INTEGER;
-- NULL in a topic of one partition: all of its messages are that one.
ALTER TABLE messages ADD COLUMN part INTEGER;
CREATE INDEX messages_by_part ON messages (topic, part) WHERE part IS NOT NULL;
ALTER TABLE groups ADD COLUMN ordered INTEGER NOT NULL DEFAULT 0;
-- When a member took it last.
ALTER TABLE pending ADD COLUMN taken REAL NOT NULL DEFAULT 0;

-- What is no part of the log before it is due.
CREATE TABLE delayed (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  topic   INTEGER NOT NULL,
  due     REAL NOT NULL,
  part    INTEGER,
  uniq    TEXT,
  key     TEXT,
  body    BLOB NOT NULL,
  headers TEXT NOT NULL
);
CREATE INDEX delayed_by_due ON delayed (topic, due);
CREATE UNIQUE INDEX delayed_by_uniq ON delayed (uniq, topic) WHERE uniq IS NOT NULL;

-- How far an ordered group is in each partition: changed only by who knows the latest revision.
CREATE TABLE cells (
  grp      INTEGER NOT NULL,
  part     INTEGER NOT NULL,
  value    TEXT NOT NULL,
  cursor   INTEGER NOT NULL,     -- what `value` says: all up to here is settled
  revision INTEGER NOT NULL,
  PRIMARY KEY (grp, part)
) WITHOUT ROWID;

-- Who reads for a group, and until when that is to be believed.
CREATE TABLE members (
  grp   INTEGER NOT NULL,
  name  TEXT NOT NULL,
  host  TEXT NOT NULL,
  until REAL NOT NULL,
  PRIMARY KEY (grp, name)
) WITHOUT ROWID;
"""

THIRD = """
-- The clock of the file, see `clock`: by how much it is ahead of the time since that boot.
CREATE TABLE boot (
  id    TEXT NOT NULL,
  ahead REAL NOT NULL
);
"""

# Each makes the next version of the one before; what is there stays as it is.
_STEPS = (FIRST, SECOND, THIRD)
VERSION = len(_STEPS)


def version(db: sqlite3.Connection) -> int:
    """Return which tables the file has, 0 for none.

    Raises `ConfigurationError` if the file is not ours to use, or newer than this program.
    """
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID and found:
        if found > VERSION:
            raise ConfigurationError(
                f"the file has version {found} of anymq's tables, this anymq knows version "
                f"{VERSION}: upgrade anymq"
            )
        return found
    if application or found or db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise ConfigurationError(
            "the file is a SQLite database of another application; give anymq a file of its own"
        )
    return 0


def upgrade(db: sqlite3.Connection) -> None:
    """Make the tables, or what they lack, if no other process was first."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in _STEPS[version(db) :]:
            for statement in step.split(";\n"):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
