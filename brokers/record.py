"""The file that remembers a started server: which process it is, its ports and its version."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from . import state
from .process import Process


@dataclass(frozen=True)
class Record:
    """What was started. Whether it still runs is asked of the kernel, never of the file."""

    process: Process
    ports: dict[str, int]
    version: str

    def write(self, file: Path) -> None:
        state.write(file, json.dumps(asdict(self)))


def read(file: Path) -> Record | None:
    """The record, or None when there is none that can be read."""
    try:
        found = json.loads(file.read_text())
        process = found["process"]
        return Record(
            Process(int(process["pid"]), int(process["started"]), str(process["boot"])),
            {str(role): int(port) for role, port in found["ports"].items()},
            str(found["version"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
