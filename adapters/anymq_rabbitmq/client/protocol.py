"""Requests to the server: declare, bind, inspect and delete exchanges and queues, durably."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from aiormq import Channel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp import commands

from anymq.driver import new_id

from ..connection import Connection, QueueDown

T = TypeVar("T")
Reply = Coroutine[Any, Any, Any]

DIFFERENT_ARGUMENT = re.compile(
    r"inequivalent arg '(.*?)' for .*: received .* but current is (?:none|(?:the value )?'(.*?)')",
    re.DOTALL,
)
"""The server's refusal of a declaration: the name of one argument that differs, and its value."""
QUEUE_START_TIMEOUT, QUEUE_START_POLL = 5.0, 0.2
"""Seconds that a queue is given to start after a restart of the server, and between two looks."""
STAYS_DOWN = "if it stays so, see 'A queue that stays down' in docs/guarantees.md"
CONCURRENT_REQUESTS = 8
"""Requests of one listing that run at a time."""
FSYNC_EXCHANGE = "anymq._seal."
"""The prefix of the exchanges that `fsync_metadata` makes and deletes."""


# The client library's own requests refuse an exchange's name over 127 characters; the server's
# limit is 255 bytes.


class _Declare(commands.Exchange.Declare):
    def validate(self) -> None:
        """Leave the check to the server."""


class _Delete(commands.Exchange.Delete):
    def validate(self) -> None:
        """Leave the check to the server."""


class _Bind(commands.Exchange.Bind):
    def validate(self) -> None:
        """Leave the check to the server."""


class _QueueBind(commands.Queue.Bind):
    def validate(self) -> None:
        """Leave the check to the server."""


def declare_exchange(
    channel: Channel, name: str, kind: str, arguments: dict[str, Any] | None = None
) -> Reply:
    """Make a durable exchange."""
    request = _Declare(exchange=name, exchange_type=kind, durable=True, arguments=arguments)
    return channel.rpc(request)


def find_exchange(channel: Channel, name: str) -> Reply:
    """Raise `ChannelNotFoundEntity` unless the exchange exists."""
    return channel.rpc(_Declare(exchange=name, passive=True))


def delete_exchange(channel: Channel, name: str) -> Reply:
    """Delete an exchange; no error if absent."""
    return channel.rpc(_Delete(exchange=name))


def bind_exchange(channel: Channel, to: str, source: str, key: str) -> Reply:
    """Route messages of the exchange `source` with a matching routing key to the exchange `to`."""
    return channel.rpc(_Bind(destination=to, source=source, routing_key=key))


def bind_queue(channel: Channel, queue: str, exchange: str, key: str = "") -> Reply:
    """Route messages of `exchange` with a matching routing key to `queue`."""
    return channel.rpc(_QueueBind(queue=queue, exchange=exchange, routing_key=key))


async def fsync_metadata(connection: Connection) -> None:
    """Return when a crash cannot undo confirmed changes of exchanges, queues and bindings.

    RabbitMQ keeps them in Mnesia, which has a confirmed change on disk, but sometimes not yet the
    commit that makes it valid: that is written with the next change, or seconds later. A node that
    is killed before forgets the change. So this makes a next change.
    """
    name = FSYNC_EXCHANGE + new_id()
    async with connection.request_channel() as channel:
        await connection.call(declare_exchange(channel, name, "fanout"))
        await connection.call(delete_exchange(channel, name))


async def wait_until_durable(connection: Connection, settle_time: float) -> None:
    """Return when queues that have just been made can be relied on, see `settle_time`."""
    await fsync_metadata(connection)
    await asyncio.sleep(settle_time)


async def ensure_queue(connection: Connection, name: str, arguments: dict[str, Any]) -> None:
    """Make a durable queue; an existing one is used even if its arguments differ."""
    try:
        await _declare_queue(connection, name, arguments)
    except ChannelPreconditionFailed as error:
        if "inequivalent arg" not in str(error):
            raise


async def adopt_queue(
    connection: Connection, name: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Make a durable queue, or find it; return the arguments that it has.

    The server names one differing argument at a time, with its value, so this asks repeatedly.
    """
    wanted = dict(arguments)
    for _ in range(len(arguments) + 3):
        try:
            await _declare_queue(connection, name, wanted)
        except ChannelPreconditionFailed as error:
            found = DIFFERENT_ARGUMENT.search(str(error))
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


async def _declare_queue(connection: Connection, name: str, arguments: dict[str, Any]) -> None:
    async def declare() -> None:
        async with connection.request_channel() as channel:
            await connection.call(channel.queue_declare(name, durable=True, arguments=arguments))

    await when_up(declare)


def _typed(text: str) -> str | int | bool:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdecimal() else text


async def bind(connection: Connection, queue: str, exchange: str, pattern: str) -> None:
    """Route messages of `exchange` with a routing key that matches `pattern` to `queue`."""
    async with connection.request_channel() as channel:
        await connection.call(bind_queue(channel, queue, exchange, pattern))


async def queue_exists(connection: Connection, queue: str) -> bool:
    """Whether the queue exists."""
    try:
        await require_queue(connection, queue)
    except ChannelNotFoundEntity:
        return False
    return True


async def queue_counts(connection: Connection, queue: str) -> tuple[int, int]:
    """Return how many messages are ready in the queue, and how many consumers it has."""
    async with connection.request_channel() as channel:
        answer = await connection.call(channel.queue_declare(queue, passive=True))
    return answer.message_count or 0, answer.consumer_count or 0


async def require_queue(connection: Connection, queue: str) -> None:
    """Raise the server's error unless the queue exists; wait for one that is starting."""
    await when_up(lambda: inspect_queue(connection, queue))


async def inspect_queue(connection: Connection, queue: str) -> None:
    """Raise the server's error unless the queue exists, and `QueueDown` if it is not up."""
    async with connection.request_channel() as channel:
        await connection.call(channel.queue_declare(queue, passive=True))


async def require_exchange(connection: Connection, exchange: str) -> None:
    """Raise the server's error unless the exchange exists."""
    async with connection.request_channel() as channel:
        await connection.call(find_exchange(channel, exchange))


async def exchange_exists(connection: Connection, exchange: str) -> bool:
    """Whether the exchange exists."""
    try:
        await require_exchange(connection, exchange)
    except ChannelNotFoundEntity:
        return False
    return True


async def existing(names: Iterable[str], require: Callable[[str], Awaitable[None]]) -> list[str]:
    """Return those of `names` that exist, sorted.

    `require` raises `ChannelNotFoundEntity` for one that does not.
    """
    slots = asyncio.Semaphore(CONCURRENT_REQUESTS)

    async def exists(name: str) -> bool:
        async with slots:
            try:
                await require(name)
            except ChannelNotFoundEntity:
                return False
            return True

    candidates = sorted(names)
    found = await asyncio.gather(*map(exists, candidates))
    return [name for name, there in zip(candidates, found, strict=True) if there]


async def delete_queue(connection: Connection, queue: str) -> None:
    """Delete the queue; no error if absent."""
    async with connection.request_channel() as channel:
        await connection.call(channel.queue_delete(queue))


async def when_up(request: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `request`, repeated while the queue that it is about is starting.

    A server that has just started answers before its streams are up. A caller that comes in these
    seconds gets its answer late instead of an error.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + QUEUE_START_TIMEOUT
    while True:
        try:
            return await request()
        except QueueDown as error:
            if loop.time() > until:
                raise QueueDown(f"{error} ({STAYS_DOWN})") from error
            await asyncio.sleep(QUEUE_START_POLL)
