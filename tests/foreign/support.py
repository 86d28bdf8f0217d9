"""The backends with a foreign publisher."""

from __future__ import annotations

import pytest

from brokers import server
from tests.foreign.raw import Raw
from tests.foreign.raw_kafka import RawKafka
from tests.foreign.raw_nats import RawNats
from tests.foreign.raw_rabbitmq import RawRabbitMQ
from tests.foreign.raw_redis import RawRedis

RAW: dict[str, type[Raw]] = {
    "kafka": RawKafka,
    "rabbitmq": RawRabbitMQ,
    "nats": RawNats,
    "redis": RawRedis,
}

EVERY = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in RAW]
"""Parameters of a test that runs on each of them."""


def raw(backend: str) -> Raw:
    """Return a publisher on the server that all tests share."""
    return RAW[backend](server(backend).url)
