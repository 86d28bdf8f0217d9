"""Results of runs as JSON, as a terminal table, and as Markdown for `docs/reports/`."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from brokers.tools import aligned

from .judge import Verdict
from .run import Size
from .scenarios import SCENARIOS, nothing_lost

HEAD = (
    "backend",
    "scenario",
    "attempted",
    "acknowledged",
    "lost",
    "unexpected",
    "duplicated",
    "recovered",
    "effects twice",
    "inversions",
    "overdue",
    "recovery p50 / p95 / max",
    "besides",
    "verdict",
)


@dataclass(frozen=True)
class Outcome:
    """The result of one scenario on one backend."""

    backend: str
    version: str
    scenario: str
    size: Size
    seconds: float
    verdict: Verdict
    failures: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return all findings as a JSON object."""
        return {**asdict(self), "ok": not self.failures}

    @property
    def title(self) -> str:
        """Name of the scenario, marked if it ran without kills."""
        return self.scenario if self.size.kills else f"{self.scenario} without kills"

    def row(self) -> tuple[str, ...]:
        """Return the cells of `HEAD`."""
        verdict = self.verdict
        queue, effects, order = verdict.queue, verdict.effects, verdict.order
        twice = str(len(effects.twice) + len(effects.committed_twice))
        if effects.in_gap:
            twice += f" (+{effects.in_gap} in the gap)"
        return (
            self.backend,
            self.title,
            str(queue.attempted),
            str(queue.acknowledged),
            # The backlog is not consumed completely.
            str(len(queue.lost)) if nothing_lost in SCENARIOS[self.scenario].checks else "-",
            str(len(queue.unexpected)),
            str(queue.duplicated),
            str(queue.recovered),
            twice if effects.committed else "-",
            "-" if order is None else str(len(order.inversions) + len(order.overlaps)),
            str(len(verdict.calls.overdue)),
            _seconds(verdict.recovery.p50, verdict.recovery.p95, verdict.recovery.longest),
            self._besides(),
            "ok" if not self.failures else "FAILED",
        )

    def _besides(self) -> str:
        verdict = self.verdict
        if verdict.delays.count:
            return f"late p50 / p99: {_seconds(verdict.delays.late_p50, verdict.delays.late_p99)}"
        if self.scenario == "backlog":
            return f"memory +{verdict.memory.growth / 2**20:.0f} MiB"
        return f"longest call {verdict.calls.longest:.1f}"

    def command(self) -> str:
        """Return the command line that repeats the run."""
        size = self.size
        return (
            f"python -m benchmarks chaos --backend {self.backend} --scenario {self.scenario} "
            f"--messages {size.messages} --kills {size.kills} --seed {size.seed} "
            f"--rate {size.rate:g} --outage {size.outage:g} --backlog {size.backlog} "
            f"--pauses {' '.join(f'{seconds:g}' for seconds in size.pauses)}"
        )


def from_json(text: bytes) -> list[Outcome]:
    """Return the outcomes in a JSON list of `as_json` objects."""
    return TypeAdapter(list[Outcome]).validate_json(text)


def _seconds(*values: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.2f}" for value in values)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the table for a terminal, followed by the failures."""
    rows = [HEAD, *(outcome.row() for outcome in outcomes)]
    return "\n".join([*aligned(rows), *_failures(outcomes)])


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the report: versions, results, checks and commands."""
    lines = [
        "# Faults",
        "",
        f"anymq {version('anymq')}, Python {platform.python_version()}, {platform.system()}, "
        f"{os.cpu_count()} cores; {', '.join(sorted({_server(item) for item in outcomes}))}.",
        "Times are in seconds. What must hold in each scenario is listed below the table.",
        "What breaks a server is not played against SQLite, which has none, nor `alarm` against "
        "Kafka and NATS: without disk they end. `delayed` without kills measures how late is late.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(outcome.row()) + " |" for outcome in outcomes),
        "",
        *(f"- {line}" for line in _failures(outcomes)),
        "",
        "## Scenarios",
        "",
    ]
    for name in dict.fromkeys(outcome.scenario for outcome in outcomes):
        scenario = SCENARIOS[name]
        lines.append(f"- **{name}**: {scenario.fault}. Must hold: {scenario.promise}.")
    lines += ["", "## Commands", "", "```", *(outcome.command() for outcome in outcomes), "```", ""]
    return "\n".join(lines)


def _server(outcome: Outcome) -> str:
    return f"{outcome.backend} {outcome.version}".rstrip()


def _failures(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        f"{outcome.backend} {outcome.scenario}: {failure}"
        for outcome in outcomes
        for failure in outcome.failures
    ]
