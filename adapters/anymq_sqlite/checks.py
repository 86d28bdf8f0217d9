"""Checks of the file: SQLite's version, forced writes, space, access, file system."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path

from anymq.driver import Check, Inspection, inspect

from .connection import Database
from .errors import ERRORS
from .file.connection import OLDEST_SQLITE

LEAST_FREE, LITTLE_FREE = 64 * 1024 * 1024, 1024 * 1024 * 1024
"""Bytes of free space below which a check fails, and below which it warns."""
LARGEST_CHECKED = 256 * 1024 * 1024
"""Bytes up to which a file is read as a whole to find damage."""
WAL_RESET_FIXED = (3, 51, 3)
MOUNTS = Path("/proc/self/mounts")
NETWORK = frozenset(
    {
        "9p",
        "afs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
        "virtiofs",
    }
)
"""Types of file systems whose files several hosts may write, on which SQLite's log is not safe."""

_WRITABLE = "chown the file, its folder and the files beside it to the user of the application"
GRANTS: dict[str, str] = dict.fromkeys(
    ("can create topics", "can publish", "can create groups"), _WRITABLE
)
_LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")


async def checks(database: Database) -> AsyncGenerator[Check, None]:
    """Yield the checks of the file."""
    inspections: dict[str, Inspection] = {
        "server version": _version,
        "file": partial(_file, database),
        "forced writes": partial(_forced, database),
        "free space": lambda: asyncio.to_thread(_space, database.path.parent),
        "access": lambda: asyncio.to_thread(_access, database.path),
        "file system": partial(_file_system, database.path),
        "clock": _clock,
    }
    async for check in inspect(inspections, ERRORS):
        yield check


async def _version() -> Sequence[Check]:
    name, detail = "server version", f"SQLite {sqlite3.sqlite_version}"
    found = sqlite3.sqlite_version_info
    if found < OLDEST_SQLITE:
        fix = f"use a Python with SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer"
        return [Check.failed(name, detail, fix=fix)]
    if sys.platform == "win32" and found < WAL_RESET_FIXED:
        text = f"{detail}: several processes that write may damage the file, on Windows"
        return [Check.warning(name, text, fix="use a Python with SQLite 3.51.3 or newer")]
    return [Check.ok(name, detail)]


async def _file(database: Database) -> Sequence[Check]:
    """Read the file as a whole, unless that would take long."""
    size = (await asyncio.to_thread(database.path.stat)).st_size
    detail = f"{database.path}, {size / 1024 / 1024:.1f} MiB"
    if size > LARGEST_CHECKED:
        return [Check.unknown("file", f"{detail}: too large to be read as a whole")]
    found = await database.read(_damage)
    if found == "ok":
        return [Check.ok("file", detail)]
    fix = "stop the application, keep the file, and recover it: sqlite3 FILE .recover"
    return [Check.failed("file", f"{detail}: {found}", fix=fix)]


def _damage(db: sqlite3.Connection) -> str:
    return str(db.execute("PRAGMA quick_check(1)").fetchone()[0])


async def _forced(database: Database) -> Sequence[Check]:
    name = "forced writes"
    mode, level = await database.read(_settings)
    if mode != "wal":
        fix = "keep the file on a local disk"
        return [Check.failed(name, f"journal mode {mode} instead of wal", fix=fix)]
    detail = f"synchronous={_LEVELS[level]}"
    if level >= _LEVELS.index("FULL"):
        return [Check.ok(name, f"{detail}: a power cut loses nothing")]
    fix = "leave synchronous=FULL, the default, in the URL"
    kind = Check.warning if level else Check.failed
    damage = "" if level else ", and may damage the file"
    text = f"{detail}: a power cut loses confirmed messages{damage}"
    return [kind(name, text, fix=fix)]


def _settings(db: sqlite3.Connection) -> tuple[str, int]:
    (mode,), (level,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "synchronous")
    )
    return str(mode), int(level)


def _space(folder: Path) -> Sequence[Check]:
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024 / 1024:.0f} MiB in {folder}"
    if free >= LITTLE_FREE:
        return [Check.ok("free space", detail)]
    kind = Check.failed if free < LEAST_FREE else Check.warning
    fix = "free space, or move the file: without space, publishes fail"
    return [kind("free space", detail, fix=fix)]


def _access(path: Path) -> Sequence[Check]:
    """Check that this process may write the file and beside it, and that others may not."""
    for place in (path, path.parent):
        if not os.access(place, os.R_OK | os.W_OK):
            detail = f"this process may not write {place}"
            return [Check.failed("access", detail, fix=_WRITABLE)]
    mode = stat.S_IMODE(path.stat().st_mode)
    detail = f"mode {mode:04o}"
    if sys.platform != "win32" and mode & (stat.S_IROTH | stat.S_IWOTH):
        text = f"{detail}: every user of this machine may read the messages"
        return [Check.warning("access", text, fix=f"chmod o-rwx {path} {path}-*")]
    return [Check.ok("access", detail)]


async def _file_system(path: Path) -> Sequence[Check]:
    return [await asyncio.to_thread(file_system_check, path)]


def file_system_check(path: Path) -> Check:
    """Return the check of the file system that holds `path`."""
    name, kind = "file system", _type_of(path)
    if kind is None:
        return Check.unknown(name, "this system does not tell")
    if kind not in NETWORK:
        return Check.ok(name, kind)
    fix = "move the file to a local disk: SQLite's write-ahead log does not work over a network"
    return Check.failed(name, f"{kind}, a network file system", fix=fix)


def _type_of(path: Path) -> str | None:
    """Return the type of the file system that holds `path`, by Linux's table of mounts."""
    if not MOUNTS.exists():
        return None
    best, kind = Path(), None
    for line in MOUNTS.read_text(errors="backslashreplace").splitlines():
        _, at, found, *_ = line.split(" ")
        mounted = Path(at.replace("\\040", " "))
        if path.is_relative_to(mounted) and len(mounted.parts) >= len(best.parts):
            best, kind = mounted, found
    return kind


async def _clock() -> Sequence[Check]:
    return [Check.ok("clock", "the file uses this machine's clock")]
