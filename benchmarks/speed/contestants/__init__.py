"""The contestants, by backend."""

from __future__ import annotations

from ..contestant import Contestant
from . import faststream, kafka, mq_bridge, nats, rabbitmq, redis
from .anymq import anymq_on

_OTHERS: dict[str, list[type[Contestant]]] = {
    "kafka": [kafka.Raw, kafka.RawBest, faststream.OnKafka, mq_bridge.OnKafka],
    "rabbitmq": [rabbitmq.Raw, rabbitmq.RawBest, faststream.OnRabbitMQ, mq_bridge.OnRabbitMQ],
    "nats": [nats.Raw, nats.RawBest, faststream.OnNATS, mq_bridge.OnNATS],
    "redis": [redis.Raw, redis.RawBest, faststream.OnRedis, mq_bridge.OnRedis],
    "sqlite": [],
    "memory": [],
}

BACKENDS = tuple(_OTHERS)


def contestants(backend: str) -> list[type[Contestant]]:
    """Return all contestants on `backend`, those that are not installed too; anymq is the first."""
    return [*anymq_on(backend), *_OTHERS[backend]]
