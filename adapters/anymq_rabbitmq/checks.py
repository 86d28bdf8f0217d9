"""Checks of the server: its version, copies of queues, alarms, clock."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial

from anymq.driver import Check, Inspection, TopicSpec, clock_difference, inspect

from .client import codec, protocol
from .connection import Connection
from .errors import ERRORS
from .groups.schema import log_arguments, log_of
from .options import RabbitMQOptions
from .positions import Log
from .publisher import Outgoing, Publisher

OLDEST, SHARED_ORDER = (3, 10), (4, 0)

_RIGHTS = "rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ: {}"
GRANTS = {
    "can create topics": _RIGHTS.format("configure, write and read for TOPIC and anymq.*"),
    "can publish": _RIGHTS.format("write for TOPIC"),
    "can create groups": _RIGHTS.format("configure, write and read for TOPIC.* and anymq.*"),
    "can receive": _RIGHTS.format("read for TOPIC.GROUP"),
    "can retry": _RIGHTS.format("write for amq.default and TOPIC.GROUP"),
    "can acknowledge": _RIGHTS.format("read for TOPIC.GROUP"),
    "can describe": _RIGHTS.format("read for TOPIC and TOPIC.*"),
    "can delete": _RIGHTS.format("configure for TOPIC and TOPIC.*"),
}
_FIXES = {"clock": _RIGHTS.format("configure, write and read for streams")}


async def checks(
    connection: Connection,
    publisher: Publisher,
    options: RabbitMQOptions,
    scratch: TopicSpec | None,
) -> AsyncGenerator[Check, None]:
    """Yield the checks of the server."""
    inspections: dict[str, Inspection] = {
        "server version": partial(_version, connection),
        "clock": partial(_clock, connection, publisher, options, scratch),
        "alarms": partial(_alarms, publisher, scratch),
    }
    async for check in inspect(inspections, ERRORS, fixes=_FIXES):
        yield check


async def _version(connection: Connection) -> Sequence[Check]:
    return [version_check(connection.version)]


def version_check(version: tuple[int, ...]) -> Check:
    """Return the check of the server's version."""
    name, detail = "server version", f"RabbitMQ {'.'.join(map(str, version))}"
    if version[:2] < OLDEST:
        return Check.failed(name, detail, fix="upgrade to RabbitMQ 4.0 or newer")
    if version[:2] < SHARED_ORDER:
        text = f"{detail}: the partitions of an ordered group are not shared by its members"
        return Check.warning(name, text, fix="upgrade to RabbitMQ 4.0 or newer")
    return Check.ok(name, detail)


async def _clock(
    connection: Connection,
    publisher: Publisher,
    options: RabbitMQOptions,
    scratch: TopicSpec | None,
) -> Sequence[Check]:
    """Compare the clocks by the time under which a temporary stream stores a message.

    AMQP has no request for the server's time. But a stream is read from a time on, by the server's
    clock. So the time of its only message can be searched for, to the second.
    """
    if scratch is None:
        return [Check.unknown("clock", "the server tells its time only by a stream of its own")]
    stream = log_of(f"{scratch.native}-clock")
    arguments = {"x-queue-type": "stream", **log_arguments(scratch, options.retention)}
    await protocol.ensure_queue(connection, stream, arguments)
    try:
        properties = codec.encode({}, content_type=None, message_id="clock", timestamp=0)
        earliest = time.time()
        await publisher.publish_all([Outgoing("", stream, properties, b"")])
        latest = time.time()
        told = await _stored_at(Log(stream, connection, publisher), earliest, latest)
    finally:
        await protocol.delete_queue(connection, stream)
    return [clock_difference(told, earliest, latest)]


async def _stored_at(log: Log, earliest: float, latest: float) -> float:
    """Return the time of the log's message by the server's clock.

    That is `earliest` if it lies between these times, give or take two seconds.
    """
    before, after = math.floor(earliest) - 1, math.ceil(latest) + 1
    if not await _has_since(log, before):
        return 1 + await _last_second(log, before, -1)
    if await _has_since(log, after):
        return await _last_second(log, after, 1)
    return earliest


async def _last_second(log: Log, begin: int, step: int) -> int:
    """Return the last second since which the log has its message, found from `begin` on."""
    there = begin
    while await _has_since(log, there) == (step > 0):
        begin, there, step = there, there + step, step * 2
    since, not_since = min(begin, there), max(begin, there)
    while not_since - since > 1:
        middle = (since + not_since) // 2
        if await _has_since(log, middle):
            since = middle
        else:
            not_since = middle
    return since


async def _has_since(log: Log, second: int) -> bool:
    """Whether the log has a message that was stored at `second` or later, besides markers."""
    async with aclosing(log.read(datetime.fromtimestamp(second, UTC))) as reading:
        async for found, _ in reading:
            if found:
                return True
    return False


async def _alarms(publisher: Publisher, scratch: TopicSpec | None) -> Sequence[Check]:
    if scratch is None:
        return [Check.unknown("alarms", "the server tells only a connection that publishes")]
    if publisher.obstacle is None:
        return [Check.ok("alarms", "the server accepts publishes")]
    fix = "free memory or disk on the server, or raise vm_memory_high_watermark or disk_free_limit"
    return [Check.failed("alarms", str(publisher.obstacle), fix=fix)]
