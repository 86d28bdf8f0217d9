"""Opening the file, and knowing it again."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

from anymq.errors import ConfigurationError

from . import schema

OLDEST_SQLITE = (3, 35, 0)
_CACHE_KIB = 16 * 1024
_JOURNAL_BYTES = 64 * 1024 * 1024

# Closing any descriptor of a file drops all locks that this process holds on it (POSIX), so no
# thread may be making the file while another one opens it.
_creating = threading.Lock()

Identity = tuple[int, int]


def check_version() -> None:
    """Raise `ConfigurationError` if this Python's SQLite is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigurationError(
            f"this Python has SQLite {sqlite3.sqlite_version}; anymq needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer"
        )


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Return a connection to `path`, which is made, for its owner only, if it does not exist.

    It never waits for a lock: a busy file is SQLITE_BUSY at once.
    """
    with _creating:
        if not path.exists():
            # SQLite gives the files it makes beside it the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        db.text_factory = _text
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise ConfigurationError(
                f"{path}: no write-ahead log here (journal mode {mode}); use a local file system"
            )
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        schema.prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def identity(path: Path) -> Identity | None:
    """Return what tells the file at `path` from another at the same path, None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
