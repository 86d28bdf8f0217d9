"""The settings of `anymq run`, and what one worker gets of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How supervisor and workers log."""

    form: LogFormat = "text"
    level: str = "INFO"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What to run, and how."""

    place: str
    """The app, as `module:attribute`."""
    workers: int = 1
    url: str | None = None
    """The broker, if it is not that of the app."""
    drain: float = 30.0
    """Seconds that handlers have when the workers stop."""
    health: str | None = None
    """The address of the endpoint for probes."""
    reload: bool = False
    """Whether to start the workers anew when a file has changed."""
    log: LogSettings = LogSettings()
    traceback: bool = False
    """Whether a worker that cannot start shows where."""

    def for_worker(self, number: int, lock: int) -> dict[str, Any]:
        """Return the first message to worker `number`; `lock` is the descriptor for its log."""
        return {
            "number": number,
            "place": self.place,
            "url": self.url,
            "drain": self.drain,
            "form": self.log.form,
            "level": self.log.level,
            "lock": lock,
            "traceback": self.traceback,
        }
