"""`RedisDriver`: one Redis server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from redis.asyncio import Redis

from anymq.driver import Binding, Driver, Outcome, Record, Source, SubscribeSpec, TopicSpec
from anymq.url import URL

from .broadcast import BroadcastSource
from .capabilities import CAPABILITIES
from .connection import Address, Commands, Reader
from .errors import ERRORS
from .janitor import Janitor
from .keys import group_keys
from .member import Member
from .mover import Mover
from .options import RedisOptions
from .publisher import Publisher
from .settlement import Settlement
from .source import GroupSource
from .topology import check_server, check_topic, create_groups, last_id


class RedisDriver(Driver):
    """A pool for commands, and for every source a connection of its own to block on."""

    capabilities = CAPABILITIES
    errors = ERRORS
    binding = Binding(prefix="ce-", content_type="content-type")
    options = RedisOptions
    # A value may have 512 MiB; a copy that waits is one value with all of its headers.
    max_body: ClassVar[float] = 500 * 1024 * 1024
    tls_schemes = frozenset({"rediss"})

    def __init__(self, address: Address, commands: Commands, options: RedisOptions) -> None:
        self._address = address
        self._commands = commands
        self._options = options
        self._publisher = Publisher(commands, window=options.dedupe)
        self._topics: dict[str, TopicSpec] = {}

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float) -> Self:
        address = Address(url, options)
        commands = Commands(address.pool(), options.timeout)
        try:
            async with asyncio.timeout(timeout):
                await check_server(commands, where=str(url))
        except BaseException:
            await commands.aclose()
            raise
        return cls(address, commands, options)

    @property
    def native(self) -> Redis:
        """redis-py's asynchronous client, on the driver's own pool."""
        return self._commands.native

    async def ping(self) -> None:
        await self._commands.call(b"PING")

    async def declare(self, topic: TopicSpec) -> None:
        self._topics[topic.name] = topic
        await check_topic(self._commands, topic)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        return await self._publisher.publish(records, [self._topic(item.topic) for item in records])

    async def subscribe(self, spec: SubscribeSpec) -> Source:
        if spec.group is None:
            return await self._broadcast(spec)
        keys = group_keys(spec)
        start = b"0" if spec.start == "earliest" else b"$"
        await create_groups(self._commands, spec, keys, start=start)
        member = Member(self._commands, spec, keys)
        mover = Mover(self._commands, keys)
        retention = spec.topic.retention or self._options.retention
        return GroupSource(
            member,
            Reader(self._address),
            settlement=Settlement(member, mover, self._topic),
            mover=mover,
            janitor=Janitor(self._commands, keys, retention),
        )

    async def aclose(self) -> None:
        await self._commands.aclose()

    async def _broadcast(self, spec: SubscribeSpec) -> Source:
        stream = spec.topic.native.encode()
        last = b"0-0" if spec.start == "earliest" else await last_id(self._commands, stream)
        return BroadcastSource(Reader(self._address), stream, last)

    def _topic(self, name: str) -> TopicSpec:
        return self._topics.get(name) or TopicSpec(name=name, native=name)
