"""Native names of exchanges, queues and streams, and the arguments that they are declared with."""

from __future__ import annotations

import hashlib
from typing import Any

from anymq.driver import TopicSpec

EVERYTHING = "#"
"""The binding pattern that every routing key matches."""
LIMIT = "x-delivery-limit"
SINGLE_ACTIVE = "x-single-active-consumer"
NO_LIMIT = 2**31 - 1
"""The limit of deliveries of anymq's queues: how often to try is the retry middleware's decision.
Since RabbitMQ 4.0 a message is dropped after 20 deliveries if no limit is set; before, never."""
LEAST_NO_LIMIT = NO_LIMIT - 1_000_000
"""Limits of deliveries from here on are anymq's own, and as good as none."""
GROUP_ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum", LIMIT: NO_LIMIT}
LONGEST_STREAM_NAME = 205
"""Bytes. A stream's name becomes that of a folder, together with its virtual host and a number."""
SEGMENT = "x-stream-max-segment-size-bytes"
SEGMENTS = 4
"""Segments into which a log with a bound of bytes is divided."""
SMALLEST_SEGMENT, LARGEST_SEGMENT = 65_536, 50_000_000
"""Bytes."""


def escaped(name: str) -> str:
    """Return the native name of an exchange or queue that anymq creates as `name`.

    It is the same, unless RabbitMQ reserves it: names that begin with `amq.`. The escaped one
    collides with no other, because topics and groups begin with a letter or digit.
    """
    return f"_{name}" if name.startswith("amq.") else name


def exchange_of(topic: TopicSpec) -> str:
    """Return the exchange of `topic`."""
    return escaped(topic.native) if topic.create else topic.native


def stream_name(name: str) -> str:
    """Return the native name of the stream `name`: cut, and with a hash, if it is too long."""
    if len(name) <= LONGEST_STREAM_NAME:
        return name
    return f"{name[:150]}._{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def log_of(exchange: str) -> str:
    """Return the stream that keeps the messages of `exchange`: the log of its topic."""
    return stream_name(escaped(f"{exchange}._log"))


def log_arguments(topic: TopicSpec, retention: float) -> dict[str, Any]:
    """Return the arguments of the log of `topic`; `retention`, in seconds, is the default.

    The log drops whole segments, when the next one begins. So the less it keeps, the smaller its
    segments are.
    """
    seconds = max(1, int(topic.retention if topic.retention is not None else retention))
    arguments: dict[str, Any] = {"x-max-age": f"{seconds}s"}
    if topic.retention is not None:
        arguments[SEGMENT] = LARGEST_SEGMENT
    if topic.retention_bytes is not None:
        arguments["x-max-length-bytes"] = topic.retention_bytes
        part = topic.retention_bytes // SEGMENTS
        arguments[SEGMENT] = min(LARGEST_SEGMENT, max(SMALLEST_SEGMENT, part))
    return arguments
