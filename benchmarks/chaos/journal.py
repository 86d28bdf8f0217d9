"""What happened, a JSON object a line, in one file for each process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""`event` says what happened and `at` when, in seconds of a clock that all processes share."""


def now() -> float:
    """The seconds of the machine's clock that never goes back, the same for every process."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Journal:
    """A file that is only appended to. A line is in it when `note` returns, whatever comes next."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, event: str, **fields: Any) -> None:
        """Append one line; a SIGKILL right afterwards does not lose it."""
        line = json.dumps({"event": event, "at": now(), **fields}, default=str)
        os.write(self._file, f"{line}\n".encode())

    def close(self) -> None:
        """Close the file; what has been noted is in it already."""
        os.close(self._file)


class Tail:
    """Reads the journals of a folder as they grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[Event]:
        """Give the events since the last call, file by file, each with its `by`: whose file."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    yield {**json.loads(line), "by": path.stem}


def read(folder: Path) -> list[Event]:
    """Return every event of a folder in the order of time."""
    return sorted(Tail(folder).new(), key=lambda event: float(event["at"]))
