"""The summary of a report, in sentences derived from its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .formatting import count, figure
from .goals import verdicts
from .results import Report, ratio

PEERS = (("raw", "the raw client"), ("faststream", "FastStream"))


def summary(report: Report) -> list[str]:
    """Return the sentences of the summary."""
    found = verdicts(report)
    words = Counter(one.text for one in found)
    goals = f"Of {len(found)} goals {words['met']} are met, {words['missed']} are missed, and "
    goals += f"{words['not measured']} were not measured."
    return [*_backends(report), *_fastest(report), goals]


def _backends(report: Report) -> Iterator[str]:
    for backend in report.backends:
        parts = [
            f"{verb}es {count(cell.rate)} messages/s{_compared(report, backend.name, verb)}"
            if verb == "publish"
            else f"consumes {count(cell.rate)}{_compared(report, backend.name, verb)}"
            for verb in ("publish", "consume")
            if (cell := report.cell(backend.name, verb, "anymq")) and cell.rate
        ]
        if parts:
            yield f"On {backend.name} anymq {' and '.join(parts)}."


def _compared(report: Report, backend: str, workload: str) -> str:
    ours = report.cell(backend, workload, "anymq")
    ratios = [
        f"{figure(value, 'x')} {words}"
        for name, words in PEERS
        if (value := ratio(ours, report.cell(backend, workload, name))) is not None
    ]
    return f" ({', '.join(ratios)})" if ratios else ""


def _fastest(report: Report) -> Iterator[str]:
    servers = [one for one in report.backends if one.name not in ("memory", "sqlite")]
    for workload, words in (("publish", "publish to"), ("consume", "consume from")):
        rates = {
            one.name: cell.rate
            for one in servers
            if (cell := report.cell(one.name, workload, "anymq")) and cell.rate
        }
        if len(rates) > 1:
            order = sorted(rates, key=lambda name: rates[name], reverse=True)
            yield f"Of these servers, the fastest to {words}, first to last: {', '.join(order)}."
