"""Where things are kept: the cache folder, one state folder per instance and server, and locks."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BrokersError, say

MAIN = "main"
# Threads of one process take turns in silence; only another process is worth a word.
_guard = threading.Lock()
_mutexes: dict[Path, threading.Lock] = {}
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def default_instance() -> str:
    """The instance that is meant where none is named: $ANYMQ_BROKERS_INSTANCE or `main`."""
    return os.environ.get("ANYMQ_BROKERS_INSTANCE") or MAIN


def home() -> Path:
    """The folder that everything installed goes to: $ANYMQ_BROKERS_HOME or the user's cache."""
    if named := os.environ.get("ANYMQ_BROKERS_HOME"):
        return Path(named).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "anymq" / "brokers"


def states() -> Path:
    """The folder that holds every instance: $ANYMQ_BROKERS_STATE or `state` in the home."""
    if named := os.environ.get("ANYMQ_BROKERS_STATE"):
        return Path(named).absolute()
    return home() / "state"


def checked(instance: str) -> str:
    """The instance's name, which must be usable as a folder, a host label and an Erlang node."""
    if not _INSTANCE.fullmatch(instance):
        raise BrokersError(
            f"{instance!r} is no instance name: letters, digits, - and _, at most 40 characters"
        )
    return instance


@contextmanager
def locked(path: Path, what: str) -> Iterator[int]:
    """Hold the lock file: excludes other threads and other processes, and says when it waits.

    The kernel gives the lock back when its holders have ended, so nothing is ever left locked.
    The file descriptor it gives can be passed to a child, which then is a holder too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _guard:
        mutex = _mutexes.setdefault(path, threading.Lock())
    with mutex, path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{what}: waiting for another process")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def installing(what: str) -> Path:
    """The lock file of one installer."""
    return home() / "locks" / f"{what}.lock"


def write(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(text)
    fresh.replace(path)


def wipe(folder: Path) -> None:
    """Remove a folder and all below it, if it is there; refused while something is mounted there.

    What is mounted below may be anything, the machine's own devices among it.
    """
    below = f"{folder.resolve()}/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Blanks in the path of a mount are written in octal.
        point = line.split()[4].encode().decode("unicode_escape")
        if f"{point}/".startswith(below):
            raise BrokersError(f"{point} is mounted: umount it, then try again")
    if folder.exists():
        shutil.rmtree(folder)
