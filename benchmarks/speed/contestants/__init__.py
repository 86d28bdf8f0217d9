"""The contestants, by backend."""

from __future__ import annotations

from ..contestant import Contestant
from . import kafka, nats, rabbitmq, redis
from .anymq import anymq_on

_RAW: dict[str, list[type[Contestant]]] = {
    "kafka": [kafka.Raw, kafka.RawBest],
    "rabbitmq": [rabbitmq.Raw, rabbitmq.RawBest],
    "nats": [nats.Raw, nats.RawBest],
    "redis": [redis.Raw, redis.RawBest],
    "sqlite": [],
    "memory": [],
}

BACKENDS = tuple(_RAW)


def contestants(backend: str) -> list[type[Contestant]]:
    """Return all contestants on `backend`, those that are not installed too; anymq is the first."""
    return [*anymq_on(backend), *_RAW[backend]]
