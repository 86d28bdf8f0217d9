"""`RedisDriver`: the driver for one Redis server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from anymq.driver import (
    URL,
    Binding,
    Check,
    Clock,
    Driver,
    Endpoint,
    GroupInfo,
    LeasedSource,
    Listener,
    Outcome,
    Reader,
    Received,
    Record,
    Start,
    SubscribeSpec,
    TopicInfo,
    TopicSpec,
    logger,
)

from . import admin, checks
from .broadcast import BroadcastReader, start_cursors
from .capabilities import CAPABILITIES
from .client.compat import PUBLIC_PARTS
from .connection import Commands, Connector, ReadConnection
from .delays import group_mover, topic_mover
from .errors import ERRORS
from .options import RedisOptions, endpoint
from .ordered import RedisLog, StreamReader
from .positions import browse, start_ids
from .publisher import Publisher
from .scripts.keys import GroupKeys, group_keys
from .scripts.maintenance import (
    Maintenance,
    MaintenanceTask,
    heartbeat_task,
    sweep_task,
    trim_task,
)
from .scripts.member import Member
from .source import GroupSource, Settlement
from .topology import (
    RedisTopic,
    check_server,
    create_groups,
    create_ordered,
    find_existing,
    find_topic,
    stream_infos,
)

log = logger("anymq.redis")


class RedisDriver(Driver):
    """A pool of connections for commands, and one more for the blocking reads of each source."""

    capabilities = CAPABILITIES
    errors = ERRORS
    binding = Binding(prefix="ce-", content_type="content-type")
    options = RedisOptions
    name_option = "client_name"
    # A value may have 512 MiB, and a delayed copy is one value with all of its headers.
    max_body: ClassVar[float] = 500 * 1024 * 1024
    tls_schemes = frozenset({"rediss"})
    client_parts = PUBLIC_PARTS
    client_loggers = ("redis",)
    grants = checks.GRANTS

    def __init__(
        self, connector: Connector, commands: Commands, options: RedisOptions, clock: Clock
    ) -> None:
        self.clock = clock
        self._connector = connector
        self._commands = commands
        self._options = options
        self._maintenance = Maintenance(commands)
        self._publisher = Publisher(
            commands, window=options.dedupe, now=clock.now, on_delay=self._on_delay
        )
        self._topics: dict[str, RedisTopic] = {}
        self._maintained: dict[str, tuple[MaintenanceTask, MaintenanceTask]] = {}

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        async with asyncio.timeout(timeout):
            try:
                return await cls._open(url, options, clock)
            except NoPermissionError as error:
                if options.client_name is None or "client" not in str(error):
                    raise
                log.debug("%s: this user may not name its connections: %s", url, error)
                return await cls._open(url, replace(options, client_name=None), clock)

    @classmethod
    async def _open(cls, url: URL, options: Any, clock: Clock) -> Self:
        connector = Connector(url, options)
        commands = Commands(connector)
        try:
            await check_server(commands, where=str(url))
        except BaseException:
            await commands.aclose()
            raise
        return cls(connector, commands, options, clock)

    @property
    def native(self) -> Redis:
        """redis-py's asynchronous client, with a pool of its own."""
        return self._commands.native

    async def ping(self) -> None:
        await self._commands.call(b"PING")

    async def declare(self, topic: TopicSpec) -> None:
        known = await find_topic(self._commands, topic, create=topic.create)
        self._topics[topic.name] = known
        _, trim = self._maintain(known)
        self._maintenance.run_within(trim, 0.0)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        return await self._publisher.publish(records, self._topic)

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        topic = await find_topic(self._commands, spec.topic, create=spec.topic.create)
        starts = start_ids(spec.start, topic.partitions)
        if spec.group is None:
            source: Reader = await self._broadcast(spec, topic, listener)
        elif spec.ordered:
            source = await self._ordered(spec, topic, listener)
        else:
            source = await self._group(spec, topic, starts)
        self._maintain(topic)
        return source

    @classmethod
    def endpoints(cls, url: URL, options: RedisOptions) -> Sequence[Endpoint]:
        return [endpoint(url, options)]

    def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        return checks.checks(self._commands)

    def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        return browse(self._commands, topic, start)

    async def topics(self) -> Sequence[str]:
        return await admin.list_topics(self._commands)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        stored = await admin.list_groups(self._commands, await self._existing(topic))
        return [*stored, *(f"{topic.name}.{name}" for name in stored)]  # Both mean the same group.

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        return await admin.describe_topic(
            self._commands, await self._existing(topic), self._options
        )

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        keys = _group_keys(topic, native_group)
        return await admin.describe_group(self._commands, await self._existing(topic), keys)

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        keys = _group_keys(topic, native_group)
        await admin.seek(self._commands, await self._existing(topic), keys, to)

    async def delete_topic(self, topic: TopicSpec) -> None:
        await admin.delete_topic(self._commands, await self._with_any_partitions(topic))
        self._topics.pop(topic.name, None)
        await self._maintenance.stop(*self._maintained.pop(topic.native, ()))

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        keys = _group_keys(topic, native_group)
        await admin.delete_group(self._commands, await self._with_any_partitions(topic), keys)

    async def purge(self, topic: TopicSpec) -> None:
        await admin.purge(self._commands, await self._existing(topic))

    async def aclose(self) -> None:
        await self._maintenance.aclose()
        await self._commands.aclose()

    async def _broadcast(
        self, spec: SubscribeSpec, topic: RedisTopic, listener: Listener
    ) -> BroadcastReader:
        cursors = start_cursors(spec, await stream_infos(self._commands, topic.keys.streams))
        reader = ReadConnection(self._connector)
        return BroadcastReader(self._commands, reader, topic, spec, cursors, listener)

    async def _group(
        self, spec: SubscribeSpec, topic: RedisTopic, starts: Sequence[bytes]
    ) -> GroupSource:
        keys = _group_keys(spec.topic, spec.native_group)
        await create_groups(self._commands, spec, topic, keys, starts)
        member = Member(self._commands, spec, topic, keys)
        mover = group_mover(keys)
        heartbeat = await self._first_heartbeat(heartbeat_task(keys, spec, member.held_for))
        on_delay = partial(self._maintenance.run_within, mover)
        return GroupSource(
            member,
            ReadConnection(self._connector),
            settlement=Settlement(member, on_delay, self._topic),
            maintenance=self._maintenance,
            tasks=[mover, sweep_task(topic, keys), heartbeat],
        )

    async def _ordered(
        self, spec: SubscribeSpec, topic: RedisTopic, listener: Listener
    ) -> LeasedSource:
        keys = _group_keys(spec.topic, spec.native_group)
        await create_ordered(self._commands, spec, topic, keys)
        heartbeat = await self._first_heartbeat(heartbeat_task(keys, spec))

        async def leave() -> None:
            await self._maintenance.stop(heartbeat)
            await self._commands.call(b"HDEL", keys.members, spec.member.encode())

        reader = StreamReader(ReadConnection(self._connector), topic)
        log = RedisLog(self._commands, topic, keys, reader=reader, leave=leave)
        source = LeasedSource(log, spec, listener, self.clock)
        self._maintenance.add(heartbeat)
        await source.start()
        return source

    async def _first_heartbeat(self, task: MaintenanceTask) -> MaintenanceTask:
        """Report the member's presence, so that the group cannot be deleted from now on."""
        (reply,) = await self._commands.evals([task.call()])
        task.due = math.inf
        task.completed(reply)
        return task

    def _topic(self, name: str) -> RedisTopic:
        known = self._topics.get(name)
        if known is None:
            known = self._topics[name] = RedisTopic(TopicSpec(name=name, native=name))
        return known

    async def _existing(self, spec: TopicSpec) -> RedisTopic:
        """Return the topic as it is; raises `NotFound` if it does not exist."""
        return await find_existing(self._commands, spec)

    async def _with_any_partitions(self, spec: TopicSpec) -> RedisTopic:
        """Return the topic, with whatever number of partitions it has."""
        return await find_topic(self._commands, replace(spec, partitions=None), create=False)

    def _maintain(self, topic: RedisTopic) -> tuple[MaintenanceTask, ...]:
        """Run the topic's delay mover and its trimming from now on; return the two tasks."""
        native = topic.spec.native
        tasks = topic_mover(topic.keys), trim_task(topic, self._options)
        running = self._maintained.get(native, ())
        if not running or running[0].keys != tasks[0].keys:
            self._maintenance.discard(*running)
            self._maintenance.add(*tasks)
            running = self._maintained[native] = tasks
        return running

    def _on_delay(self, topic: RedisTopic, delay: float) -> None:
        mover, _ = self._maintain(topic)
        self._maintenance.run_within(mover, delay)


def _group_keys(topic: TopicSpec, native_group: str) -> GroupKeys:
    return group_keys(topic.name, topic.native, native_group)
