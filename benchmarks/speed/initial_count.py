"""Message counts for the first measurement, before a contestant's rate is known."""

from __future__ import annotations

COUNTS = {
    "kafka": 10_000,
    "rabbitmq": 3000,
    "nats": 6000,
    "redis": 8000,
    "sqlite": 5000,
    "memory": 20_000,
}
SLOW_COUNTS = {
    ("kafka", "faststream"): 800,
    ("rabbitmq", "faststream"): 2000,
    ("nats", "faststream"): 2500,
    ("redis", "faststream"): 1500,
    ("redis", "raw"): 2500,
}
"""Contestants that would take seconds for the count of the others."""


def initial_count(backend: str, contestant: str, most: int) -> int:
    """Return a count of at most `most` that takes a few tenths of a second."""
    return min(most, SLOW_COUNTS.get((backend, contestant), COUNTS[backend]))
