"""`SqliteBroadcast`: a broadcast reader of one topic."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from anymq.driver import (
    NotFound,
    Reader,
    Received,
    SourceLost,
    SubscribeSpec,
)

from . import delays
from .connection import Database
from .file import log
from .file.notifications import TopicEvents
from .messages import received
from .topology import find_topic


class SqliteBroadcast(Reader):
    """A broadcast reader. `cursor`, the `seq` of the last message it returned, is kept in memory.

    `topic` is the id of the topic, because a later topic of the same name has another one.
    """

    def __init__(
        self,
        database: Database,
        events: TopicEvents,
        spec: SubscribeSpec,
        *,
        topic: int,
        cursor: int,
    ) -> None:
        self._database = database
        self._events = events
        self._name = spec.topic.native
        self._topic = topic
        self._cursor = cursor
        self._changed = events.add(self._name)

    @property
    def position(self) -> object:
        return self._topic, self._cursor

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        deadline = time.monotonic() + wait
        while limit > 0:
            self._changed.clear()
            messages, due = await self._database.read(lambda db: self._read(db, limit))
            if messages:
                self._cursor = messages[-1].seq
                return [received(message) for message in messages]
            if due is not None and due <= time.time():
                await delays.move_all_due(self._database, self._events, self._name)
                continue
            left = None if due is None else due - time.time()
            if not await self._events.wait(self._changed, deadline, left):
                break
        return []

    def _read(
        self, db: sqlite3.Connection, limit: int
    ) -> tuple[Sequence[log.Message], float | None]:
        try:
            topic = find_topic(db, self._name).id
        except NotFound as error:
            raise SourceLost(str(error)) from error
        if topic != self._topic:
            raise SourceLost(f"the topic {self._name!r} was deleted and created again")
        messages = log.after(db, topic, self._cursor, limit=limit, max_bytes=log.READ_BYTES)
        if not messages and log.last_seq(db) < self._cursor:
            raise SourceLost("the file was replaced by an older one")
        return messages, delays.next_due(db, topic)

    async def aclose(self) -> None:
        self._events.remove(self._name, self._changed)
