"""The contestants, by backend."""

from __future__ import annotations

from ..contestant import Contestant
from . import faststream, kafka, nats, rabbitmq, redis
from .anymq import anymq_on

_OTHERS: dict[str, list[type[Contestant]]] = {
    "kafka": [kafka.Raw, kafka.RawBest, faststream.OnKafka],
    "rabbitmq": [rabbitmq.Raw, rabbitmq.RawBest, faststream.OnRabbitMQ],
    "nats": [nats.Raw, nats.RawBest, faststream.OnNATS],
    "redis": [redis.Raw, redis.RawBest, faststream.OnRedis],
    "sqlite": [],
    "memory": [],
}

BACKENDS = tuple(_OTHERS)


def contestants(backend: str) -> list[type[Contestant]]:
    """Return all contestants on `backend`, those that are not installed too; anymq is the first."""
    return [*anymq_on(backend), *_OTHERS[backend]]
