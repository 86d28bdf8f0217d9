"""The metrics of all workers together, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from ..health.metrics import Kind, Metric, exposition
from .report import WorkersHealth

SHARED = ("anymq_consumer_lag", "anymq_consumer_lag_time_seconds")
"""Metrics of the broker, which every worker reports alike: they have no label for the worker."""


def metrics_of(health: WorkersHealth) -> str:
    """Return the metrics of the workers, each sample with its worker, and of the supervisor."""
    labels = [{"worker": str(item.worker)} for item in health.workers]
    running = [item.state == "running" for item in health.workers]
    restarts = [item.restarts for item in health.workers]
    own = exposition(
        (
            _metric("anymq_worker_running", "gauge", "1 if the worker runs.", labels, running),
            _metric(
                "anymq_worker_restarts_total",
                "counter",
                "Workers that were started in place of one that had ended.",
                labels,
                restarts,
            ),
        )
    )
    families: dict[str, list[str]] = {}
    for item in health.workers:
        _add(families, item.metrics, item.worker)
    return own + "".join(f"{line}\n" for lines in families.values() for line in lines)


def _metric(
    name: str, kind: Kind, text: str, labels: Sequence[dict[str, str]], values: Sequence[float]
) -> Metric:
    samples = [(one, float(value)) for one, value in zip(labels, values, strict=True)]
    return Metric(name, kind, text, samples)


def _add(families: dict[str, list[str]], text: str, worker: int) -> None:
    """Add the lines of `worker` to the `families`, which are lists of lines by metric."""
    name = ""
    for line in text.splitlines():
        if line.startswith("# "):
            name = line.split(" ")[2]
            head = families.setdefault(name, [])
            if line not in head:
                head.append(line)
            continue
        series = line.rpartition(" ")[0]
        if name not in SHARED:
            labels = series[len(name) :].strip("{}")
            rest = f",{labels}" if labels else ""
            line = f'{name}{{worker="{worker}"{rest}}} {line.rpartition(" ")[2]}'
        elif any(known.startswith(f"{series} ") for known in families[name]):
            continue
        families[name].append(line)
