"""The brokers' own benchmark tools, for comparison."""

from __future__ import annotations

from .kafka import KafkaTools
from .nats import NatsGo
from .rabbitmq import PerfTest
from .redis import RedisBenchmark
from .tool import Native, ToolFailed

__all__ = ["Native", "ToolFailed", "natives"]

_ALL: tuple[type[Native], ...] = (KafkaTools, PerfTest, NatsGo, RedisBenchmark)


def natives(backend: str) -> list[type[Native]]:
    """Return the tools for `backend`, including missing ones; SQLite and memory have none."""
    return [one for one in _ALL if one.backend == backend]
