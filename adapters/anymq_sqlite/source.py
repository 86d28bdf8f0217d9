"""`SqliteSource`: a member of a group."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from anymq.driver import (
    Begun,
    Nack,
    Received,
    Rejected,
    Source,
    StoreRecords,
    SubscribeSpec,
    attempt_of,
)

from .file import pending
from .file import presence as members
from .file.pending import Group, Return, Start, Taken
from .file.presence import Membership
from .messages import Stored, received

if TYPE_CHECKING:
    from .driver import SqliteDriver

# The most that the bodies of one `receive` hold, but for a single larger one.
RECEIVE_BYTES = 4 * 1024 * 1024


class _Idle(NamedTuple):
    """There is nothing to take for `wait` seconds; without them, before the next publish."""

    wait: float | None


class SqliteSource(Source):
    """A member of a group. Tokens are `pending.Token`s."""

    counts_starts = True

    def __init__(self, driver: SqliteDriver, spec: SubscribeSpec, group: Group) -> None:
        self._driver = driver
        self._database = driver.native
        self._topic = spec.topic.native
        self._group = group
        self._owner = spec.member
        self._lease = spec.ack_deadline
        self._changed = driver.watch.add(self._topic)
        self._membership = Membership(self._database, group, spec.member)
        self._closed = False

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        deadline = time.monotonic() + wait
        self._membership.renew()
        while limit > 0:
            self._changed.clear()
            taken = await self._take(limit)
            if isinstance(taken, list):
                return [received(item) for item in taken]
            if not await self._driver.watch.wait(self._changed, deadline, taken.wait):
                break
        return []

    def _idle(self, db: sqlite3.Connection) -> _Idle | None:
        """Look before asking for a turn to write."""
        wait = pending.next_wait(db, self._group)
        return _Idle(wait) if wait is None or wait > 0 else None

    async def _take(self, limit: int) -> list[Taken] | _Idle:
        # What a power cut undoes of it is delivered again.
        taking = self._database.submit(
            lambda db: self._try_take(db, limit), writes=True, durable=False, unless=self._idle
        )
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._untake)
            raise

    def _try_take(self, db: sqlite3.Connection, limit: int) -> list[Taken] | _Idle:
        taken = pending.take(
            db,
            self._group,
            owner=self._owner,
            lease=self._lease,
            limit=limit,
            max_bytes=RECEIVE_BYTES,
        )
        # Nothing, if another member was faster.
        return taken or _Idle(pending.next_wait(db, self._group))

    def _untake(self, taking: asyncio.Future[list[Taken] | _Idle]) -> None:
        """Give back, uncounted, what a cancelled `receive` took: nobody has seen it."""
        if taking.cancelled() or taking.exception() is not None:
            return
        taken = taking.result()
        if isinstance(taken, _Idle):
            return
        returns = [Return(item.token, 0.0, item.redeliveries) for item in taken]
        self._database.post(lambda db: pending.give_back(db, self._group, returns), writes=True)

    async def ack(self, records: Sequence[Received]) -> None:
        tokens = [record.token for record in records]
        # What a power cut undoes of it is delivered again.
        await self._database.write(
            lambda db: pending.settle(db, self._group, tokens), durable=False
        )

    async def nack(self, nacks: Sequence[Nack]) -> None:
        returns = [Return(nack.received.token, nack.delay, nack.redeliveries) for nack in nacks]
        await self._database.write(lambda db: pending.give_back(db, self._group, returns))
        self._driver.watch.wake((self._topic,))

    async def release(self, nacks: Sequence[Nack]) -> None:
        await self.nack(nacks)

    def known_attempt(self, record: Received) -> int | None:
        return attempt_of(record) - 1 if cast("Stored", record).vanished else None

    async def begin(self, begun: Sequence[Begun]) -> None:
        starts = [Start(i.received.token, i.redeliveries) for i in begun]
        # What a power cut undoes of it does not count.
        await self._database.write(lambda db: pending.begin(db, self._group, starts), durable=False)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        letters = [(item.received.token, self._driver.entry(item.letter)) for item in rejected]
        await self._database.write(lambda db: pending.bury(db, self._group, letters))
        self._driver.watch.wake({letter.topic for _, letter in letters})

    async def extend(self, records: Sequence[Received]) -> None:
        tokens = [record.token for record in records]
        await self._database.write(
            lambda db: pending.extend(db, self._group, tokens, lease=self._lease),
            durable=False,
        )

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        # The thread that has the file goes on.
        tokens = [record.token for record in records]
        done = threading.Event()

        def extend(db: sqlite3.Connection) -> None:
            pending.extend(db, self._group, tokens, lease=self._lease)
            done.set()

        self._database.post(extend, writes=True)
        return await asyncio.to_thread(done.wait, self._lease / 4)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._driver.watch.remove(self._topic, self._changed)
        await self._database.write(self._leave)
        self._driver.watch.wake((self._topic,))

    def _leave(self, db: sqlite3.Connection) -> None:
        pending.leave(db, self._group, self._owner)
        members.leave(db, self._group, self._owner)
