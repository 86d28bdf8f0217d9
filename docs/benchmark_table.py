"""Write the figures of the committed benchmark report into README.md.

Run `python docs/benchmark_table.py`; `--check` only says whether the page is true. The report is
docs/reports/speed.json, as `python -m benchmarks` wrote it.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.speed.formatting import count, milliseconds  # noqa: E402
from benchmarks.speed.results import Report  # noqa: E402
from docs.markers import filled  # noqa: E402

REPORT = ROOT / "docs" / "reports" / "speed.json"
PAGE = ROOT / "README.md"
BACKENDS = {
    "kafka": "Kafka",
    "rabbitmq": "RabbitMQ",
    "nats": "NATS",
    "redis": "Redis",
    "sqlite": "SQLite",
    "memory": "memory",
}
WORKLOADS = {
    "publish": "`publish` from 256 tasks",
    "publish-many": "`publish_many`",
    "consume": "consume, default chain",
}
HALF = 0.5


def table(report: Report) -> str:
    """Return the table: rates and latencies, in brackets against the raw client."""
    lines = [
        "| messages/s (x raw client) | " + " | ".join(BACKENDS.values()) + " |",
        "|---" * (len(BACKENDS) + 1) + "|",
    ]
    for workload, title in WORKLOADS.items():
        cells = " | ".join(_rate(report, backend, workload) for backend in BACKENDS)
        lines.append(f"| {title} | {cells} |")
    cells = " | ".join(_latency(report, backend) for backend in BACKENDS)
    lines.append(f"| end to end at half load, p50 / p99 ms | {cells} |")
    return "\n".join(lines)


def _rate(report: Report, backend: str, workload: str) -> str:
    cell = report.cell(backend, workload, "anymq")
    if cell is None or cell.rate is None:
        return "-"
    ratio = report.against_raw(cell)
    return count(cell.rate) + (f" ({ratio:.1f} x)" if ratio else "")


def _latency(report: Report, backend: str) -> str:
    cell = report.cell(backend, "latency", "anymq", HALF)
    if cell is None:
        return "-"
    found = cell.latency
    return f"{milliseconds(found.p50)} / {milliseconds(found.p99)}"


def main() -> int:
    """Write the page, or check it."""
    text = PAGE.read_text(encoding="utf-8")
    report = Report.model_validate_json(REPORT.read_text(encoding="utf-8"))
    wanted = filled(text, "<!-- benchmark -->", "<!-- /benchmark -->", table(report))
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
