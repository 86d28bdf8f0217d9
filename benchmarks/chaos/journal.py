"""Event journals: one file per process, one JSON object per line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""`event` is its kind and `at` its time in seconds, on a clock shared by all processes."""


def now() -> float:
    """Return the seconds of the machine's monotonic clock, which all processes share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Journal:
    """An append-only file. Once `note` returns, its line survives a SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, event: str, **fields: Any) -> None:
        """Append one event."""
        line = json.dumps({"event": event, "at": now(), **fields}, default=str)
        os.write(self._file, f"{line}\n".encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Tail:
    """A reader of the growing journals in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[Event]:
        """Yield the events since the last call, file by file; `by` is the name of the process."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    yield {**json.loads(line), "by": path.stem}


def read(folder: Path) -> list[Event]:
    """Return all events of a folder in order of time."""
    return sorted(Tail(folder).new(), key=lambda event: float(event["at"]))
