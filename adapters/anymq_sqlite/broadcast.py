"""`SqliteBroadcast`: a reader that gets every message and settles nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymq.driver import (
    NotFound,
    Reader,
    Received,
    SourceLost,
    SubscribeSpec,
)

from . import delays
from .file import log
from .messages import stored
from .source import RECEIVE_BYTES

if TYPE_CHECKING:
    from .driver import SqliteDriver


class SqliteBroadcast(Reader):
    """A broadcast reader. Its place in the log is fixed by `subscribe` and kept in memory.

    `number` is the topic's: one of the same name that is made later has another.
    """

    def __init__(self, driver: SqliteDriver, spec: SubscribeSpec, number: int, cursor: int) -> None:
        self._driver = driver
        self._database = driver.native
        self._topic = spec.topic.native
        self._number = number
        self._cursor = cursor
        self._changed = driver.watch.add(self._topic)

    @property
    def place(self) -> object:
        return self._number, self._cursor

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        deadline = time.monotonic() + wait
        while limit > 0:
            self._changed.clear()
            messages, due = await self._database.read(lambda db: self._read(db, limit))
            if messages:
                self._cursor = messages[-1].seq
                return [stored(message) for message in messages]
            if due is not None and due <= time.time():
                await self._driver.ripen(self._topic)
                continue
            left = None if due is None else due - time.time()
            if not await self._driver.watch.wait(self._changed, deadline, left):
                break
        return []

    def _read(
        self, db: sqlite3.Connection, limit: int
    ) -> tuple[Sequence[log.Message], float | None]:
        try:
            topic = log.find(db, self._topic).id
        except NotFound as error:
            raise SourceLost(str(error)) from error
        if topic != self._number:
            raise SourceLost(f"the topic {self._topic!r} was deleted and made anew")
        messages = log.after(db, topic, self._cursor, limit=limit, max_bytes=RECEIVE_BYTES)
        if not messages and log.last_seq(db) < self._cursor:
            raise SourceLost("the file was replaced by an older one")
        return messages, delays.next_ripe(db, topic)

    async def aclose(self) -> None:
        self._driver.watch.remove(self._topic, self._changed)
