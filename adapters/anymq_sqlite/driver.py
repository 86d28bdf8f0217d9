"""`SqliteDriver`: one connection to one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import ClassVar, Self

from anymq.capabilities import Capabilities
from anymq.driver import Binding, Driver, Outcome, Record, Source, SubscribeSpec, TopicSpec
from anymq.errors import ErrorTable
from anymq.url import URL

from . import log, pending
from .broadcast import SqliteBroadcast
from .capabilities import CAPABILITIES
from .database import Database
from .errors import ERRORS
from .options import SqliteOptions, database_path
from .records import entry
from .retention import Janitor
from .source import SqliteSource
from .watch import Watch


class SqliteDriver(Driver):
    """The SQLite backend; see the package for what it guarantees."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix="ce-", content_type="content-type", native_key=True)
    options: ClassVar[type[SqliteOptions]] = SqliteOptions
    max_body: ClassVar[float] = 256 * 1024 * 1024

    def __init__(self, database: Database, janitor: Janitor) -> None:
        self.watch = Watch()
        self._database = database
        self.janitor = janitor
        self._natives: dict[str, str] = {}

    @classmethod
    async def open(cls, url: URL, options: SqliteOptions, *, timeout: float) -> Self:
        async with asyncio.timeout(timeout):
            database = await Database.open(
                database_path(url),
                synchronous=options.synchronous,
                busy_timeout=min(options.busy_timeout, timeout),
                poll=options.poll,
            )
        return cls(database, Janitor(database, options.retention, options.sweep))

    @property
    def native(self) -> Database:
        """The file: `path`, and `read` and `write` for jobs on its `sqlite3.Connection`."""
        return self._database

    def native_name(self, topic: str) -> str:
        """Return what `topic` is called in the file."""
        return self._natives.get(topic, topic)

    async def ping(self) -> None:
        await self._database.ping()

    async def declare(self, topic: TopicSpec) -> None:
        self._natives[topic.name] = topic.native
        if topic.create:
            await self._database.write(lambda db: log.declare(db, topic.native, topic.retention))

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        entries = [entry(record, self.native_name(record.topic)) for record in records]
        outcomes = await self._database.write(lambda db: log.append(db, entries))
        self.watch.wake({entry.topic for entry in entries})
        return outcomes

    async def subscribe(self, spec: SubscribeSpec) -> Source:
        self._database.watch(self.watch.wake_all)
        if spec.group is None:
            cursor = await self._database.read(lambda db: _place(db, spec))
            return SqliteBroadcast(self, spec, cursor)
        group = await self._database.write(lambda db: _join(db, spec))
        return SqliteSource(self, spec, group)

    async def aclose(self) -> None:
        try:
            await self.janitor.aclose()
        finally:
            await self._database.aclose()


def _place(db: sqlite3.Connection, spec: SubscribeSpec) -> int:
    log.topic_id(db, spec.topic.native)
    return 0 if spec.start == "earliest" else log.last_seq(db)


def _join(db: sqlite3.Connection, spec: SubscribeSpec) -> pending.Group:
    topic = log.topic_id(db, spec.topic.native)
    return pending.join(db, topic, spec.native_group, start=spec.start, create=spec.create)
