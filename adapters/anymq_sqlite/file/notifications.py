"""`Changes`: when to look for what other connections have committed.

`PRAGMA data_version` says whether there is anything. That costs microseconds, the timer for it
more: a look every 10 ms keeps a process at 1-2 % of a processor. So where the kernel reports writes
to the file, looks are close together only after such a report; elsewhere they go on at `longest`
seconds from one to the next.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from .notify import Notifier

_SHORTEST = 0.0005
_GROWTH = 1.5
# A transaction can be seen some time after its writes, not before it is on the disk.
_AWAKE = 0.25
# Between two looks while the kernel reports nothing, in case a report came too early.
_ASLEEP = 0.5


class Changes:
    """Paces the looks of one connection: some methods are for the loop, some for its thread."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._asleep = longest
        self._interval = _SHORTEST
        self._awake_until = 0.0
        self._reported = 0.0
        self._due: float | None = None
        self._version: int | None = None
        self._notifier: Notifier | None = None

    # On the loop.

    def watch(self, path: Path, report: Callable[[], None]) -> None:
        """Begin looking, or begin anew; call `report` when a look is needed at once."""
        self.close()
        try:
            self._notifier = Notifier(path)
            asyncio.get_running_loop().add_reader(self._notifier.fd, self._written, report)
            self._asleep = max(self._longest, _ASLEEP)
        except OSError:
            self._asleep = self._longest
        self._stir()

    def close(self) -> None:
        """Stop looking."""
        if self._notifier is not None:
            asyncio.get_running_loop().remove_reader(self._notifier.fd)
            self._notifier.close()
            self._notifier = None

    def _written(self, report: Callable[[], None]) -> None:
        if self._notifier is not None:
            self._notifier.clear()
        now = time.monotonic()
        self._stir()
        if now - self._reported > self._longest / 2:
            self._reported = now
            report()

    def _stir(self) -> None:
        now = time.monotonic()
        self._awake_until = now + _AWAKE
        self._interval = min(_SHORTEST, self._longest)
        # A look that is due stays so, however often the file is written meanwhile.
        self._due = min(self._due or math.inf, now + self._interval)

    # In the thread.

    def wait(self) -> float | None:
        """Return the seconds until the next look, None if none is wanted."""
        return None if self._due is None else self._due - time.monotonic()

    def look(self, db: sqlite3.Connection) -> bool:
        """Return whether others may have committed since the last look."""
        self._due = math.inf  # until the end of this look, unless the loop stirs meanwhile
        (version,) = db.execute("PRAGMA data_version").fetchone()
        changed: bool = version != self._version
        self._version = version
        if changed:
            self._stir()
        else:
            self._rest()
        return changed

    def forget(self) -> None:
        """The connection is a new one, whose versions have nothing to do with the old one's."""
        self._version = None

    def stumble(self) -> None:
        """Look again later: the file could not be read."""
        self._due = time.monotonic() + _ASLEEP

    def _rest(self) -> None:
        now = time.monotonic()
        self._due = now + self._asleep
        # Asked last: the loop may be stirring this very moment.
        if now <= self._awake_until:
            self._interval = min(self._interval * _GROWTH, self._longest)
            self._due = now + self._interval
