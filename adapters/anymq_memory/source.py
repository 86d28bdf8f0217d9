"""`MemorySource`: one member of an unordered group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from anymq.driver import (
    Clock,
    Nack,
    Outcome,
    Received,
    Record,
    Rejected,
    Source,
    SourceLost,
    StoreRecords,
    SubscribeSpec,
)

from .messages import PendingDelivery
from .space.group import Group
from .space.log import TopicLog


class MemorySource(Source):
    """One member of an unordered group, with a lease for each delivery.

    `append` stores records at once. So a dead letter is stored and its delivery settled with no
    other task in between.
    """

    def __init__(
        self,
        log: TopicLog,
        group: Group,
        spec: SubscribeSpec,
        *,
        clock: Clock,
        append: Callable[[Sequence[Record]], Sequence[Outcome]],
    ) -> None:
        self._log = log
        self._group = group
        self._clock = clock
        self._append = append
        self._member = spec.member
        self._lease = spec.ack_deadline
        self._changed = asyncio.Event()
        group.members[spec.member] = self._changed

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        clock = self._clock
        until = clock.monotonic() + wait
        while True:
            if self._group.deleted:
                raise SourceLost(f"the group {self._group.name} was deleted")
            taken = self._take(limit)
            left = until - clock.monotonic()
            if taken or limit == 0 or left <= 0:
                return taken
            self._changed.clear()
            await clock.wait(self._changed, self._log.bounded_wait(left, self._group.next_check()))

    def _take(self, limit: int) -> list[Received]:
        """Take redeliveries that are due, then new records."""
        now = self._clock.monotonic()
        group, until = self._group, now + self._lease
        taken: list[Received] = []
        while len(taken) < limit and (due := group.pop_due(now)) is not None:
            # One that still has an owner was not settled before its lease expired: that counts.
            attempt = due.attempt + (due.owner is not None)
            delivery = PendingDelivery(due.number, due.stored, attempt, self._member, now, until)
            group.pending[delivery.number] = delivery
            group.check_at(until, (delivery.number,))
            taken.append(delivery)
        fresh = self._log.records[group.cursor : group.cursor + limit - len(taken)]
        if fresh:
            first = group.next_number
            group.cursor += len(fresh)
            group.next_number += len(fresh)
            for number, stored in enumerate(fresh, first):
                delivery = group.pending[number] = PendingDelivery(
                    number, stored, 1, self._member, now, until
                )
                taken.append(delivery)
            group.check_at(until, range(first, group.next_number))
        return taken

    def _current(self, records: Iterable[Received]) -> list[PendingDelivery]:
        """Return the deliveries that this member still owns, without stale ones."""
        now, pending = self._clock.monotonic(), self._group.pending
        return [
            delivery
            for delivery in cast("Iterable[PendingDelivery]", records)
            if pending.get(delivery.number) is delivery and delivery.due > now
        ]

    async def ack(self, records: Sequence[Received]) -> None:
        for delivery in self._current(records):
            self._group.pending.pop(delivery.number, None)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        now = self._clock.monotonic()
        by_record = {id(nack.received): nack for nack in nacks}
        for delivery in self._current([nack.received for nack in nacks]):
            nack = by_record[id(delivery)]
            due = now + nack.delay
            self._group.pending[delivery.number] = PendingDelivery(
                delivery.number, delivery.stored, nack.attempt, None, delivery.taken, due
            )
            self._group.check_at(due, (delivery.number,))
        self._group.wake()

    async def release(self, nacks: Sequence[Nack]) -> None:
        await self.nack(nacks)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        for item in rejected:
            for delivery in self._current([item.received]):
                (outcome,) = self._append([item.letter])
                if isinstance(outcome, BaseException):
                    raise outcome
                del self._group.pending[delivery.number]

    async def extend(self, records: Sequence[Received]) -> None:
        until = self._clock.monotonic() + self._lease
        current = self._current(records)
        for delivery in current:
            delivery.due = until
        self._group.check_at(until, [delivery.number for delivery in current])

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        await self.extend(records)  # which never waits
        return True

    async def aclose(self) -> None:
        self._group.members.pop(self._member, None)
        now = self._clock.monotonic()
        left = [item for item in self._group.pending.values() if item.owner == self._member]
        for delivery in left:
            delivery.due = now
        self._group.check_at(now, [delivery.number for delivery in left])
        self._group.wake()
