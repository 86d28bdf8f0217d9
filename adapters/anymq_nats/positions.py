"""Positions: stream sequences, one order for all partitions of a topic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from anymq.driver import ConfigurationError, Start

from .connection import Connection
from .jetstream.log import probe, starting


async def first_sequence(connection: Connection, stream: str, start: Start) -> int:
    """Return the sequence at which reading from `start` begins, as of now.

    Raises `ConfigurationError` for a text that is no start position.
    """
    if isinstance(start, datetime):
        moment = start.astimezone(UTC).isoformat().replace("+00:00", "Z")
        config = {"deliver_policy": "by_start_time", "opt_start_time": moment}
        return int((await probe(connection, stream, config))["delivered"]["stream_seq"]) + 1
    if start == "earliest":
        return 1
    if start == "latest":
        return await last_sequence(connection, stream) + 1
    if not (start.isascii() and start.isdecimal()) or int(start) < 1:
        raise ConfigurationError(
            f"{start!r} is no start position: use earliest, latest, a datetime or a stream sequence"
        )
    return min(int(start), await last_sequence(connection, stream) + 1)


async def last_sequence(connection: Connection, stream: str) -> int:
    """Return the newest sequence of the stream."""
    info = await connection.api(f"STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


async def count(connection: Connection, stream: str, filters: Sequence[str], first: int = 1) -> int:
    """Return the number of messages on the subjects `filters` from sequence `first` on."""
    config = {"filter_subjects": list(filters), **starting(first)}
    return int((await probe(connection, stream, config))["num_pending"])
