"""Subprocesses of installers, and version numbers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import BrokersError

Version = tuple[int, ...]

CLEAN_ENVIRONMENT = {"PATH": f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
"""The environment of servers, independent of the user's."""

# Administration programs are often not on a user's PATH.
_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))


def which(name: str) -> str | None:
    """Return the path of a program, also searching the administration folders."""
    return shutil.which(name) or shutil.which(name, path=_PATH)


def version(text: str) -> Version:
    """Return the first dotted number in a text; empty if there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def dotted(number: Version) -> str:
    """Return the version as dotted text."""
    return ".".join(map(str, number))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, with columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def output(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """Return the output of a short command on both streams; empty if it fails or is missing."""
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
    """Run a long command with its output in `log`; raise with the end of the output if it fails.

    The command inherits `lock` and holds it until its end, even if this process is killed.
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
    """Return the last lines of a file; empty if it does not exist."""
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
