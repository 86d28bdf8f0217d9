"""Detached processes, identified so that a reused pid is never mistaken for them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# The environment variable with the mark of a server, present in all its processes.
MARK = "ANYMQ_BROKERS_SERVER"

# Children started here, which this module reaps; other children are not waited for.
_children: set[int] = set()


@dataclass(frozen=True)
class Process:
    """A process identified by pid, start time and boot, so that a reused pid is another one."""

    pid: int
    started: int
    boot: str

    def running(self) -> bool:
        """Return whether this process exists and has not ended."""
        if self.boot != boot():
            return False
        entry = _entry(self.pid)
        return entry is not None and entry.started == self.started and not entry.ended

    def stopped(self) -> bool:
        """Return whether it is stopped by SIGSTOP."""
        entry = _entry(self.pid)
        return entry is not None and entry.started == self.started and entry.state in "Tt"

    def age(self) -> float:
        """Return the seconds since its start."""
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - self.started / os.sysconf("SC_CLK_TCK"))

    def words(self) -> list[str]:
        """Return its current command line."""
        try:
            raw = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return []
        return raw.decode(errors="replace").split("\0")

    def send(self, number: signal.Signals) -> bool:
        """Send a signal, never to a process that reuses the pid; return False if it has ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.running():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


@dataclass(frozen=True)
class _Entry:
    pid: int
    state: str
    parent: int
    session: int
    started: int

    @property
    def ended(self) -> bool:
        return self.state in "ZXx"


def boot() -> str:
    """Return the id of the current boot; start times of different boots are not comparable."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def find(pid: int) -> Process | None:
    """Return the process that has this pid now, or None."""
    entry = _entry(pid)
    return None if entry is None or entry.ended else Process(pid, entry.started, boot())


def spawn(argv: Sequence[str], env: Mapping[str, str], *, log: Path) -> Process:
    """Start a detached program in a new session, with its output appended to `log`.

    It survives the end of the caller and its terminal, inherits no file descriptors and has default
    signal handling.
    """
    appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[
            signal.SIGPIPE,
            signal.SIGXFSZ,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGQUIT,
            signal.SIGTERM,
        ],
    )
    _children.add(pid)
    entry = _entry(pid)
    # If it has ended already, the identity matches no process.
    return Process(pid, entry.started if entry else -1, boot())


def family(leader: Process | None, mark: str) -> list[Process]:
    """Return all running processes of a server, the leader first.

    These are the processes of the leader's session, processes with the mark in their environment,
    and the descendants of both.
    """
    table = _table()
    chosen: dict[int, _Entry] = {}
    if leader is not None and leader.running():
        chosen = {e.pid: e for e in table if e.pid == leader.pid or e.session == leader.pid}
    wanted = f"{MARK}={mark}".encode()
    for entry in table:
        if entry.pid not in chosen and wanted in _environment(entry.pid):
            chosen[entry.pid] = entry
    grown = True
    while grown:
        fresh = {e.pid: e for e in table if e.parent in chosen and e.pid not in chosen}
        chosen |= fresh
        grown = bool(fresh)
    chosen.pop(os.getpid(), None)
    now = boot()
    found = [Process(e.pid, e.started, now) for e in chosen.values() if not e.ended]
    return sorted(found, key=lambda one: (one != leader, one.started, one.pid))


def gone(processes: Sequence[Process], within: float) -> bool:
    """Wait up to `within` seconds for all processes to end; return whether they have."""
    deadline = time.monotonic() + within
    while any(one.running() for one in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _table() -> list[_Entry]:
    entries = (_entry(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return [entry for entry in entries if entry is not None]


def _entry(pid: int) -> _Entry | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name is in parentheses and may contain any character.
    rest = text[text.rindex(")") + 2 :].split()
    entry = _Entry(pid, rest[0], int(rest[1]), int(rest[3]), int(rest[19]))
    if entry.ended and pid in _children and entry.parent == os.getpid():
        _children.discard(pid)
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return entry


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
