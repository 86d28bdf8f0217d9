"""What is known of a server at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class State(StrEnum):
    """What a server is doing."""

    RUNNING = "running"
    """It answered a real request just now."""
    PAUSED = "paused"
    SILENT = "silent"
    """Its process is there and does not answer: starting, stopping or stuck."""
    STOPPED = "stopped"


@dataclass(frozen=True)
class Status:
    """A snapshot of one server of one instance."""

    name: str
    instance: str
    state: State
    version: str
    pid: int | None
    url: str
    uptime: float | None
    folder: Path

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self.state is State.RUNNING
