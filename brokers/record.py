"""The record file of a started server: its process, ports and version."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from . import state
from .process import Process


@dataclass(frozen=True)
class Record:
    """A started server. Whether it is running is determined from the kernel, not from the file."""

    process: Process
    ports: dict[str, int]
    version: str

    def write(self, file: Path) -> None:
        state.write(file, json.dumps(asdict(self)))


def read(file: Path) -> Record | None:
    """Return the record, or None if there is no readable one."""
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
