"""`WriteLock`: one writer at a time, its checkpoint included."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class WriteLock:
    """An advisory lock on a file beside the database, held for each transaction that writes.

    SQLite excludes writers from each other by itself, but not from the checkpoint that follows a
    commit, and up to 3.51.2 (the backports 3.44.6 and 3.50.7 apart) a commit at the wrong instant
    of another process's checkpoint can corrupt the database: https://sqlite.org/wal.html#walresetbug.
    The kernel frees the lock of a process that dies. Windows has no such lock.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(f"{path}-lock", os.O_CREAT | os.O_RDWR, 0o600)

    def acquire(self) -> None:
        """Take the lock, or raise `BlockingIOError` at once."""
        if sys.platform != "win32":
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Give it back."""
        if sys.platform != "win32":
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
