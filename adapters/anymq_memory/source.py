"""Reading a log in memory: for a group with leases, or alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from anymq.driver import (
    Listener,
    Nack,
    Published,
    Reader,
    Received,
    Rejected,
    Source,
    SourceLost,
    StoreRecords,
    SubscribeSpec,
)

from .space.group import Group, Out
from .space.log import Log, Stored

if TYPE_CHECKING:
    from .driver import MemoryDriver


def received(stored: Stored) -> Received:
    """Return `stored` as the core sees it where there are no leases."""
    record = stored.record
    return Published(
        record.body,
        dict(record.headers),
        position=str(stored.sequence),
        token=None,
        native=record,
        key=record.key,
        content_type=record.content_type,
        time=stored.time,
        partition=stored.partition,
    )


class BroadcastSource(Reader):
    """A broadcast reader of a log."""

    def __init__(
        self, driver: MemoryDriver, log: Log, spec: SubscribeSpec, listener: Listener
    ) -> None:
        self._driver = driver
        self._log = log
        self._listener = listener
        self._behind = log.behind(spec.start)
        if isinstance(spec.place, tuple):
            before, behind = spec.place
            self._behind = behind if before is log else 0
        self._event = asyncio.Event()
        log.readers.add(self._event)

    @property
    def place(self) -> object:
        return self._log, self._behind

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        clock = self._driver.clock
        until = clock.monotonic() + wait
        while True:
            if self._log.deleted:
                raise SourceLost("the topic was deleted")
            taken = self._log.after(self._behind, limit)
            left = until - clock.monotonic()
            if taken or limit == 0 or left <= 0:
                break
            self._event.clear()
            await clock.wait(self._event, self._log.soonest(left))
        if taken:
            if taken[0].sequence > self._behind + 1:
                self._listener.skipped(str(self._behind), str(taken[0].sequence))
            self._behind = taken[-1].sequence
        return [received(stored) for stored in taken]

    async def aclose(self) -> None:
        self._log.readers.discard(self._event)


class GroupSource(Source):
    """Takes deliveries for one member."""

    def __init__(self, driver: MemoryDriver, log: Log, group: Group, spec: SubscribeSpec) -> None:
        self._driver = driver
        self._log = log
        self._group = group
        self._member = spec.member
        self._lease = spec.ack_deadline
        self._event = asyncio.Event()
        group.members[spec.member] = self._event

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        clock = self._driver.clock
        until = clock.monotonic() + wait
        while True:
            if self._group.deleted:
                raise SourceLost(f"the group {self._group.name} was deleted")
            taken = self._take(limit)
            left = until - clock.monotonic()
            if taken or limit == 0 or left <= 0:
                return taken
            self._event.clear()
            await clock.wait(self._event, self._log.soonest(left, self._group.next_due()))

    def _take(self, limit: int) -> list[Received]:
        now = self._driver.clock.monotonic()
        group, until = self._group, now + self._lease
        taken: list[Received] = []
        while len(taken) < limit and (waiting := group.due(now)) is not None:
            # Where it has an owner, the lease ran out.
            attempt = waiting.attempt + (waiting.owner is not None)
            out = Out(waiting.number, waiting.stored, attempt, self._member, now, until)
            group.out[out.number] = out
            group.plan((out.number,), until)
            taken.append(out)
        fresh = self._log.records[group.cursor : group.cursor + limit - len(taken)]
        if fresh:
            first = group.number
            group.cursor += len(fresh)
            group.number += len(fresh)
            for number, stored in enumerate(fresh, first):
                out = group.out[number] = Out(number, stored, 1, self._member, now, until)
                taken.append(out)
            group.plan(range(first, group.number), until)
        return taken

    def _owned(self, records: Iterable[Received]) -> list[Out]:
        """Return those that are still ours: no other attempt of them, nobody else's."""
        now, current = self._driver.clock.monotonic(), self._group.out
        return [
            out
            for out in cast("Iterable[Out]", records)
            if current.get(out.number) is out and out.due > now
        ]

    async def ack(self, records: Sequence[Received]) -> None:
        for out in self._owned(records):
            self._group.out.pop(out.number, None)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        now = self._driver.clock.monotonic()
        plans = {id(nack.received): nack for nack in nacks}
        for out in self._owned([nack.received for nack in nacks]):
            nack = plans[id(out)]
            due = now + nack.delay
            self._group.out[out.number] = Out(
                out.number, out.stored, nack.attempt, None, out.taken, due
            )
            self._group.plan((out.number,), due)
        self._group.wake()

    async def release(self, nacks: Sequence[Nack]) -> None:
        await self.nack(nacks)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        for item in rejected:
            for out in self._owned([item.received]):
                (outcome,) = self._driver.append([item.letter])
                if isinstance(outcome, BaseException):
                    raise outcome
                del self._group.out[out.number]

    async def extend(self, records: Sequence[Received]) -> None:
        until = self._driver.clock.monotonic() + self._lease
        owned = self._owned(records)
        for out in owned:
            out.due = until
        self._group.plan([out.number for out in owned], until)

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        await self.extend(records)  # which never waits
        return True

    async def aclose(self) -> None:
        self._group.members.pop(self._member, None)
        now = self._driver.clock.monotonic()
        left = [out for out in self._group.out.values() if out.owner == self._member]
        for out in left:
            out.due = now
        self._group.plan([out.number for out in left], now)
        self._group.wake()
