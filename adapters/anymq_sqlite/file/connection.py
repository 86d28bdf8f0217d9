"""`Connection`: the open file, made anew when it broke."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

from anymq.driver import ConfigurationError

from ..errors import primary_code
from . import clock, schema
from .lock import WriteLock

OLDEST_SQLITE = (3, 35, 0)
_CACHE_KIB = 16 * 1024
_JOURNAL_BYTES = 64 * 1024 * 1024
# Errors after which the connection is made anew.
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_UNFORCED = {"FULL": "NORMAL", "EXTRA": "NORMAL"}

# Closing any descriptor of a file drops all locks that this process holds on it (POSIX), so no
# thread may be making the file while another one opens it.
_creating = threading.Lock()


class Connection:
    """The file at `path`, for one thread. `generation` counts how often it was opened.

    Nothing here waits for a lock: a busy file is an error at once.
    """

    def __init__(self, path: Path, synchronous: str) -> None:
        self.path = path
        self.generation = 0
        self._synchronous = synchronous
        self._forced = True
        self._open: sqlite3.Connection | None = None
        self._lock: WriteLock | None = None
        self._identity: tuple[int, int] | None = None

    def get(self) -> sqlite3.Connection:
        """Return the open connection.

        A file that was deleted or replaced is opened anew, as a broker that lost its disk: SQLite
        would go on with one that has no name any more, and nothing would be kept.
        """
        if self._open is not None and _identity(self.path) != self._identity:
            self.drop()
        if self._open is None:
            self._open = _connect(self.path, self._synchronous)
            self._identity = _identity(self.path)
            self._forced = True
            self.generation += 1
        return self._open

    def force(self, forced: bool) -> None:
        """Let the next commits be forced to disk, as far as the file's user wants that, or not.

        What is not forced survives the end of this process all the same, and is on the disk with
        the next commit that is: the log is in the order of commits.
        """
        if forced is not self._forced and self._open is not None:
            mode = self._synchronous if forced else _UNFORCED.get(self._synchronous)
            if mode is not None:
                self._open.execute(f"PRAGMA synchronous = {mode}")
            self._forced = forced

    def peek(self) -> sqlite3.Connection | None:
        """Return the connection if it is open; it may be to a file that was deleted."""
        return self._open

    def lock(self) -> WriteLock:
        """Return the lock that goes with the file."""
        if self._lock is None:
            self._lock = WriteLock(self.path)
        return self._lock

    def give_up(self) -> None:
        """Wait for the lock no more."""
        if self._lock is not None:
            self._lock.give_up()

    def check(self, error: BaseException) -> None:
        """Drop the connection if `error` says that it is of no more use."""
        if isinstance(error, sqlite3.Error) and primary_code(error) in _BROKEN:
            self.drop()

    def drop(self) -> None:
        """Close the file; the next `get` opens it again."""
        connection, self._open = self._open, None
        lock, self._lock = self._lock, None
        if connection is not None:
            connection.close()
        if lock is not None:
            lock.close()


def check_version() -> None:
    """Raise `ConfigurationError` if this Python's SQLite is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigurationError(
            f"this Python has SQLite {sqlite3.sqlite_version}; anymq needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer"
        )


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open `path`; if it does not exist, make it, for its owner only."""
    with _creating:
        if not path.exists():
            # SQLite gives the files it makes beside it the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        db.text_factory = _text
        found = schema.version(db)  # before anything is changed
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise ConfigurationError(
                f"{path}: no write-ahead log here (journal mode {mode}); use a local file system"
            )
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        if found < schema.VERSION:
            schema.upgrade(db)
        clock.wind(db)
    except BaseException:
        db.close()
        raise
    return db


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at `path` from another at the same path, None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
