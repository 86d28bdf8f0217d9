"""Files of the servers: the cache folder, a state folder per instance and server, and locks."""

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
# Excludes threads of this process, whose waits are not reported.
_guard = threading.Lock()
_mutexes: dict[Path, threading.Lock] = {}
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def default_instance() -> str:
    """Return the default instance: $ANYMQ_BROKERS_INSTANCE or `main`."""
    return os.environ.get("ANYMQ_BROKERS_INSTANCE") or MAIN


def home() -> Path:
    """Return the folder of installed programs: $ANYMQ_BROKERS_HOME or the user's cache."""
    if named := os.environ.get("ANYMQ_BROKERS_HOME"):
        return Path(named).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "anymq" / "brokers"


def states() -> Path:
    """Return the folder of all instances: $ANYMQ_BROKERS_STATE or `state` in `home`."""
    if named := os.environ.get("ANYMQ_BROKERS_STATE"):
        return Path(named).absolute()
    return home() / "state"


def checked(instance: str) -> str:
    """Return the instance name if it is valid as a folder, host label and Erlang node."""
    if not _INSTANCE.fullmatch(instance):
        raise BrokersError(
            f"{instance!r} is no instance name: letters, digits, - and _, at most 40 characters"
        )
    return instance


@contextmanager
def locked(path: Path, what: str) -> Iterator[int]:
    """Hold the lock file at `path`, which excludes other threads and processes.

    Waiting for another process is reported. The kernel releases the lock when its holders have
    ended. Yields the file descriptor; a child that inherits it holds the lock as well.
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
    """Return the lock file of one installer."""
    return home() / "locks" / f"{what}.lock"


def write(path: Path, text: str) -> None:
    """Replace a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(text)
    fresh.replace(path)


def wipe(folder: Path) -> None:
    """Remove a folder and its contents, if it exists.

    Raise if a file system is mounted below it, because that may contain the machine's devices.
    """
    below = f"{folder.resolve()}/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Spaces in mount paths are octal escapes.
        point = line.split()[4].encode().decode("unicode_escape")
        if f"{point}/".startswith(below):
            raise BrokersError(f"{point} is mounted: umount it, then try again")
    if folder.exists():
        shutil.rmtree(folder)
