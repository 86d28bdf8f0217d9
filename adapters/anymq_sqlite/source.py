"""`SqliteSource`: one member of an unordered group."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

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

from . import publisher
from .connection import Database
from .file import log, pending, presence
from .file.notifications import TopicEvents
from .file.pending import Return, Start, Taken, Token
from .file.presence import Membership
from .messages import Entry, EntryEncoder, StoredMessage, received_lease
from .topology import Group


class _Idle(NamedTuple):
    """Nothing to take for `wait` seconds; None if only a publish can end that."""

    wait: float | None


class SqliteSource(Source):
    """One member of an unordered group. Its tokens are `pending.Token`s."""

    counts_starts = True

    def __init__(
        self,
        database: Database,
        events: TopicEvents,
        spec: SubscribeSpec,
        *,
        group: Group,
        encoder: EntryEncoder,
    ) -> None:
        self._database = database
        self._events = events
        self._encoder = encoder
        self._topic = spec.topic.native
        self._group = group
        self._owner = spec.member
        self._lease = spec.ack_deadline
        self._changed = events.add(self._topic)
        self._membership = Membership(database, group, spec.member)
        self._closed = False

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        deadline = time.monotonic() + wait
        self._membership.renew()
        while limit > 0:
            self._changed.clear()
            taken = await self._take(limit)
            if isinstance(taken, list):
                return [received_lease(item) for item in taken]
            if not await self._events.wait(self._changed, deadline, taken.wait):
                break
        return []

    def _idle(self, db: sqlite3.Connection) -> _Idle | None:
        """Return how long there is nothing to take, without reserving a turn to write."""
        wait = pending.next_wait(db, self._group)
        return _Idle(wait) if wait is None or wait > 0 else None

    async def _take(self, limit: int) -> list[Taken] | _Idle:
        # Not durable: messages whose take a power cut undoes are delivered again.
        taking = self._database.submit(
            lambda db: self._try_take(db, limit), writes=True, durable=False, unless=self._idle
        )
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._return_taken)
            raise

    def _try_take(self, db: sqlite3.Connection, limit: int) -> list[Taken] | _Idle:
        taken = pending.take(
            db,
            self._group,
            owner=self._owner,
            lease=self._lease,
            limit=limit,
            max_bytes=log.READ_BYTES,
        )
        # Another member may have taken everything.
        return taken or _Idle(pending.next_wait(db, self._group))

    def _return_taken(self, taking: asyncio.Future[list[Taken] | _Idle]) -> None:
        """Return to the group, uncounted, the messages that a cancelled `receive` took."""
        if taking.cancelled() or taking.exception() is not None:
            return
        taken = taking.result()
        if isinstance(taken, _Idle):
            return
        returns = [Return(item.token, 0.0, item.redeliveries) for item in taken]
        self._database.post(
            lambda db: pending.return_to_group(db, self._group, returns), writes=True
        )

    async def ack(self, records: Sequence[Received]) -> None:
        tokens = [record.token for record in records]
        # Not durable: messages whose ack a power cut undoes are delivered again.
        await self._database.write(
            lambda db: pending.settle(db, self._group, tokens), durable=False
        )

    async def nack(self, nacks: Sequence[Nack]) -> None:
        returns = [Return(nack.received.token, nack.delay, nack.redeliveries) for nack in nacks]
        await self._database.write(lambda db: pending.return_to_group(db, self._group, returns))
        self._events.wake((self._topic,))

    async def release(self, nacks: Sequence[Nack]) -> None:
        await self.nack(nacks)

    def known_attempt(self, record: Received) -> int | None:
        return attempt_of(record) - 1 if cast("StoredMessage", record).expired else None

    async def begin(self, begun: Sequence[Begun]) -> None:
        starts = [Start(item.received.token, item.redeliveries) for item in begun]
        # Not durable: starts that a power cut undoes do not count.
        await self._database.write(lambda db: pending.begin(db, self._group, starts), durable=False)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        letters = [(item.received.token, self._encoder.encode(item.letter)) for item in rejected]
        await self._database.write(lambda db: _dead_letter(db, self._group, letters))
        self._events.wake({letter.topic for _, letter in letters})

    async def extend(self, records: Sequence[Received]) -> None:
        tokens = [record.token for record in records]
        await self._database.write(
            lambda db: pending.extend(db, self._group, tokens, lease=self._lease),
            durable=False,
        )

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        # The thread that owns the connection is not blocked.
        tokens = [record.token for record in records]
        extended = threading.Event()

        def extend(db: sqlite3.Connection) -> None:
            pending.extend(db, self._group, tokens, lease=self._lease)
            extended.set()

        self._database.post(extend, writes=True)
        return await asyncio.to_thread(extended.wait, self._lease / 4)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._events.remove(self._topic, self._changed)
        await self._database.write(self._leave)
        self._events.wake((self._topic,))

    def _leave(self, db: sqlite3.Connection) -> None:
        pending.return_all(db, self._group, self._owner)
        presence.leave(db, self._group, self._owner)


def _dead_letter(
    db: sqlite3.Connection, group: Group, letters: Iterable[tuple[Token, Entry]]
) -> None:
    """Settle each message and store its dead letter; a stale token stores none."""
    settled = [letter for token, letter in letters if pending.settle(db, group, (token,))]
    for outcome in publisher.append(db, settled):
        if isinstance(outcome, BaseException):
            raise outcome
