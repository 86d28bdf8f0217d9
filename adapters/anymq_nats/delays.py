"""Messages that wait for their time: the server puts them on their subject when it has come."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic

from anymq.driver import Record

from .connection import Link
from .jetstream.schema import later_subject
from .outgoing import Outgoing
from .topology import Stream

# Seconds after which the server's clock is compared with ours again.
_COMPARE = 600.0


async def compare_clocks(link: Link, stream: Stream) -> None:
    """Make sure that `link.ahead` is known and not old."""
    if link.compared + _COMPARE < monotonic():
        await link.api(f"STREAM.INFO.{stream.name}")


def scheduled(
    link: Link, stream: Stream, record: Record, due: float, *, owner: str, target: str
) -> Outgoing:
    """Return what makes the server publish `record` to `target` at `due`, by our clock.

    `owner` is the consumer that it is for, or `names.EVERYONE`. Call `compare_clocks` before.
    """
    at = datetime.fromtimestamp(due + link.ahead, UTC)
    extra = {
        "Nats-Schedule": f"@at {at:%Y-%m-%dT%H:%M:%S.%fZ}",
        "Nats-Schedule-Target": stream.when_due(target),
        # Otherwise the stream's max_age could delete it before its time.
        "Nats-TTL": "never",
    }
    subject = later_subject(stream.subject, owner, record.unique)
    return Outgoing(
        subject,
        record.unique,
        record.body,
        record.own,
        record.common,
        extra=extra,
        original=record.original,
    )
