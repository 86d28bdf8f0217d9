"""The clock of a file, which is never set: leases go by it.

The wall clock may be set while a handler runs, and the lease with it. So the file notes by how much
the wall clock was ahead of the time since boot when the file was first opened after the boot:
that, and the time since boot, is the same for all processes of the host, and does not jump.
Functions of the connection.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Where the system has no such id, boots that differ by less are taken for one.
_APART = 600.0
# Differences between the clocks that come from reading them one after the other.
_NOISE = 1.0
# What members and handlers held when the host went down. Keys that begin with char(1) are counters.
_OVER = (
    "UPDATE pending SET due = 0 WHERE owner IS NOT NULL",
    "UPDATE claims SET until = 0 WHERE owner IS NOT NULL AND substr(key, 1, 1) <> char(1)",
    "DELETE FROM members",
)


def since_boot() -> float:
    """Return the seconds since this host booted; where that is known, with those it slept."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def boot() -> str:
    """Return what tells this boot of the host from others."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return f"{time.time() - since_boot():.0f}"


def now(db: sqlite3.Connection) -> float:
    """Return the file's time: about the seconds since the epoch."""
    (ahead,) = db.execute("SELECT ahead FROM boot").fetchone()
    return since_boot() + float(ahead)


def skew(now: float) -> float:
    """Return by how much the wall clock has been set ahead of `now`, the file's time."""
    ahead = time.time() - now
    return ahead if ahead > _NOISE else 0.0


def wind(db: sqlite3.Connection) -> None:
    """Set the file's clock if this host has booted since; all leases are over then."""
    if _goes(db, boot()):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _goes(db, boot()):
            if db.execute("DELETE FROM boot").rowcount:
                for statement in _OVER:
                    db.execute(statement)
            db.execute("INSERT INTO boot VALUES (?, ?)", (boot(), time.time() - since_boot()))
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _goes(db: sqlite3.Connection, id: str) -> bool:
    known = db.execute("SELECT id FROM boot").fetchone()
    if known is None:
        return False
    if id == known[0]:
        return True
    try:
        return abs(float(id) - float(known[0])) < _APART
    except ValueError:
        return False
