"""`LeasedSource`: a `Source` that reads each partition by one member at a time, in order."""

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

WINDOW = 1000
"""How far reading may be ahead of the first unsettled record of a partition, in records."""
LONGEST_READ = 1.0
CLOSE_GRACE = 0.5


def _first(record: Received) -> int:
    """Return the attempt that the first delivery of `record` shows."""
    return attempt_of(record) - record.redeliveries


class LeasedSource(OrderedSource):
    """One member of an ordered group, on a broker that has only logs and compare-and-set.

    Call `start` before anything else. It owns `log`, and closes it. A partition is read by one
    member at a time, and by the next one only when nothing of it is in a handler any more, as
    long as no process is stopped for longer than a lease (`spec.ack_deadline`). Before a record
    is handed out its delivery is noted durably, so that the next owner knows which may have taken
    their process down with them, and counts their starts. What a member that left cleanly gave
    back is not counted.

    Acks go into the cells of their partitions, any number in one write. A record that stays
    unsettled holds up its partition only when `WINDOW` records behind it have been read.
    """

    counts_starts = True

    def __init__(
        self, log: PartitionedLog, spec: SubscribeSpec, listener: Listener, clock: Clock
    ) -> None:
        self._log = log
        self._clock = clock
        self._leases = LeaseManager(log, spec, listener, clock)
        self._window = max(WINDOW, spec.prefetch)
        self._ready: list[Received] = []
        self._closed = False

    async def start(self) -> None:
        """Join the group, making it at `spec.start` if it does not exist, in all its partitions.

        Raises `NotFound` if it does not exist and `spec.create` is False. The log is closed when
        this fails.
        """
        try:
            await self._leases.start()
        except BaseException:
            await self.aclose()
            raise

    @property
    def held(self) -> frozenset[int]:
        """The partitions that this member owns now."""
        return frozenset(self._leases.held)

    def certain_until(self) -> float:
        self._leases.lapse()
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
            left = max(0.0, until - self._clock.monotonic())
            if not self._ready:
                await self._read(limit, min(left, LONGEST_READ))
            if self._ready:
                # What has been read is handed out once that is durable, now or the next time.
                await self._leases.flush()
                if records := self._handed_out(limit):
                    return records
            elif self._closed or self._clock.monotonic() >= until:
                return []

    def _handed_out(self, limit: int) -> list[Received]:
        self._leases.lapse()
        ready, self._ready = self._ready[:limit], self._ready[limit:]
        return [record for record in ready if record.token[0].handing_out]

    async def _read(self, limit: int, wait: float) -> None:
        leases = self._leases
        leases.changed.clear()
        asked = self._with_room()
        if not asked:
            await self._nothing_to_read(wait)
            return
        behind = {number: owned.behind for number, owned in asked.items()}
        for record in await self._log.read(behind, limit, wait):
            owned = asked[record.partition]
            if owned.handing_out and owned.take(record):
                self._ready.append(record)

    def _with_room(self) -> dict[int, OwnedPartition]:
        """Return the partitions of which more may be read."""
        return {
            number: owned
            for number, owned in self._leases.held.items()
            if owned.handing_out and owned.span < self._window
        }

    async def _nothing_to_read(self, wait: float) -> None:
        leases = self._leases
        if not leases.held and leases.error is not None:
            error, leases.error = leases.error, None
            raise error
        await self._clock.wait(leases.changed, wait)

    async def undelivered(self) -> object:
        return await self._log.undelivered() if self._with_room() else None

    async def ack(self, records: Sequence[Received]) -> None:
        for record in records:
            owned: OwnedPartition
            owned, place = record.token
            if owned.span >= self._window:
                self._leases.changed.set()
            owned.done(place)
        await self._leases.flush()

    def known_attempt(self, record: Received) -> int | None:
        owned: OwnedPartition
        owned, place = record.token
        known = owned.known(place)
        return None if known is None else _first(record) + known

    async def begin(self, begun: Sequence[Begun]) -> None:
        for item in begun:
            owned: OwnedPartition
            owned, place = item.received.token
            owned.begin(place, item.attempt - _first(item.received))
        await self._leases.flush()

    async def keep(self, nacks: Sequence[Nack]) -> None:
        for nack in nacks:
            owned: OwnedPartition
            owned, place = nack.received.token
            owned.keep(place, nack.redeliveries, nack.due)
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
                async with asyncio.timeout(CLOSE_GRACE):
                    await self._log.aclose()
