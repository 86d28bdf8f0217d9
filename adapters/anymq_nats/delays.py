"""Delayed messages: scheduled messages, which the server publishes to their subject when due."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic

from anymq.driver import Record

from .connection import Connection
from .jetstream.schema import later_subject
from .messages import Publication
from .topology import Stream

_COMPARE_SECONDS = 600.0


async def compare_clocks(connection: Connection, stream: Stream) -> None:
    """Compare the server's clock with this process's, at most every 600 s."""
    if connection.clock_compared + _COMPARE_SECONDS < monotonic():
        await connection.api(f"STREAM.INFO.{stream.name}")


def scheduled(
    connection: Connection, stream: Stream, record: Record, due: float, *, owner: str, target: str
) -> Publication:
    """Return the message that makes the server publish `record` to `target` at `due`, by our clock.

    `owner` is the consumer that it is for, or `EVERYONE`. Call `compare_clocks` before.
    """
    at = datetime.fromtimestamp(due + connection.clock_offset, UTC)
    extra = {
        "Nats-Schedule": f"@at {at:%Y-%m-%dT%H:%M:%S.%fZ}",
        "Nats-Schedule-Target": stream.when_due(target),
        # Otherwise the stream's max_age could delete it before it is due.
        "Nats-TTL": "never",
    }
    subject = later_subject(stream.subject, owner, record.unique)
    return Publication(
        subject,
        record.unique,
        record.body,
        record.own,
        record.common,
        extra=extra,
        original=record.original,
    )
