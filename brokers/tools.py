"""Runs the programs that install things, and reads versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import BrokersError

Version = tuple[int, ...]

# Administrators' programs are often not on a user's PATH.
_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))


def which(name: str) -> str | None:
    """The program of this name, also among the administrator's programs."""
    return shutil.which(name) or shutil.which(name, path=_PATH)


def version(text: str) -> Version:
    """The first dotted number in a text; empty when there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def dotted(number: Version) -> str:
    """The version as people write it."""
    return ".".join(map(str, number))


def output(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """What a short command prints, on both streams; empty when it fails or is not there."""
    try:
        done = subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def run(
    argv: Sequence[str],
    *,
    what: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    lock: int | None = None,
) -> None:
    """Run a long command with its output in `log`; a failure carries the end of it.

    It holds the lock for as long as it runs, also when this process is killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as sink:
        done = subprocess.run(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            pass_fds=() if lock is None else (lock,),
            check=False,
        )
    if done.returncode:
        raise BrokersError(
            f"{what} failed with exit code {done.returncode}\n"
            f"command: {' '.join(argv)}\n{tail(log, 15)}\nwhole output: {log}"
        )


def tail(file: Path, lines: int) -> str:
    """The last lines of a file; empty when it is not there."""
    if lines <= 0:
        return ""
    try:
        with file.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 400 * lines - 4096))
            text = handle.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
