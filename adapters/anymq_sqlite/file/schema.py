"""The tables of a file, their version, and the clock that one of them holds.

Leases expire by the file's clock, because the wall clock may be set while a handler runs. When the
file is first opened after a boot, the table `boot` records by how much the wall clock is ahead of
the time since boot. The sum of the two is the file's time: it is the same for all processes of the
host, and setting the wall clock does not change it.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from anymq.driver import ConfigurationError

APPLICATION_ID = 0x616E6D71  # "anmq", in the header of the file
FIRST = """
CREATE TABLE topics (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  name      TEXT NOT NULL UNIQUE,
  retention REAL                 -- seconds; NULL: the option of each driver
);

-- The log of all topics. `seq` is never used twice, and is in the order of commits.
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

-- `cursor`: the highest `seq` that a member has taken.
CREATE TABLE groups (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  topic  INTEGER NOT NULL,
  name   TEXT NOT NULL,
  cursor INTEGER NOT NULL,
  UNIQUE (topic, name)
);

-- Messages that are in flight, or wait for a retry.
CREATE TABLE pending (
  grp          INTEGER NOT NULL,
  seq          INTEGER NOT NULL,
  due          REAL NOT NULL,    -- end of the lease or of the delay
  owner        TEXT,             -- the member that has taken it; NULL while it waits
  fence        INTEGER NOT NULL, -- another one with every take; 0 while it waits
  redeliveries INTEGER NOT NULL,
  PRIMARY KEY (grp, seq)
) WITHOUT ROWID;
CREATE INDEX pending_by_due ON pending (grp, due);

-- The keys of the idempotency store.
CREATE TABLE claims (
  key   TEXT PRIMARY KEY,
  owner TEXT,                    -- NULL: completed
  until REAL NOT NULL            -- end of the lease, or of the retention of completed keys
) WITHOUT ROWID;
CREATE INDEX claims_by_until ON claims (until);
"""

SECOND = """
ALTER TABLE topics ADD COLUMN partitions INTEGER NOT NULL DEFAULT 1;
-- Bytes of bodies; NULL: no bound.
ALTER TABLE topics ADD COLUMN retention_bytes INTEGER;
-- NULL in a topic of one partition.
ALTER TABLE messages ADD COLUMN part INTEGER;
CREATE INDEX messages_by_part ON messages (topic, part) WHERE part IS NOT NULL;
ALTER TABLE groups ADD COLUMN ordered INTEGER NOT NULL DEFAULT 0;
-- When a member took it last.
ALTER TABLE pending ADD COLUMN taken REAL NOT NULL DEFAULT 0;

-- Delayed messages: not part of the log before they are due.
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

-- Lease records of ordered groups: changed by compare-and-set of the revision.
CREATE TABLE cells (
  grp      INTEGER NOT NULL,
  part     INTEGER NOT NULL,
  value    TEXT NOT NULL,
  cursor   INTEGER NOT NULL,     -- from `value`: all messages up to here are settled
  revision INTEGER NOT NULL,
  PRIMARY KEY (grp, part)
) WITHOUT ROWID;

-- Members of groups: live until then.
CREATE TABLE members (
  grp   INTEGER NOT NULL,
  name  TEXT NOT NULL,
  host  TEXT NOT NULL,
  until REAL NOT NULL,
  PRIMARY KEY (grp, name)
) WITHOUT ROWID;
"""

THIRD = """
-- The clock of the file: how far it is ahead of the time since that boot.
CREATE TABLE boot (
  id    TEXT NOT NULL,
  ahead REAL NOT NULL
);
"""

_STEPS = (FIRST, SECOND, THIRD)
"""Each upgrades the version before it, and keeps all rows."""
VERSION = len(_STEPS)

_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)
_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_SAME_BOOT_SECONDS = 600.0
"""Boot times that differ by less belong to one boot, where the system has no boot id."""
_IGNORED_SKEW_SECONDS = 1.0
"""The clocks are read one after the other, so a smaller difference means nothing."""
_EXPIRE_ALL = (  # keys that begin with char(1) are counters, not claims
    "UPDATE pending SET due = 0 WHERE owner IS NOT NULL",
    "UPDATE claims SET until = 0 WHERE owner IS NOT NULL AND substr(key, 1, 1) <> char(1)",
    "DELETE FROM members",
)


def version(db: sqlite3.Connection) -> int:
    """Return the version of the file's tables, 0 for an empty file.

    Raises `ConfigurationError` for a file of another application, or of a newer version.
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
    """Create the tables, or add what they lack, unless another process did so first."""
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


def seconds_since_boot() -> float:
    """Return the seconds since this host booted; with those it slept, where the system has them."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


def boot_id() -> str:
    """Return the id of the current boot of this host; its time, where the system has no id."""
    try:
        return _BOOT_ID_FILE.read_text().strip()
    except OSError:
        return f"{time.time() - seconds_since_boot():.0f}"


def file_time(db: sqlite3.Connection) -> float:
    """Return the time of the file's clock: about the seconds since the epoch."""
    (ahead,) = db.execute("SELECT ahead FROM boot").fetchone()
    return seconds_since_boot() + float(ahead)


def clock_skew(now: float) -> float:
    """Return the seconds by which the wall clock is ahead of `now`, the file's time."""
    ahead = time.time() - now
    return ahead if ahead > _IGNORED_SKEW_SECONDS else 0.0


def set_clock(db: sqlite3.Connection) -> None:
    """Set the file's clock if this host has booted since; all leases expire then."""
    if _is_set(db, boot_id()):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _is_set(db, boot_id()):
            if db.execute("DELETE FROM boot").rowcount:
                for statement in _EXPIRE_ALL:
                    db.execute(statement)
            db.execute(
                "INSERT INTO boot VALUES (?, ?)", (boot_id(), time.time() - seconds_since_boot())
            )
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _is_set(db: sqlite3.Connection, id: str) -> bool:
    known = db.execute("SELECT id FROM boot").fetchone()
    if known is None:
        return False
    if id == known[0]:
        return True
    try:
        return abs(float(id) - float(known[0])) < _SAME_BOOT_SECONDS
    except ValueError:
        return False
