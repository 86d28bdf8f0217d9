"""Reading a log in memory: for a group with leases, or alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymq.cloudevents import ATTEMPT
from anymq.driver import Driver, Nack, Received, Rejected, Source, SourceLost, SubscribeSpec

from .group import Group, Out
from .topic import Log, Stored

if TYPE_CHECKING:
    from .driver import MemoryDriver


def received(stored: Stored, token: object = None, attempt: int | None = None) -> Received:
    """Return `stored` as the core sees it: as `attempt`, or with the attempt its header says."""
    record = stored.record
    headers = dict(record.headers)
    if attempt is not None:
        headers.pop(ATTEMPT, None)
    return Received(
        record.body,
        headers,
        position=str(stored.sequence),
        token=token,
        native=record,
        key=record.key,
        content_type=record.content_type,
        time=stored.time,
        redeliveries=0 if attempt is None else attempt - 1,
        partition=stored.partition,
    )


class BroadcastSource(Source):
    """Reads a log from a place of its own."""

    def __init__(self, driver: MemoryDriver, log: Log, behind: int) -> None:
        self._driver = driver
        self._log = log
        self._behind = behind
        self._event = asyncio.Event()
        log.readers.add(self._event)

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
            self._behind = taken[-1].sequence
        return [received(stored) for stored in taken]

    async def ack(self, records: Sequence[Received]) -> None:
        """Nothing to settle."""

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def release(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def aclose(self) -> None:
        self._log.readers.discard(self._event)


class GroupSource(Source):
    """Takes deliveries for one member; a token is the delivery's number and the attempt it was."""

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
        now = self._driver.clock.now()
        group, records = self._group, self._log.records
        taken: list[Received] = []
        while len(taken) < limit:
            number = group.due(now)
            if number is not None:
                out = group.out[number]
                if out.owner is not None:  # its lease ran out
                    out.attempt += 1
            elif group.cursor < len(records):
                stored = records[group.cursor]
                group.cursor += 1
                number = next(group.serial)
                header = stored.record.headers.get(ATTEMPT)
                out = group.out[number] = Out(stored, int(header) if header else 1)
            else:
                break
            out.owner = self._member
            out.taken = now
            out.due = now + self._lease
            group.plan(number, out)
            taken.append(received(out.stored, (number, out.attempt), out.attempt))
        return taken

    def _owned(self, record: Received) -> int | None:
        """Return the number of the delivery if it is still ours, this attempt of it."""
        number, attempt = record.token
        out = self._group.out.get(number)
        if out is None or out.owner != self._member or out.attempt != attempt:
            return None
        return None if out.due <= self._driver.clock.now() else int(number)

    async def ack(self, records: Sequence[Received]) -> None:
        for record in records:
            number = self._owned(record)
            if number is not None:
                del self._group.out[number]

    async def nack(self, nacks: Sequence[Nack]) -> None:
        now = self._driver.clock.now()
        for nack in nacks:
            number = self._owned(nack.received)
            if number is not None:
                out = self._group.out[number]
                out.owner, out.attempt, out.due = None, nack.attempt, now + nack.delay
                self._group.plan(number, out)
        self._group.wake()

    async def release(self, nacks: Sequence[Nack]) -> None:
        await self.nack(nacks)

    async def reject(self, rejected: Sequence[Rejected], driver: Driver) -> None:
        for item in rejected:
            number = self._owned(item.received)
            if number is None:
                continue
            outcome = self._driver.append(item.letter)
            if isinstance(outcome, BaseException):
                raise outcome
            del self._group.out[number]

    async def extend(self, records: Sequence[Received]) -> None:
        until = self._driver.clock.now() + self._lease
        for record in records:
            number = self._owned(record)
            if number is not None:
                out = self._group.out[number]
                out.due = until
                self._group.plan(number, out)

    async def aclose(self) -> None:
        self._group.members.pop(self._member, None)
        for number, out in self._group.out.items():
            if out.owner == self._member:
                out.due = self._driver.clock.now()
                self._group.plan(number, out)
        self._group.wake()
