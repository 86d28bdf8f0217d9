"""`WriteLock`: one writer at a time, its checkpoint included."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# Seconds for which somebody else may be the next.
_PATIENCE = 0.1


class WriteLock:
    """An advisory lock on a file beside the database, held for each transaction that writes.

    SQLite excludes writers from each other by itself, but not from the checkpoint that follows a
    commit, and up to 3.51.2 (the backports 3.44.6 and 3.50.7 apart) a commit at the wrong instant
    of another process's checkpoint can corrupt the database: https://sqlite.org/wal.html#walresetbug.
    The kernel frees the lock of a process that dies. Windows has no such lock.

    Whoever finds it taken is the next to get it: nobody else may even try meanwhile, so processes
    that write all the time take turns. That goes by another file, for as long as it is short: a
    process that was stopped while it waited must not keep the others waiting.
    """

    def __init__(self, path: Path) -> None:
        self._fd = _open(f"{path}-lock")
        self._turn = _open(f"{path}-turn")
        self._is_next = False
        self._waiting_since: float | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `BlockingIOError` at once."""
        if not self._is_next:
            self._become_next()
        _lock(self._fd)
        self.give_up()

    def _become_next(self) -> None:
        try:
            _lock(self._turn)
        except BlockingIOError:
            now = time.monotonic()
            self._waiting_since = self._waiting_since or now
            if now - self._waiting_since < _PATIENCE:
                raise
        else:
            self._is_next = True

    def give_up(self) -> None:
        """Wait for the lock no more."""
        self._waiting_since = None
        if self._is_next:
            self._is_next = False
            _unlock(self._turn)

    def release(self) -> None:
        """Give it back."""
        _unlock(self._fd)

    def close(self) -> None:
        """Close the files."""
        os.close(self._fd)
        os.close(self._turn)


def _open(path: str) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)


def _lock(fd: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(fd: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_UN)
