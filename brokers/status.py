"""The status of a server at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class State(StrEnum):
    """The state of a server."""

    RUNNING = "running"
    """It has just answered a request."""
    PAUSED = "paused"
    SILENT = "silent"
    """Its process runs and does not answer: it is starting, stopping or stuck."""
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
        """Whether the server answers."""
        return self.state is State.RUNNING
