"""The exchanges and queues that topics and groups are, and how they come to be."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from anymq.driver import ConfigurationError, TopicSpec, new_id

from . import requests
from .link import Link, QueueDown

# Before 4.0 there was no limit; since then a message is dropped after 20 deliveries unless one is
# set. How often is for the retry middleware to say.
DELIVERY_LIMIT = 2**31 - 1
GROUP_ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
}
EVERYTHING = "#"
SINGLE = "x-single-active-consumer"
ALTERNATE = "alternate-exchange"
PARTITIONS = "anymq._partitions."
_DIFFERENT = re.compile(
    r"inequivalent arg '(.*?)' for .*: received .* but current is (?:none|(?:the value )?'(.*?)')",
    re.DOTALL,
)
T = TypeVar("T")
START_TIMEOUT, START_POLL = 5.0, 0.2
STAYS_DOWN = "if it stays so, see 'A queue that stays down' in docs/guarantees.md"
LONGEST_STREAM = 205
STREAMS = "anymq._streams"
SEAL = "anymq._seal."
SEGMENT = "x-stream-max-segment-size-bytes"
SEGMENTS, SMALLEST_SEGMENT, LARGEST_SEGMENT = 4, 65_536, 50_000_000


def escaped(name: str) -> str:
    """The name on the server of what anymq creates as `name`.

    The same, except that RabbitMQ keeps names that begin with `amq.` to itself. The escape cannot
    meet another name: those begin with a letter or digit.
    """
    return f"_{name}" if name.startswith("amq.") else name


def exchange_of(topic: TopicSpec) -> str:
    """The exchange of `topic`."""
    return escaped(topic.native) if topic.create else topic.native


def stream(name: str) -> str:
    # The name of a stream becomes that of a folder, together with its virtual host and a number.
    if len(name) <= LONGEST_STREAM:
        return name
    return f"{name[:150]}._{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def log_of(exchange: str) -> str:
    """The stream that keeps what was published to `exchange`."""
    return stream(escaped(f"{exchange}._log"))


def fill_of(queue: str) -> str:
    """The queue of the one job that fills the new group's `queue` from the log."""
    return f"{queue}._fill"


def seam_of(queue: str) -> str:
    """The exchange, and the stream behind it, that join the group's `queue` to the log."""
    return stream(f"{queue}._seam")


def retained(topic: TopicSpec, retention: float) -> dict[str, Any]:
    """The arguments of the log of a topic.

    The log drops whole segments, when the next one begins: the less it may keep, the smaller they
    are.
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


async def make_log(link: Link, exchange: str, arguments: dict[str, Any]) -> None:
    """Make the log of a topic, and bind it."""
    log = log_of(exchange)
    await ensure_queue(link, log, {"x-queue-type": "stream", **arguments})
    await bind(link, log, exchange)


async def log_arguments(link: Link, exchange: str) -> dict[str, Any]:
    """What the log of a topic was made with; nothing if it is not there."""
    log = log_of(exchange)
    return await adopt(link, log, {"x-queue-type": "stream"}) if await exists(link, log) else {}


async def delete_topic(link: Link, exchange: str) -> None:
    """Delete the exchange and its log."""
    async with link.scratch() as channel:
        await link.call(requests.delete_exchange(channel, exchange))
    await delete_queue(link, log_of(exchange))


async def partitions(link: Link, exchange: str, topic: TopicSpec) -> int:
    """Make the exchange, or find it; return its number of partitions.

    The number is in the name of its alternate exchange, which never is there nor needed, as the log
    takes everything. So the number belongs to the topic from the first moment on, the server itself
    sees to it that there is only one, and its refusal of another one tells whoever asks: no second
    thing has to be kept, read, or raced for. A topic of one partition has none.
    """
    wanted = topic.partitions or 1
    arguments = {ALTERNATE: f"{PARTITIONS}{wanted}"} if wanted > 1 else None
    try:
        async with link.scratch() as channel:
            await link.call(requests.declare_exchange(channel, exchange, "topic", arguments))
    except ChannelPreconditionFailed as error:
        found = _DIFFERENT.search(str(error))
        if found is None or found[1] != ALTERNATE:
            raise
        current = found[2] or ""
        count = int(current[len(PARTITIONS) :]) if current.startswith(PARTITIONS) else 1
        if topic.partitions is not None and topic.partitions != count:
            raise ConfigurationError(
                f"the topic {topic.name!r} has {count} partitions, not {topic.partitions}: "
                "the number is fixed when the topic is made"
            ) from error
        return count
    return wanted


async def seal(link: Link) -> None:
    """Return when a crash of the server cannot undo what it has confirmed about exchanges, queues
    and bindings.

    Mnesia, where RabbitMQ keeps those, has a change on disk when that is confirmed, but sometimes
    not yet the word that it is valid: that comes with the next change, or seconds later, and a
    node that is killed before forgets the change. So there is a next change.
    """
    name = SEAL + new_id()
    async with link.scratch() as channel:
        await link.call(requests.declare_exchange(channel, name, "fanout"))
        await link.call(requests.delete_exchange(channel, name))


async def settled(link: Link, seconds: float) -> None:
    """Return when the queues that have just been made can be relied on."""
    await seal(link)
    await asyncio.sleep(seconds)


async def ensure_streams(link: Link, settle: float) -> None:
    """Return when the server can be trusted with streams: what coordinates them is a queue of its
    kind, made with the first stream there ever is."""
    if not await exists(link, STREAMS):
        await ensure_queue(link, STREAMS, {"x-queue-type": "stream", "x-max-age": "1h"})
        await settled(link, settle)


async def ensure_queue(link: Link, name: str, arguments: dict[str, Any]) -> None:
    """Make a durable queue; one that is there with other arguments is taken as it is."""
    try:
        await _declare_queue(link, name, arguments)
    except ChannelPreconditionFailed as error:
        if "inequivalent arg" not in str(error):
            raise


async def _declare_queue(link: Link, name: str, arguments: dict[str, Any]) -> None:
    async def declare() -> None:
        async with link.scratch() as channel:
            await link.call(channel.queue_declare(name, durable=True, arguments=arguments))

    await when_up(declare)


async def adopt(link: Link, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Make a durable queue, or find it; return the arguments that it has.

    Of those that differ the server names one at a time, and what it is.
    """
    wanted = dict(arguments)
    for _ in range(len(arguments) + 3):
        try:
            await _declare_queue(link, name, wanted)
        except ChannelPreconditionFailed as error:
            found = _DIFFERENT.search(str(error))
            if found is None:
                raise
            wanted.pop(found[1], None)
            if found[1] in ("durable", "auto_delete", "exclusive"):
                return {**wanted, "durable": False}
            if found[2] is not None:
                wanted[found[1]] = _typed(found[2])
        else:
            return wanted
    return wanted


def _typed(text: str) -> str | int | bool:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdecimal() else text


async def bind(link: Link, queue: str, exchange: str, pattern: str = EVERYTHING) -> None:
    """Let `queue` have what is published to `exchange` with a routing key like `pattern`."""
    async with link.scratch() as channel:
        await link.call(requests.bind_queue(channel, queue, exchange, pattern))


async def declare_seam(
    link: Link, seam: str, live: Mapping[str, str], arguments: dict[str, Any]
) -> None:
    """Make the exchange that leads both to the queues and to a stream of its own name."""
    await ensure_queue(link, seam, arguments)
    async with link.scratch() as channel:
        await link.call(requests.declare_exchange(channel, seam, "topic"))
        await link.call(requests.bind_queue(channel, seam, seam, EVERYTHING))
        for queue, pattern in live.items():
            await link.call(requests.bind_queue(channel, queue, seam, pattern))


async def bind_seam(link: Link, seam: str, exchange: str) -> None:
    """Let both have what is published to `exchange`."""
    async with link.scratch() as channel:
        await link.call(requests.bind_exchange(channel, seam, exchange, EVERYTHING))


async def delete_seam(link: Link, seam: str) -> None:
    """Delete the exchange and the stream; fine if they are not there."""
    async with link.scratch() as channel:
        await link.call(requests.delete_exchange(channel, seam))
        await link.call(channel.queue_delete(seam))


async def exists(link: Link, queue: str) -> bool:
    """Whether there is a queue of this name."""
    try:
        await require(link, queue)
    except ChannelNotFoundEntity:
        return False
    return True


async def counts(link: Link, queue: str) -> tuple[int, int]:
    """How many messages are ready in the queue, and how many consumers it has."""
    async with link.scratch() as channel:
        answer = await link.call(channel.queue_declare(queue, passive=True))
    return answer.message_count or 0, answer.consumer_count or 0


async def require(link: Link, queue: str) -> None:
    """Raise the server's error unless there is a queue of this name."""
    await when_up(lambda: look(link, queue))


async def look(link: Link, queue: str) -> None:
    """As `require`, and raise `QueueDown` if the queue is not up."""
    async with link.scratch() as channel:
        await link.call(channel.queue_declare(queue, passive=True))


async def require_exchange(link: Link, exchange: str) -> None:
    """Raise the server's error unless there is an exchange of this name."""
    async with link.scratch() as channel:
        await link.call(requests.find_exchange(channel, exchange))


async def exchange_exists(link: Link, exchange: str) -> bool:
    """Whether there is an exchange of this name."""
    try:
        await require_exchange(link, exchange)
    except ChannelNotFoundEntity:
        return False
    return True


async def delete_queue(link: Link, queue: str) -> None:
    """Delete the queue; fine if it is not there."""
    async with link.scratch() as channel:
        await link.call(channel.queue_delete(queue))


async def when_up(request: Callable[[], Awaitable[T]]) -> T:
    """Return what `request` does, repeated while the queue that it is about is not up."""
    # A server that has just started answers before its streams are up. Whoever only comes then
    # shall not be told that there is an error.
    loop = asyncio.get_running_loop()
    until = loop.time() + START_TIMEOUT
    while True:
        try:
            return await request()
        except QueueDown as error:
            if loop.time() > until:
                raise QueueDown(f"{error} ({STAYS_DOWN})") from error
            await asyncio.sleep(START_POLL)
