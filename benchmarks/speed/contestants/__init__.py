"""The contestants by backend. A worker imports only the libraries of its own contestant."""

from __future__ import annotations

from importlib import import_module

from ..contestant import Contestant
from .anymq import anymq_on

_OTHERS: dict[str, dict[str, str]] = {
    "kafka": {
        "raw": "kafka:Raw",
        "raw best": "kafka:RawBest",
        "faststream": "faststream:OnKafka",
        "mq-bridge": "mq_bridge:OnKafka",
    },
    "rabbitmq": {
        "raw": "rabbitmq:Raw",
        "raw best": "rabbitmq:RawBest",
        "faststream": "faststream:OnRabbitMQ",
        "mq-bridge": "mq_bridge:OnRabbitMQ",
    },
    "nats": {
        "raw": "nats:Raw",
        "raw best": "nats:RawBest",
        "faststream": "faststream:OnNATS",
        "mq-bridge": "mq_bridge:OnNATS",
    },
    "redis": {
        "raw": "redis:Raw",
        "raw best": "redis:RawBest",
        "faststream": "faststream:OnRedis",
        "mq-bridge": "mq_bridge:OnRedis",
    },
    "sqlite": {},
    "memory": {},
}
"""Module and class of each contestant, by backend and name."""

BACKENDS = tuple(_OTHERS)


def contestants(backend: str) -> list[type[Contestant]]:
    """Return all contestants on `backend`, anymq first, including those not installed."""
    return [*anymq_on(backend), *map(_load, _OTHERS[backend].values())]


def contestant(backend: str, name: str) -> type[Contestant]:
    """Return the contestant on `backend` with that name."""
    if path := _OTHERS[backend].get(name):
        return _load(path)
    return next(one for one in anymq_on(backend) if one.name == name)


def _load(path: str) -> type[Contestant]:
    module, _, name = path.partition(":")
    found: type[Contestant] = getattr(import_module(f".{module}", __name__), name)
    return found
