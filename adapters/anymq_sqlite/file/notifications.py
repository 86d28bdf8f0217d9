"""Notifications of commits: of other processes to this one, and of a topic to its readers.

`PRAGMA data_version` says whether another connection has committed. The call takes microseconds,
its timer more: polling every 10 ms keeps a process at 1-2 % of a processor. So where the kernel
reports writes to the file, `CommitPoller` polls often only after such a report. Elsewhere it polls
every `longest` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import os
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

_IN_MODIFY = 0x00000002
_SHORTEST_SECONDS = 0.0005
_GROWTH = 1.5
_ACTIVE_SECONDS = 0.25
"""How long to poll often after a report: a transaction is visible only once it is on the disk."""
_IDLE_SECONDS = 0.5
"""Between two polls without a report, in case a report came too early."""
_DUE_SLACK_SECONDS = 0.001
"""Added to waits for a due time, because a coarse clock may show an earlier time then."""


class WriteNotifier:
    """An inotify watch on the write-ahead log of the database at `path`.

    `fd` becomes readable when any process writes to the log, shortly before that transaction is
    visible. Raises `OSError` if the watch cannot be set up; always, on systems other than Linux.
    """

    def __init__(self, path: Path) -> None:
        if sys.platform != "linux":
            raise OSError("inotify exists on Linux only")
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
        """Close `fd`."""
        os.close(self.fd)


class CommitPoller:
    """Polls one connection for the commits of others, and decides when.

    Some methods run on the event loop, the others in the thread that owns the connection.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._idle_interval = longest
        self._interval = _SHORTEST_SECONDS
        self._active_until = 0.0
        self._reported_at = 0.0
        self._due: float | None = None
        self._version: int | None = None
        self._notifier: WriteNotifier | None = None

    # On the event loop.

    def start(self, path: Path, report: Callable[[], None]) -> None:
        """Start or restart polling; call `report` when the thread has to poll at once."""
        self.close()
        try:
            self._notifier = WriteNotifier(path)
            asyncio.get_running_loop().add_reader(self._notifier.fd, self._written, report)
            self._idle_interval = max(self._longest, _IDLE_SECONDS)
        except OSError:
            self._idle_interval = self._longest
        self._poll_often()

    def close(self) -> None:
        """Release the inotify watch."""
        if self._notifier is not None:
            asyncio.get_running_loop().remove_reader(self._notifier.fd)
            self._notifier.close()
            self._notifier = None

    def _written(self, report: Callable[[], None]) -> None:
        if self._notifier is not None:
            self._notifier.clear()
        now = time.monotonic()
        self._poll_often()
        if now - self._reported_at > self._longest / 2:
            self._reported_at = now
            report()

    def _poll_often(self) -> None:
        now = time.monotonic()
        self._active_until = now + _ACTIVE_SECONDS
        self._interval = min(_SHORTEST_SECONDS, self._longest)
        # More writes do not postpone a poll that is due.
        self._due = min(self._due or math.inf, now + self._interval)

    # In the thread.

    def wait(self) -> float | None:
        """Return the seconds until the next poll, None before `start`."""
        return None if self._due is None else self._due - time.monotonic()

    def poll(self, db: sqlite3.Connection) -> bool:
        """Return whether other connections may have committed since the last poll."""
        self._due = math.inf  # until the end of this poll, unless the loop sets it meanwhile
        (version,) = db.execute("PRAGMA data_version").fetchone()
        changed: bool = version != self._version
        self._version = version
        if changed:
            self._poll_often()
        else:
            self._poll_less()
        return changed

    def forget_version(self) -> None:
        """Forget the last version; a new connection counts its own."""
        self._version = None

    def postpone(self) -> None:
        """Poll again in 0.5 s, because the file could not be read."""
        self._due = time.monotonic() + _IDLE_SECONDS

    def _poll_less(self) -> None:
        now = time.monotonic()
        self._due = now + self._idle_interval
        # Compared last, because the loop may call `_poll_often` at this moment.
        if now <= self._active_until:
            self._interval = min(self._interval * _GROWTH, self._longest)
            self._due = now + self._interval


class TopicEvents:
    """Wakes the waiting sources of one driver, by topic. It belongs to the event loop."""

    def __init__(self) -> None:
        self._events: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def add(self, topic: str) -> asyncio.Event:
        """Return an event that is set whenever `topic` may have something to take."""
        event = asyncio.Event()
        self._events[topic].add(event)
        return event

    def remove(self, topic: str, event: asyncio.Event) -> None:
        """Stop setting `event`."""
        events = self._events[topic]
        events.discard(event)
        if not events:
            del self._events[topic]

    async def wait(self, event: asyncio.Event, deadline: float, wait: float | None) -> bool:
        """Return when `event` is set, at the monotonic `deadline`, or after `wait` seconds.

        False if the deadline had passed before.
        """
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        if wait is not None:
            remaining = min(remaining, max(0.0, wait) + _DUE_SLACK_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), remaining)
        return True

    def wake(self, topics: Iterable[str]) -> None:
        """Set the events of `topics`."""
        for topic in topics:
            for event in self._events.get(topic, ()):
                event.set()

    def wake_all(self) -> None:
        """Set all events."""
        self.wake(self._events)
