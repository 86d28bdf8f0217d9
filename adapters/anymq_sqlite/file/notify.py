"""Being told by the kernel when the file is written (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_IN_MODIFY = 0x00000002


class Notifier:
    """An inotify watch on the write-ahead log of the database at `path`.

    `fd` becomes readable when any process writes to the log: a little before that transaction can
    be seen. Raises `OSError` where that cannot be had, which is everywhere but on Linux.
    """

    def __init__(self, path: Path) -> None:
        if sys.platform != "linux":
            raise OSError("inotify is Linux's own")
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(self.fd, os.fsencode(f"{path}-wal"), _IN_MODIFY) < 0:
            self.close()
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def clear(self) -> None:
        """Make `fd` unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 4096)

    def close(self) -> None:
        """Give `fd` back."""
        os.close(self.fd)
