"""The health of all workers together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SILENT_AFTER = 10.0
"""Seconds after which a worker that does not answer counts as not live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHealth:
    """The state of one worker at one moment."""

    worker: int
    pid: int | None
    state: str
    restarts: int
    silent_seconds: float | None
    """The seconds for which it has not answered, if they are too many."""
    report: dict[str, Any] | None
    """Its own report, see `Health.as_dict`."""
    metrics: str = field(repr=False)

    @property
    def live(self) -> bool:
        """Whether it needs no restart. One that has died is restarted by the supervisor."""
        if self.silent_seconds is not None:
            return False
        return self.report is None or bool(self.report["live"])

    @property
    def problems(self) -> Sequence[str]:
        """The reasons why it is not ready; empty if it is."""
        if self.silent_seconds is not None:
            return (f"it has not answered for {self.silent_seconds:.0f} s",)
        if self.report is None:
            return (f"it is {self.state}" if self.state != "running" else "no report yet",)
        problems: Sequence[str] = self.report["problems"]
        return problems

    def as_dict(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        names = ("worker", "pid", "state", "restarts", "silent_seconds", "report")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersHealth:
    """The state of a supervisor and its workers at one moment."""

    draining: bool
    workers: Sequence[WorkerHealth]

    @property
    def live(self) -> bool:
        """Whether every worker is live."""
        return all(worker.live for worker in self.workers)

    @property
    def ready(self) -> bool:
        """Whether every worker is ready, and none drains."""
        return not self.problems

    @property
    def problems(self) -> Sequence[str]:
        """The reasons why it is not ready; empty if it is."""
        return tuple(self._problems())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "live": self.live,
            "ready": self.ready,
            "draining": self.draining,
            "problems": list(self.problems),
            "workers": [worker.as_dict() for worker in self.workers],
        }

    def _problems(self) -> Iterator[str]:
        if self.draining:
            yield "the workers are draining"
        for worker in self.workers:
            for problem in worker.problems:
                yield f"worker {worker.worker}: {problem}"
