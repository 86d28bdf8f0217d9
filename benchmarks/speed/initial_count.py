"""How many messages are taken at first, before anything is known of how fast somebody is."""

from __future__ import annotations

USUAL = {
    "kafka": 10_000,
    "rabbitmq": 3000,
    "nats": 6000,
    "redis": 8000,
    "sqlite": 5000,
    "memory": 20_000,
}
SLOW = {
    ("kafka", "faststream"): 800,
    ("rabbitmq", "faststream"): 2000,
    ("nats", "faststream"): 2500,
    ("redis", "faststream"): 1500,
    ("redis", "raw"): 2500,
}
"""Those who would take seconds for as many as the others."""


def initial_count(backend: str, contestant: str, most: int) -> int:
    """Return a count, `most` at the most, that takes some tenths of a second today."""
    return min(most, SLOW.get((backend, contestant), USUAL[backend]))
