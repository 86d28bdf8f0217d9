"""Reading a log in memory: for a group with leases, or alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymq.cloudevents import ATTEMPT
from anymq.driver import Driver, Nack, Received, Rejected, Source, SubscribeSpec

from .space import Group, Log, Out, Stored

if TYPE_CHECKING:
    from .driver import MemoryDriver


def _received(stored: Stored, attempt: int, token: object) -> Received:
    record = stored.record
    headers = dict(record.headers)
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
        redeliveries=attempt - 1,
    )


class BroadcastSource(Source):
    """Reads a log from a place of its own."""

    def __init__(self, driver: MemoryDriver, log: Log, start: int) -> None:
        self._driver = driver
        self._log = log
        self._next = start
        self._event = asyncio.Event()
        log.readers.add(self._event)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if self._next >= len(self._log.records) and wait > 0 and limit > 0:
            self._event.clear()
            await self._driver.clock.wait(self._event, wait)
        taken = self._log.records[self._next : self._next + limit]
        self._next += len(taken)
        return [_received(stored, 1, None) for stored in taken]

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
        group.members.add(self._event)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        clock = self._driver.clock
        until = clock.monotonic() + wait
        while True:
            taken = self._take(limit)
            left = until - clock.monotonic()
            if taken or limit == 0 or left <= 0:
                return taken
            self._event.clear()
            due = self._group.next_due()
            if due is not None:
                left = min(left, max(0.0, due - clock.now()))
            await clock.wait(self._event, left)

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
            out.due = now + self._lease
            group.plan(number, out)
            taken.append(_received(out.stored, out.attempt, (number, out.attempt)))
        return taken

    def _owned(self, received: Received) -> int | None:
        """Return the number of the delivery if it is still ours, this attempt of it."""
        number, attempt = received.token
        out = self._group.out.get(number)
        if out is None or out.owner != self._member or out.attempt != attempt:
            return None
        return None if out.due <= self._driver.clock.now() else int(number)

    async def ack(self, records: Sequence[Received]) -> None:
        for received in records:
            number = self._owned(received)
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
        for received in records:
            number = self._owned(received)
            if number is not None:
                out = self._group.out[number]
                out.due = until
                self._group.plan(number, out)

    async def aclose(self) -> None:
        self._group.members.discard(self._event)
        for number, out in self._group.out.items():
            if out.owner == self._member:
                out.due = self._driver.clock.now()
                self._group.plan(number, out)
        self._group.wake()
