"""`RedisDriver`: one Redis server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

from redis.asyncio import Redis

from anymq.driver import (
    URL,
    Binding,
    Clock,
    Driver,
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
)

from . import operations
from .admin import describe_group, describe_topic
from .broadcast import BroadcastSource, begin
from .capabilities import CAPABILITIES
from .client.transport import CLIENT_PARTS
from .connection import Address, Commands, ReadConnection
from .counting import inform
from .delays import group_mover, topic_mover
from .errors import ERRORS
from .janitor import attending, sweeping, trimming
from .options import RedisOptions
from .ordered import RedisLog, StreamReader
from .positions import beginning
from .publisher import Publisher
from .scripts.keys import group_keys
from .scripts.maintenance import Chore, Upkeep
from .scripts.member import Member
from .settlement import Settlement
from .source import GroupSource
from .topology import RedisTopic, check_server, create_groups, create_ordered, look


class RedisDriver(Driver):
    """A pool for commands, and for every source a connection of its own to block on."""

    capabilities = CAPABILITIES
    errors = ERRORS
    binding = Binding(prefix="ce-", content_type="content-type")
    options = RedisOptions
    # A value may have 512 MiB; a copy that waits is one value with all of its headers.
    max_body: ClassVar[float] = 500 * 1024 * 1024
    tls_schemes = frozenset({"rediss"})
    client_parts = CLIENT_PARTS
    client_loggers = ("redis",)

    def __init__(
        self, address: Address, commands: Commands, options: RedisOptions, clock: Clock
    ) -> None:
        self.clock = clock
        self._address = address
        self._commands = commands
        self._options = options
        self._upkeep = Upkeep(commands)
        self._publisher = Publisher(
            commands, window=options.dedupe, now=clock.now, expect=self._expect
        )
        self._topics: dict[str, RedisTopic] = {}
        self._tended: dict[str, tuple[Chore, Chore]] = {}

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        address = Address(url, options)
        commands = Commands(address)
        try:
            async with asyncio.timeout(timeout):
                await check_server(commands, where=str(url))
        except BaseException:
            await commands.aclose()
            raise
        return cls(address, commands, options, clock)

    @property
    def native(self) -> Redis:
        """redis-py's asynchronous client, on the driver's own pool."""
        return self._commands.native

    async def ping(self) -> None:
        await self._commands.call(b"PING")

    async def declare(self, topic: TopicSpec) -> None:
        known = await look(self._commands, topic, create=topic.create)
        self._topics[topic.name] = known
        _, trimmer = self._tend(known)
        self._upkeep.hurry(trimmer, 0.0)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        return await self._publisher.publish(records, self._topic)

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        topic = await look(self._commands, spec.topic, create=spec.topic.create)
        starts = beginning(spec.start, topic.partitions)
        if spec.group is None:
            source: Reader = await self._broadcast(spec, topic, listener)
        elif spec.ordered:
            source = await self._ordered(spec, topic, listener)
        else:
            source = await self._group(spec, topic, starts)
        self._tend(topic)
        return source

    def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        return operations.browse(self._commands, topic, start)

    async def topics(self) -> Sequence[str]:
        return await operations.topics(self._commands)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        return await operations.groups(self._commands, await self._existing(topic))

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        return await describe_topic(self._commands, await self._existing(topic), self._options)

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        keys = group_keys(topic.name, topic.native, native_group)
        return await describe_group(self._commands, await self._existing(topic), keys)

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        keys = group_keys(topic.name, topic.native, native_group)
        await operations.seek(self._commands, await self._existing(topic), keys, to)

    async def delete_topic(self, topic: TopicSpec) -> None:
        await operations.delete_topic(self._commands, await self._whatever(topic))
        self._topics.pop(topic.name, None)
        await self._upkeep.drop(*self._tended.pop(topic.native, ()))

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        keys = group_keys(topic.name, topic.native, native_group)
        await operations.delete_group(self._commands, await self._whatever(topic), keys)

    async def purge(self, topic: TopicSpec) -> None:
        await operations.purge(self._commands, await self._existing(topic))

    async def aclose(self) -> None:
        await self._upkeep.aclose()
        await self._commands.aclose()

    async def _broadcast(
        self, spec: SubscribeSpec, topic: RedisTopic, listener: Listener
    ) -> BroadcastSource:
        marks = begin(spec, await inform(self._commands, topic.keys.streams))
        return BroadcastSource(
            self._commands,
            ReadConnection(self._address),
            topic,
            spec,
            marks,
            listener,
        )

    async def _group(
        self, spec: SubscribeSpec, topic: RedisTopic, starts: Sequence[bytes]
    ) -> GroupSource:
        keys = group_keys(spec.topic.name, spec.topic.native, spec.native_group)
        await create_groups(self._commands, spec, topic, keys, starts)
        member = Member(self._commands, spec, topic, keys)
        mover = group_mover(keys)
        attend = await self._attend(attending(keys, spec, member.held_for))
        return GroupSource(
            member,
            ReadConnection(self._address),
            settlement=Settlement(member, partial(self._upkeep.hurry, mover), self._topic),
            upkeep=self._upkeep,
            chores=[mover, sweeping(topic, keys), attend],
        )

    async def _ordered(
        self, spec: SubscribeSpec, topic: RedisTopic, listener: Listener
    ) -> LeasedSource:
        keys = group_keys(spec.topic.name, spec.topic.native, spec.native_group)
        await create_ordered(self._commands, spec, topic, keys)
        chore = await self._attend(attending(keys, spec))

        async def leave() -> None:
            await self._upkeep.drop(chore)
            await self._commands.call(b"HDEL", keys.members, spec.member.encode())

        reader = StreamReader(ReadConnection(self._address), topic)
        log = RedisLog(self._commands, topic, keys, reader=reader, leave=leave)
        source = LeasedSource(log, spec, listener, self.clock)
        self._upkeep.add(chore)
        await source.start()
        return source

    async def _attend(self, chore: Chore) -> Chore:
        """Whoever deletes the group from now on is told that it has members."""
        (reply,) = await self._commands.evals([chore.call()])
        chore.due = math.inf
        chore.done(reply)
        return chore

    def _topic(self, name: str) -> RedisTopic:
        known = self._topics.get(name)
        if known is None:
            known = self._topics[name] = RedisTopic(TopicSpec(name=name, native=name))
        return known

    async def _existing(self, spec: TopicSpec) -> RedisTopic:
        """Return the topic as it is; raises `NotFound` if there is none."""
        return await operations.existing(self._commands, spec)

    async def _whatever(self, spec: TopicSpec) -> RedisTopic:
        """Return the topic, with as many partitions as there are."""
        return await look(self._commands, replace(spec, partitions=None), create=False)

    def _tend(self, topic: RedisTopic) -> tuple[Chore, ...]:
        """Move what is delayed in the topic and trim it, from now on and for good."""
        native = topic.spec.native
        chores = topic_mover(topic.keys), trimming(topic, self._options)
        tended = self._tended.get(native, ())
        if not tended or tended[0].keys != chores[0].keys:
            self._upkeep.discard(*tended)
            self._upkeep.add(*chores)
            tended = self._tended[native] = chores
        return tended

    def _expect(self, topic: RedisTopic, delay: float) -> None:
        self._upkeep.hurry(self._tend(topic)[0], delay)
