"""`SqliteDriver`: one connection to one file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import ClassVar, Self

from anymq.driver import (
    URL,
    Binding,
    Capabilities,
    Check,
    Clock,
    Driver,
    Endpoint,
    ErrorTable,
    GroupInfo,
    LeasedSource,
    Listener,
    NotFound,
    Outcome,
    Reader,
    Received,
    Record,
    Start,
    SubscribeSpec,
    TopicInfo,
    TopicSpec,
    ordered,
)

from . import admin, checks, delays, publisher, topology
from .broadcast import SqliteBroadcast
from .capabilities import CAPABILITIES
from .connection import Database
from .errors import ERRORS
from .file import log, presence
from .file.maintenance import RetentionSweeper
from .file.notifications import TopicEvents
from .messages import EntryEncoder
from .options import SqliteOptions, database_path, file_name
from .ordered import SqlitePartitions
from .positions import browse, seq_before
from .source import SqliteSource
from .topology import Group, Topic, find_topic


class SqliteDriver(Driver):
    """The SQLite backend; see the package for its guarantees."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix="ce-", content_type="content-type", native_key=True)
    options: ClassVar[type[SqliteOptions]] = SqliteOptions
    max_body: ClassVar[float] = 256 * 1024 * 1024
    grants = checks.GRANTS

    def __init__(self, database: Database, sweeper: RetentionSweeper, clock: Clock) -> None:
        self.clock = clock
        self.sweeper = sweeper
        self._database = database
        self._events = TopicEvents()
        self._encoder = EntryEncoder()

    @classmethod
    async def open(cls, url: URL, options: SqliteOptions, *, timeout: float, clock: Clock) -> Self:
        async with asyncio.timeout(timeout):
            database = await Database.open(
                database_path(url),
                synchronous=options.synchronous,
                busy_timeout=min(options.busy_timeout, timeout),
                poll=options.poll,
            )
        return cls(database, RetentionSweeper(database, options.retention, options.sweep), clock)

    @classmethod
    def endpoints(cls, url: URL, options: SqliteOptions) -> Sequence[Endpoint]:
        file_name(url)
        return ()

    @property
    def native(self) -> Database:
        """The file: `path`, and `read` and `write` for jobs on its `sqlite3.Connection`."""
        return self._database

    async def ping(self) -> None:
        await self._database.ping()

    async def declare(self, topic: TopicSpec) -> None:
        self._encoder.natives[topic.name] = topic.native
        if topic.create:
            await self._database.write(lambda db: topology.declare_topic(db, topic))

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        encode = self._encoder.encode
        entries = [encode(record) for record in records]
        outcomes = await self._database.write(lambda db: publisher.append(db, entries))
        self._events.wake({entry.topic for entry in entries})
        return outcomes

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        self._database.watch(self._events.wake_all)
        await self._move_due(spec.topic)
        if spec.group is None:
            topic_id, cursor = await self._database.read(lambda db: _broadcast_cursor(db, spec))
            return SqliteBroadcast(
                self._database, self._events, spec, topic=topic_id, cursor=cursor
            )
        topic, group = await self._database.write(lambda db: _join(db, spec))
        if not spec.ordered:
            return SqliteSource(
                self._database, self._events, spec, group=group, encoder=self._encoder
            )
        partitions = self._partitions(topic, spec.topic, group, member=spec.member)
        source = LeasedSource(partitions, spec, listener, self.clock)
        await source.start()
        return source

    def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        return checks.checks(self._database)

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        await self._move_due(topic)
        async for page in browse(self._database, topic, start):
            yield page

    async def topics(self) -> Sequence[str]:
        return await self._database.read(admin.topics)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        return await self._database.read(lambda db: admin.groups(db, topic.native))

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        await self._move_due(topic)
        return await self._database.read(lambda db: admin.topic_info(db, topic))

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        await self._move_due(topic)
        found, group, is_ordered = await self._group(topic, native_group)
        if not is_ordered:
            return await self._database.read(lambda db: admin.group_info(db, found, group))
        partitions = self._partitions(found, topic, group)
        states = await ordered.state(partitions, clock=self.clock)
        return await self._database.read(
            lambda db: admin.ordered_info(db, topic, found, group, states)
        )

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        found, group, is_ordered = await self._group(topic, native_group)
        if is_ordered:
            await self._database.read(lambda db: presence.check_idle(db, group))
            partitions = self._partitions(found, topic, group)
            await ordered.seek(partitions, to, clock=self.clock)
        else:
            await self._database.write(lambda db: admin.seek(db, found, group, to))

    async def delete_topic(self, topic: TopicSpec) -> None:
        with contextlib.suppress(NotFound):
            await self.purge(topic)
            await self._database.write(
                lambda db: admin.delete_topic(db, find_topic(db, topic.native))
            )
            self._events.wake((topic.native,))

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        await self._database.write(lambda db: admin.delete_group(db, topic.native, native_group))

    async def purge(self, topic: TopicSpec) -> None:
        found, last = await self._database.read(
            lambda db: (find_topic(db, topic.native), log.last_seq(db))
        )
        while await self._database.write(lambda db: admin.purge(db, found, last)):
            pass

    async def _group(self, topic: TopicSpec, name: str) -> tuple[Topic, Group, bool]:
        return await self._database.read(lambda db: admin.group(db, topic.native, name))

    async def _move_due(self, topic: TopicSpec) -> None:
        await delays.move_all_due(self._database, self._events, topic.native)

    def _partitions(
        self, topic: Topic, spec: TopicSpec, group: Group, *, member: str | None = None
    ) -> SqlitePartitions:
        return SqlitePartitions(
            self._database,
            self._events,
            topic=topic,
            name=spec.native,
            group=group,
            member=member,
        )

    async def aclose(self) -> None:
        try:
            await self.sweeper.aclose()
        finally:
            await self._database.aclose()


def _broadcast_cursor(db: sqlite3.Connection, spec: SubscribeSpec) -> tuple[int, int]:
    """Return the topic's id, and the `seq` after which a broadcast reader starts."""
    topic = find_topic(db, spec.topic.native).id
    if not isinstance(spec.position, tuple):
        return topic, seq_before(db, topic, spec.start)
    place_topic, cursor = spec.position
    # The file may have been replaced by an older one, which ends before the cursor.
    return topic, min(cursor, log.last_seq(db)) if place_topic == topic else 0


def _join(db: sqlite3.Connection, spec: SubscribeSpec) -> tuple[Topic, Group]:
    topic = find_topic(db, spec.topic.native)
    group = topology.subscribed_group(db, topic.id, spec)
    if group is None:
        cursor = seq_before(db, topic.id, spec.start)
        group = topology.create_group(db, topic.id, spec, cursor)
    presence.enter(db, group, spec.member)
    return topic, group
