"""`LeasedSource`: an `OrderedSource` over a `PartitionedLog`, with leases on partitions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from ..clock import Clock
from ..listener import Listener
from ..records import Begun, Nack, Received, attempt_of
from ..source import OrderedSource, SourceLost
from ..specs import SubscribeSpec
from .leases import LeaseManager
from .log import PartitionedLog
from .owned_partition import OwnedPartition

MAX_READ_AHEAD = 1000
"""The most records read ahead of the first unsettled one of a partition."""
MAX_READ_SECONDS = 1.0
"""Seconds that one read may wait for records."""
CLOSE_SECONDS = 0.5
"""Seconds to close the log."""


def _first_attempt(record: Received) -> int:
    """Return the attempt that the first delivery of `record` showed."""
    return attempt_of(record) - record.redeliveries


class LeasedSource(OrderedSource):
    """One member of an ordered group, on a broker that has only logs and compare-and-set.

    Call `start` before any other method. The source owns `log` and closes it. One member at a time
    reads a partition, and the next one only after every handler working on it has ended. That holds
    as long as no process stalls for longer than its lease (`spec.ack_deadline`). A delivery is
    written durably before its record is dispatched. So the next owner knows which records may have
    crashed their process, and counts their starts. Deliveries that a member returned when it left
    cleanly are not counted.

    Acks are written into the lease records of their partitions, any number in one write. An
    unsettled record blocks its partition only when `MAX_READ_AHEAD` records after it have been
    read.
    """

    counts_starts = True

    def __init__(
        self, log: PartitionedLog, spec: SubscribeSpec, listener: Listener, clock: Clock
    ) -> None:
        self._log = log
        self._clock = clock
        self._leases = LeaseManager(log, spec, listener, clock)
        self._window = max(MAX_READ_AHEAD, spec.prefetch)
        self._ready: list[Received] = []
        self._closed = False

    async def start(self) -> None:
        """Join the group; create it at `spec.start` in all partitions if it does not exist.

        Raises `NotFound` if the group does not exist and `spec.create` is False. If this fails,
        the log is closed.
        """
        try:
            await self._leases.start()
        except BaseException:
            await self.aclose()
            raise

    @property
    def held(self) -> frozenset[int]:
        """The partitions that this member owns now."""
        return frozenset(self._leases.owned)

    def certain_until(self) -> float:
        self._leases.drop_expired()
        return self._leases.certain_until

    def owns(self, record: Received) -> bool:
        owned: OwnedPartition = record.token[0]
        return not owned.gone

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if self._leases.vanished:
            raise SourceLost("the group has been deleted")
        if limit <= 0:
            return []
        until = self._clock.monotonic() + wait
        while True:
            remaining = max(0.0, until - self._clock.monotonic())
            if not self._ready:
                await self._read(limit, min(remaining, MAX_READ_SECONDS))
            if self._ready:
                # Records whose flush fails stay in `_ready` for the next call.
                await self._leases.flush()
                if records := self._take_ready(limit):
                    return records
            elif self._closed or self._clock.monotonic() >= until:
                return []

    def _take_ready(self, limit: int) -> list[Received]:
        self._leases.drop_expired()
        ready, self._ready = self._ready[:limit], self._ready[limit:]
        return [record for record in ready if record.token[0].dispatching]

    async def _read(self, limit: int, wait: float) -> None:
        leases = self._leases
        leases.changed.clear()
        readable = self._readable()
        if not readable:
            await self._wait_for_change(wait)
            return
        cursors = {number: owned.read_cursor for number, owned in readable.items()}
        for record in await self._log.read(cursors, limit, wait):
            owned = readable[record.partition]
            if owned.dispatching and owned.add(record):
                self._ready.append(record)

    def _readable(self) -> dict[int, OwnedPartition]:
        """Return the partitions that are not read ahead to the limit."""
        return {
            number: owned
            for number, owned in self._leases.owned.items()
            if owned.dispatching and owned.span < self._window
        }

    async def _wait_for_change(self, wait: float) -> None:
        leases = self._leases
        if not leases.owned and leases.error is not None:
            error, leases.error = leases.error, None
            raise error
        await self._clock.wait(leases.changed, wait)

    async def undelivered(self) -> object:
        return await self._log.undelivered() if self._readable() else None

    async def ack(self, records: Sequence[Received]) -> None:
        for record in records:
            owned: OwnedPartition
            owned, position = record.token
            if owned.span >= self._window:
                self._leases.changed.set()
            owned.settle(position)
        await self._leases.flush()

    def known_attempt(self, record: Received) -> int | None:
        owned: OwnedPartition
        owned, position = record.token
        known = owned.known(position)
        return None if known is None else _first_attempt(record) + known

    async def begin(self, begun: Sequence[Begun]) -> None:
        for item in begun:
            owned: OwnedPartition
            owned, position = item.received.token
            owned.begin(position, item.attempt - _first_attempt(item.received))
        await self._leases.flush()

    async def keep(self, nacks: Sequence[Nack]) -> None:
        for nack in nacks:
            owned: OwnedPartition
            owned, position = nack.received.token
            owned.keep(position, nack.redeliveries, nack.due)
        await self._leases.flush()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ready.clear()
        try:
            await self._leases.aclose()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._log.aclose()
