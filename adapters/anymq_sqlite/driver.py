"""`SqliteDriver`: one connection to one file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import count
from typing import ClassVar, Self

from anymq.driver import (
    URL,
    Binding,
    Capabilities,
    Clock,
    Driver,
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

from . import admin, delays
from .broadcast import SqliteBroadcast
from .capabilities import CAPABILITIES
from .connection import Database
from .errors import ERRORS
from .file import log, pending
from .file import presence as members
from .file.maintenance import Janitor
from .file.watch import Watch
from .messages import entry, stored
from .options import SqliteOptions, database_path
from .ordered import SqliteLog
from .source import RECEIVE_BYTES, SqliteSource

_PAGE = 500


class SqliteDriver(Driver):
    """The SQLite backend; see the package for what it guarantees."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix="ce-", content_type="content-type", native_key=True)
    options: ClassVar[type[SqliteOptions]] = SqliteOptions
    max_body: ClassVar[float] = 256 * 1024 * 1024

    def __init__(self, database: Database, janitor: Janitor, clock: Clock) -> None:
        self.clock = clock
        self.watch = Watch()
        self._database = database
        self.janitor = janitor
        self._natives: dict[str, str] = {}
        self._turns: defaultdict[str, count[int]] = defaultdict(count)

    @classmethod
    async def open(cls, url: URL, options: SqliteOptions, *, timeout: float, clock: Clock) -> Self:
        async with asyncio.timeout(timeout):
            database = await Database.open(
                database_path(url),
                synchronous=options.synchronous,
                busy_timeout=min(options.busy_timeout, timeout),
                poll=options.poll,
            )
        return cls(database, Janitor(database, options.retention, options.sweep), clock)

    @property
    def native(self) -> Database:
        """The file: `path`, and `read` and `write` for jobs on its `sqlite3.Connection`."""
        return self._database

    def entry(self, record: Record) -> log.Entry:
        """Return the row for `record`."""
        topic = self._natives.get(record.topic, record.topic)
        return entry(record, topic, next(self._turns[topic]) if record.key is None else 0)

    async def ripen(self, topic: str) -> None:
        """Let in the delayed messages of `topic`, a native name, that are due.

        Raises `NotFound`.
        """
        while await self._database.read(lambda db: _is_ripe(db, topic)):
            await self._database.write(
                lambda db: delays.ripen(db, log.find(db, topic).id, time.time())
            )
            self.watch.wake((topic,))

    async def ping(self) -> None:
        await self._database.ping()

    async def declare(self, topic: TopicSpec) -> None:
        self._natives[topic.name] = topic.native
        if topic.create:
            await self._database.write(lambda db: log.declare(db, topic))

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        entries = [self.entry(record) for record in records]
        outcomes = await self._database.write(lambda db: log.append(db, entries))
        self.watch.wake({entry.topic for entry in entries})
        return outcomes

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        self._database.watch(self.watch.wake_all)
        await self.ripen(spec.topic.native)
        if spec.group is None:
            number, cursor = await self._database.read(lambda db: _place(db, spec))
            return SqliteBroadcast(self, spec, number, cursor)
        topic, group = await self._database.write(lambda db: _join(db, spec))
        if not spec.ordered:
            return SqliteSource(self, spec, group)
        reading = SqliteLog(self, topic, spec.topic.native, group, member=spec.member)
        source = LeasedSource(reading, spec, listener, self.clock)
        await source.start()
        return source

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        await self.ripen(topic.native)
        place, end = await self._database.read(lambda db: _span(db, topic, start))
        while place < end:
            page = await self._database.read(partial(_page, topic=topic, place=place, end=end))
            if not page:
                return
            yield [stored(message) for message in page]
            place = page[-1].seq

    async def topics(self) -> Sequence[str]:
        return await self._database.read(admin.topics)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        return await self._database.read(lambda db: admin.groups(db, topic.native))

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        await self.ripen(topic.native)
        return await self._database.read(lambda db: admin.topic_info(db, topic))

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        await self.ripen(topic.native)
        found, group, is_ordered = await self._group(topic, native_group)
        if not is_ordered:
            return await self._database.read(lambda db: admin.group_info(db, topic, found, group))
        states = await ordered.state(SqliteLog(self, found, topic.native, group), clock=self.clock)
        return await self._database.read(
            lambda db: admin.ordered_info(db, topic, found, group, states)
        )

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        found, group, is_ordered = await self._group(topic, native_group)
        if is_ordered:
            await self._database.read(lambda db: members.check_idle(db, group))
            reading = SqliteLog(self, found, topic.native, group)
            await ordered.seek(reading, to, clock=self.clock)
        else:
            await self._database.write(lambda db: admin.seek(db, found, group, to))

    async def delete_topic(self, topic: TopicSpec) -> None:
        with contextlib.suppress(NotFound):
            await self.purge(topic)
            await self._database.write(
                lambda db: admin.delete_topic(db, log.find(db, topic.native))
            )
            self.watch.wake((topic.native,))

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        await self._database.write(lambda db: admin.delete_group(db, topic.native, native_group))

    async def purge(self, topic: TopicSpec) -> None:
        found, last = await self._database.read(
            lambda db: (log.find(db, topic.native), log.last_seq(db))
        )
        while await self._database.write(lambda db: admin.purge(db, found, last)):
            pass

    async def _group(self, topic: TopicSpec, name: str) -> tuple[log.Topic, pending.Group, bool]:
        return await self._database.read(lambda db: admin.group(db, topic.native, name))

    async def aclose(self) -> None:
        try:
            await self.janitor.aclose()
        finally:
            await self._database.aclose()


def _is_ripe(db: sqlite3.Connection, topic: str) -> bool:
    due = delays.next_ripe(db, log.find(db, topic).id)
    return due is not None and due <= time.time()


def _place(db: sqlite3.Connection, spec: SubscribeSpec) -> tuple[int, int]:
    """Return the topic's number, and the `seq` behind which a broadcast reader begins."""
    topic = log.find(db, spec.topic.native).id
    if not isinstance(spec.place, tuple):
        return topic, log.behind(db, topic, spec.start)
    before, cursor = spec.place
    # A file that was replaced by an older one ends before the place.
    return topic, min(cursor, log.last_seq(db)) if before == topic else 0


def _join(db: sqlite3.Connection, spec: SubscribeSpec) -> tuple[log.Topic, pending.Group]:
    topic = log.find(db, spec.topic.native)
    group = pending.join(db, topic.id, spec)
    members.enter(db, group, spec.member)
    return topic, group


def _span(db: sqlite3.Connection, topic: TopicSpec, start: Start) -> tuple[int, int]:
    """Return what is behind `start`, and the end of the log now."""
    return log.behind(db, log.find(db, topic.native).id, start), log.last_seq(db)


def _page(db: sqlite3.Connection, *, topic: TopicSpec, place: int, end: int) -> list[log.Message]:
    found = log.find(db, topic.native).id
    page = log.after(db, found, place, limit=_PAGE, max_bytes=RECEIVE_BYTES)
    return [message for message in page if message.seq <= end]
