"""`Topics`: finds and makes the exchanges, logs and groups of topics."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aiormq.exceptions import AMQPError, ChannelAccessRefused, ChannelPreconditionFailed

from anymq.driver import (
    BrokerError,
    ConfigurationError,
    NotFound,
    Record,
    StateError,
    TopicSpec,
    UnsupportedOperation,
    logger,
    partition_of,
)

from . import messages
from .client import protocol
from .connection import Connection
from .groups.catalog import Catalog
from .groups.group import Group
from .groups.schema import (
    EVERYTHING,
    SINGLE_ACTIVE,
    escaped,
    exchange_of,
    log_arguments,
    log_of,
)
from .options import RabbitMQOptions

log = logger("anymq.rabbitmq")

ALTERNATE = "alternate-exchange"
PARTITIONS = "anymq._partitions."
"""The prefix of the alternate exchange whose name says how many partitions a topic has."""
FIRST_STREAM = "anymq._streams"
"""An empty stream, made before all others."""


class Topics:
    """The topics that one driver has declared, by name, with what it knows of their exchanges."""

    def __init__(self, connection: Connection, catalog: Catalog, options: RabbitMQOptions) -> None:
        self._connection = connection
        self._catalog = catalog
        self._options = options
        self._specs: dict[str, TopicSpec] = {}
        self._logs: dict[str, str] = {}
        """By exchange, of the topics that anymq makes."""
        self._partitions: dict[str, int] = {}
        """By exchange."""
        self._queues: set[str] = set()
        """Native names of topics that are an operator's queue, and no exchange."""
        self._next_partition = itertools.count()
        self._has_streams = False
        self._half_made: set[str] = set()
        """Exchanges of topics whose log, and bindings of groups, are not all made."""

    async def declare(self, topic: TopicSpec) -> None:
        """Make or find the topic, and remember it."""
        exchange = exchange_of(topic)
        if topic.create:
            await self.create(topic)
            self._logs[exchange] = log_of(exchange)
        else:
            self._partitions[exchange] = topic.partitions or 1
            await self._find_queue(topic.native)
        self._specs[topic.name] = topic

    async def create(self, topic: TopicSpec) -> None:
        """Make the exchange and the log, and bind groups that an earlier exchange has left."""
        connection = self._connection
        if not self._has_streams:
            await _ensure_streams(connection, self._options.settle_time)
            self._has_streams = True
        exchange = exchange_of(topic)
        is_new = not await protocol.exchange_exists(connection, exchange)
        groups: list[Group] = []
        if is_new or exchange in self._half_made:
            self._half_made.add(exchange)
            await self._catalog.add_topic(topic.native)
            if await protocol.queue_exists(connection, log_of(exchange)):
                groups = await self._unbound_groups(topic)
                count = max([group.partitions or 1 for group in groups], default=None)
                topic = replace(topic, partitions=topic.partitions or count)
        self._partitions[exchange] = await _ensure_exchange(connection, exchange, topic)
        # Before the log: an unroutable message is returned, one that reaches the log alone is not.
        for group in groups:
            await group.bind(connection)
        await make_log(connection, exchange, log_arguments(topic, self._options.retention))
        if exchange in self._half_made:
            await protocol.fsync_metadata(connection)
            self._half_made.discard(exchange)

    def spec(self, name: str) -> TopicSpec:
        """Return the declared topic `name`."""
        try:
            return self._specs[name]
        except KeyError:
            raise StateError(f"the topic {name!r} has not been declared") from None

    @property
    def has_queues(self) -> bool:
        """Whether any topic is an operator's queue."""
        return bool(self._queues)

    def is_queue(self, topic: TopicSpec) -> bool:
        """Whether the topic is an operator's queue, and no exchange."""
        return topic.native in self._queues

    def route(self, record: Record) -> tuple[str, str]:
        """Return the exchange and routing key of a record."""
        topic = self._specs.get(record.topic) or self.spec(record.topic)
        if not topic.create and topic.native in self._queues:
            return "", topic.native
        exchange = exchange_of(topic)
        count = self._partitions[exchange]
        partition = None
        if count > 1:
            key = record.key
            partition = (
                next(self._next_partition) % count if key is None else partition_of(key, count)
            )
        return exchange, messages.routing_key(record, partition)

    def log_of(self, exchange: str) -> str | None:
        """Return the log of a topic that anymq makes; None for an operator's exchange."""
        return self._logs.get(exchange)

    async def check_ready(self, exchange: str) -> None:
        """Raise while the log of a topic is not up, or while an operator's exchange is absent.

        A server that has just started confirms a message that is in the groups' queues alone,
        without its log. A publish to an absent exchange closes the channel, with all unconfirmed
        messages on it.
        """
        if stream := self._logs.get(exchange):
            await protocol.inspect_queue(self._connection, stream)
        elif exchange in self._partitions:
            await protocol.require_exchange(self._connection, exchange)

    async def find(self, topic: TopicSpec) -> int:
        """Return the number of partitions. Raises the server's error if the topic is absent."""
        exchange = exchange_of(topic)
        await protocol.require_exchange(self._connection, exchange)
        if exchange not in self._partitions:
            count = topic.partitions or 1
            if topic.create:
                count = await _ensure_exchange(self._connection, exchange, topic)
            self._partitions[exchange] = count
        return self._partitions[exchange]

    def forget(self, topic: TopicSpec) -> None:
        """Forget the partitions of a deleted topic."""
        self._partitions.pop(exchange_of(topic), None)

    def group(self, topic: TopicSpec, native: str, *, ordered: bool, create: bool = True) -> Group:
        """Return the group `native` of the topic; `create` is False for an operator's queue."""
        exchange = exchange_of(topic)
        queue = escaped(native) if create else native
        return Group(exchange, queue, self._partitions[exchange] if ordered else None)

    async def find_group(self, topic: TopicSpec, native: str) -> Group:
        """Return the group as it is on the server. Raises `NotFound` if it is absent."""
        await self.find(topic)
        group = self.group(topic, native, ordered=False, create=topic.create)
        if not await protocol.queue_exists(self._connection, group.queue):
            raise NotFound(f"the topic {topic.name!r} has no group {native!r}")
        if not topic.create:
            return group
        found = await protocol.adopt_queue(self._connection, group.queue, group.arguments())
        return self.group(topic, native, ordered=bool(found.get(SINGLE_ACTIVE)))

    async def find_groups(self, topic: TopicSpec) -> list[Group]:
        """Return the groups of the topic that anymq made."""
        return [await self.find_group(topic, native) for native in await self.group_names(topic)]

    async def group_names(self, topic: TopicSpec) -> list[str]:
        """Return the native names of the groups of the topic that anymq made."""
        entries = await self._catalog.read()
        return await protocol.existing(entries.groups.get(topic.native, ()), self._require_group)

    async def rebind_groups(self, topic: TopicSpec) -> None:
        """Bind the groups of a topic whose messages reach no queue.

        Another program has deleted and made its exchange, without any binding.
        """
        if not topic.create:
            return
        exchange = exchange_of(topic)
        try:
            if not await protocol.exchange_exists(self._connection, exchange):
                return  # `create` makes it, and binds the groups.
            for group in await self._unbound_groups(topic):
                await group.bind(self._connection)
        except (AMQPError, BrokerError) as error:
            log.debug("binding the groups of %s failed: %s", topic.name, error)

    async def _require_group(self, native: str) -> None:
        await protocol.require_queue(self._connection, escaped(native))

    async def _find_queue(self, native: str) -> None:
        """Find out whether an operator's topic is a queue."""
        self._queues.discard(native)
        if not await protocol.exchange_exists(self._connection, native):
            with suppress(ChannelAccessRefused):
                if await protocol.queue_exists(self._connection, native):
                    self._queues.add(native)

    async def _unbound_groups(self, topic: TopicSpec) -> list[Group]:
        """Return the groups of a topic whose exchange was deleted, and their bindings with it."""
        exchange = exchange_of(topic)
        found: list[Group] = []
        for native in await self.group_names(topic):
            group = Group(exchange, escaped(native))
            arguments = await protocol.adopt_queue(self._connection, group.queue, group.arguments())
            if arguments.get(SINGLE_ACTIVE):
                group = await self._with_partitions(group)
            found.append(group)
        log.warning(
            "exchange %s was deleted: its %d groups are bound to a new one", exchange, len(found)
        )
        return found

    async def _with_partitions(self, group: Group) -> Group:
        count = 1
        while await protocol.queue_exists(self._connection, group.partition(count)):
            count += 1
        return replace(group, partitions=count)


async def make_log(connection: Connection, exchange: str, arguments: dict[str, Any]) -> None:
    """Make the log of a topic, and bind it."""
    stream = log_of(exchange)
    await protocol.ensure_queue(connection, stream, {"x-queue-type": "stream", **arguments})
    await protocol.bind(connection, stream, exchange, EVERYTHING)


async def find_log_arguments(connection: Connection, exchange: str) -> dict[str, Any]:
    """Return the arguments that the log of a topic was made with; none if it is absent."""
    stream = log_of(exchange)
    if not await protocol.queue_exists(connection, stream):
        return {}
    return await protocol.adopt_queue(connection, stream, {"x-queue-type": "stream"})


async def delete_exchange(connection: Connection, exchange: str) -> None:
    """Delete the exchange of a topic, and its log."""
    async with connection.request_channel() as channel:
        await connection.call(protocol.delete_exchange(channel, exchange))
    await protocol.delete_queue(connection, log_of(exchange))


def no_log(topic: TopicSpec, log: str, purpose: str) -> UnsupportedOperation:
    """Return the error for an absent log, without which `purpose` is not possible."""
    return UnsupportedOperation(
        f"{purpose} needs the log of {topic.name!r}, the stream {log!r}: anymq makes and binds "
        "it with the topics it creates; for others, create it and bind it with '#'"
    )


async def _ensure_streams(connection: Connection, settle_time: float) -> None:
    """Return when streams on the server can be relied on.

    The server's coordinator of streams is a Raft group like a quorum queue, and is made together
    with the first stream.
    """
    if not await protocol.queue_exists(connection, FIRST_STREAM):
        await protocol.ensure_queue(
            connection, FIRST_STREAM, {"x-queue-type": "stream", "x-max-age": "1h"}
        )
        await protocol.wait_until_durable(connection, settle_time)


async def _ensure_exchange(connection: Connection, exchange: str, topic: TopicSpec) -> int:
    """Make the exchange of `topic`, or find it; return its number of partitions.

    The number is in the name of the alternate exchange, which is neither made nor needed, because
    the log takes every message. So the number belongs to the topic from the first moment on. The
    server guarantees that there is only one: it refuses a declaration with another, and names the
    present one. No second thing has to be stored, read, or raced for. A topic of one partition has
    no alternate exchange.
    """
    wanted = topic.partitions or 1
    arguments = {ALTERNATE: f"{PARTITIONS}{wanted}"} if wanted > 1 else None
    try:
        async with connection.request_channel() as channel:
            await connection.call(protocol.declare_exchange(channel, exchange, "topic", arguments))
    except ChannelPreconditionFailed as error:
        found = protocol.DIFFERENT_ARGUMENT.search(str(error))
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
