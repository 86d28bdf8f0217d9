"""Where reading begins: stream sequences, the same for all partitions of a topic."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from anymq.driver import ConfigurationError, Start

from .connection import Link
from .topology import NANO, Config

# Seconds after which the server forgets a consumer that was only made to be looked at.
_PROBE = 5.0


async def first_sequence(link: Link, stream: str, start: Start) -> int:
    """Return the sequence of the first message that counts for `start`, as of now.

    Raises `ConfigurationError` for a text that is no start.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigurationError(f"{start!r} has no time zone")
        moment = start.astimezone(UTC).isoformat().replace("+00:00", "Z")
        config = {"deliver_policy": "by_start_time", "opt_start_time": moment}
        return int((await probe(link, stream, config))["delivered"]["stream_seq"]) + 1
    if start == "earliest":
        return 1
    if start == "latest":
        return await last_sequence(link, stream) + 1
    if not (start.isascii() and start.isdecimal()) or int(start) < 1:
        raise ConfigurationError(
            f"{start!r} is no place to start: earliest, latest, a datetime or a stream sequence"
        )
    return min(int(start), await last_sequence(link, stream) + 1)


async def last_sequence(link: Link, stream: str) -> int:
    """Return the newest sequence of the stream."""
    info = await link.api(f"STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


def starting(first: int) -> Config:
    """Return how to tell a new consumer that it begins at sequence `first`."""
    if first <= 1:
        return {"deliver_policy": "all"}
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": first}


async def count(link: Link, stream: str, filters: Sequence[str], first: int = 1) -> int:
    """Return how many messages on the subjects `filters` there are from sequence `first` on."""
    config = {"filter_subjects": list(filters), **starting(first)}
    return int((await probe(link, stream, config))["num_pending"])


async def probe(link: Link, stream: str, config: Config) -> Config:
    """Return what the server says of a consumer made like this; it delivers nothing."""
    name = f"anymq-{uuid.uuid4().hex}"
    wanted = {
        "name": name,
        "ack_policy": "none",
        "inactive_threshold": int(_PROBE * NANO),
        "mem_storage": True,
        "num_replicas": 1,
        **config,
    }
    body = {"stream_name": stream, "config": wanted, "action": "create"}
    info = await link.api(f"CONSUMER.CREATE.{stream}.{name}", body)
    link.write(f"PUB {link.prefix}.CONSUMER.DELETE.{stream}.{name} 0\r\n\r\n".encode())
    return info
