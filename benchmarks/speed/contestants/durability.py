"""Durability of a confirmed message, equal for all contestants of a backend."""

from __future__ import annotations

DURABILITY = {
    "kafka": "acks=all, idempotent producer",
    "rabbitmq": "quorum queue, publisher confirms, persistent",
    "nats": "JetStream, file storage, acknowledged",
    "redis": "append-only file, appendfsync everysec",
    "sqlite": "WAL, synchronous=FULL",
    "memory": "none: lives as long as the process",
}
