"""`Connection`: the open file, reopened after a failure; and `WriteLock`: one writer at a time."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

from anymq.driver import ConfigurationError

from ..errors import primary_code
from . import schema

if sys.platform != "win32":
    import fcntl

OLDEST_SQLITE = (3, 35, 0)
TURN_SECONDS = 0.1
"""How long another process may hold the next turn to write without using it."""
_CACHE_KIB = 16 * 1024
_JOURNAL_BYTES = 64 * 1024 * 1024
_REOPEN_AFTER = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNFORCED = {"FULL": "NORMAL", "EXTRA": "NORMAL"}

# Closing any descriptor of a file releases all locks that this process holds on it (POSIX). So no
# thread may create the file while another one opens it.
_creating = threading.Lock()


class Connection:
    """The file at `path`, for one thread. `generation` counts how often it was opened.

    No method waits for a lock: a busy file is an error at once.
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

        If the file was deleted or replaced, open the one that is there now, as after the loss of a
        broker's disk. SQLite itself would continue with the deleted file and lose all messages.
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
        """Force the next commits to disk if `forced`, as far as the option `synchronous` allows.

        A commit that is not forced survives the end of this process. It is on the disk once a later
        commit has been forced, because the write-ahead log is in the order of commits.
        """
        if forced is not self._forced and self._open is not None:
            mode = self._synchronous if forced else _UNFORCED.get(self._synchronous)
            if mode is not None:
                self._open.execute(f"PRAGMA synchronous = {mode}")
            self._forced = forced

    def peek(self) -> sqlite3.Connection | None:
        """Return the connection if it is open. Its file may have been deleted."""
        return self._open

    def lock(self) -> WriteLock:
        """Return the lock of the file."""
        if self._lock is None:
            self._lock = WriteLock(self.path)
        return self._lock

    def cancel_lock(self) -> None:
        """Give up a reserved turn to write, if there is one."""
        if self._lock is not None:
            self._lock.cancel()

    def check(self, error: BaseException) -> None:
        """Close the connection if `error` says that it is unusable."""
        if isinstance(error, sqlite3.Error) and primary_code(error) in _REOPEN_AFTER:
            self.drop()

    def drop(self) -> None:
        """Close the file; the next `get` opens it again."""
        connection, self._open = self._open, None
        lock, self._lock = self._lock, None
        if connection is not None:
            connection.close()
        if lock is not None:
            lock.close()


class WriteLock:
    """An advisory lock on a file beside the database, held for each transaction that writes.

    SQLite itself excludes writers from each other, but not from the checkpoint that follows a
    commit. Up to 3.51.2 (except the backports 3.44.6 and 3.50.7), a commit at the wrong instant of
    another process's checkpoint can corrupt the database: https://sqlite.org/wal.html#walresetbug.
    The kernel releases the lock of a process that dies. Windows has no such lock.

    A process that finds the lock taken reserves the next turn, by a lock on a second file. Other
    processes do not try the first lock meanwhile, so processes that write all the time take turns.
    They respect a reservation for 0.1 s only, because the process that has it may be stopped.
    """

    def __init__(self, path: Path) -> None:
        self._fd = _open(f"{path}-lock")
        self._turn_fd = _open(f"{path}-turn")
        self._has_turn = False
        self._waiting_since: float | None = None

    def acquire(self) -> None:
        """Acquire the lock, or raise `BlockingIOError` at once."""
        if not self._has_turn:
            self._reserve_turn()
        _lock(self._fd)
        self.cancel()

    def _reserve_turn(self) -> None:
        try:
            _lock(self._turn_fd)
        except BlockingIOError:
            now = time.monotonic()
            self._waiting_since = self._waiting_since or now
            if now - self._waiting_since < TURN_SECONDS:
                raise
        else:
            self._has_turn = True

    def cancel(self) -> None:
        """Give up a reserved turn, if there is one."""
        self._waiting_since = None
        if self._has_turn:
            self._has_turn = False
            _unlock(self._turn_fd)

    def release(self) -> None:
        """Release the lock."""
        _unlock(self._fd)

    def close(self) -> None:
        """Close the files."""
        os.close(self._fd)
        os.close(self._turn_fd)


def check_version() -> None:
    """Raise `ConfigurationError` if this Python's SQLite is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigurationError(
            f"this Python has SQLite {sqlite3.sqlite_version}; anymq needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer"
        )


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open `path`. If it does not exist, create it, readable by its owner only."""
    with _creating:
        if not path.exists():
            # SQLite creates the files beside it with the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        db.text_factory = _decode
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
        schema.set_clock(db)
    except BaseException:
        db.close()
        raise
    return db


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at `path`, None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _open(path: str) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)


def _lock(fd: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(fd: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_UN)
