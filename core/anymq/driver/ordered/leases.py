"""`LeaseManager`: the ownership leases of one member on partitions, by compare-and-set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from ...errors import NotFound, TransientError
from ...logs import logger
from ...tasks import supervise
from ..clock import Clock
from ..listener import Listener
from ..source import SourceLost
from ..specs import SubscribeSpec
from .balance import Moves, PartitionView, plan
from .lease_record import LeaseRecord
from .log import Cell, PartitionedLog
from .owned_partition import OwnedPartition

log = logger("anymq.ordered")

RENEW_SECONDS = 1.0
"""Seconds between two renewals, unless a quarter of the lease is shorter."""
DROP_FRACTION = 2 / 3
"""The fraction of the lease after which an owner drops a partition that it could not renew."""
RESERVE_RENEWALS = 3.0
"""Renewal intervals for which a free partition is reserved for the member that requested it."""
MAX_REWRITES = 10
"""The most times a write is repeated because other members changed the cells."""
STOP_SECONDS, CLOSE_SECONDS = 0.5, 1.0
"""Seconds to stop the renewal tasks, and seconds to free the partitions."""


class LeaseManager:
    """The partitions that one member owns, and the tasks that renew their leases.

    An owner renews a lease by writing a new beat. Another member takes a partition that is free, or
    whose cell has not changed for the owner's lease by its own monotonic clock. An owner that could
    not write for two thirds of its lease drops the partition before that. Writes run one after the
    other, and each one contains every change made before it.
    """

    def __init__(
        self,
        partitioned_log: PartitionedLog,
        spec: SubscribeSpec,
        listener: Listener,
        clock: Clock,
    ) -> None:
        self.owned: dict[int, OwnedPartition] = {}
        """The partitions of this member, by number."""
        self.changed = asyncio.Event()
        """Set whenever there may be something new to read."""
        self.error: Exception | None = None
        """The error of the last renewal; None if it succeeded."""
        self.vanished = False
        """Whether the cells have been deleted, and the group with them."""
        self._log = partitioned_log
        self._member = spec.member
        self._spec = spec
        self._listener = listener
        self._clock = clock
        self._lease = spec.ack_deadline
        self._interval = min(RENEW_SECONDS, self._lease / 4)
        # The last change seen in each cell of another member, and when it was seen.
        self._observed: dict[int, tuple[tuple[str, int, int | str], float]] = {}
        # Lost partitions whose handlers have not ended yet.
        self._revoking: set[int] = set()
        self._writing = asyncio.Lock()
        self._next_flush: asyncio.Task[None] | None = None
        self._flushes: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def start(self) -> None:
        """Create the group if it does not exist, and take partitions."""
        await self._create()
        await self._renew()
        self._loops = [
            supervise(self._renew_periodically(), name="anymq-partitions"),
            supervise(self._guard(), name="anymq-partitions-guard"),
        ]

    async def flush(self) -> None:
        """Return when every change made before has been written, or its partition has been lost.

        Callers that arrive during a write share the next one, and its error.
        """
        if self._next_flush is None:
            self._next_flush = asyncio.create_task(self._flush(), name="anymq-partitions-write")
            self._flushes.add(self._next_flush)
            self._next_flush.add_done_callback(self._flushed)
        shared = self._next_flush
        try:
            await asyncio.shield(shared)
        except asyncio.CancelledError:
            if shared.cancelled():
                raise SourceLost("this member has left its group") from None
            raise

    def drop_expired(self) -> None:
        """Drop every partition whose lease was not renewed in time.

        Another member may take such a partition soon.
        """
        limit = self._clock.monotonic() - self._lease * DROP_FRACTION
        self._lose([owned for owned in self.owned.values() if owned.renewed <= limit])

    @property
    def certain_until(self) -> float:
        """The monotonic time until which this member owns its partitions without a renewal."""
        now = self._clock.monotonic()
        oldest = min((owned.renewed for owned in self.owned.values()), default=now)
        return oldest + self._lease * DROP_FRACTION

    async def aclose(self) -> None:
        """Free all partitions. If the cells cannot be written within 1 s, their leases expire."""
        self._stop.set()
        try:
            if self._loops:
                await asyncio.wait(self._loops, timeout=STOP_SECONDS)
            for owned in self.owned.values():
                owned.leaving = owned.left = owned.dirty = True
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.flush()
        except Exception as error:
            log.debug(
                "%s could not free its partitions: %r; their leases expire", self._member, error
            )
        finally:
            for owned in list(self.owned.values()):
                self._drop(owned)
            tasks = [*self._loops, *self._tasks, *self._flushes]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Writing. The caller holds `_writing`.

    async def _flush(self) -> None:
        async with self._writing:
            self._next_flush = None  # Later callers need another write.
            await self._write({})

    async def _write(self, others: Mapping[int, Cell]) -> Mapping[int, int | None]:
        """Write the dirty partitions, and once the cells `others`; return the new revisions."""
        dirty = [owned for owned in self.owned.values() if owned.dirty]
        revisions = await self._save(dirty, others)
        for _ in range(MAX_REWRITES):
            dirty = [owned for owned in dirty if revisions[owned.number] is None and not owned.gone]
            if not dirty:
                return revisions
            # A member requests the partition or has taken it, or an earlier answer was lost.
            self._compare(await self._load(), dirty)
            dirty = [owned for owned in dirty if not owned.gone]
            revisions = {**revisions, **await self._save(dirty, {})}
        raise TransientError("the cells of the group change faster than they can be written")

    async def _save(
        self, dirty: Iterable[OwnedPartition], others: Mapping[int, Cell]
    ) -> Mapping[int, int | None]:
        cells = dict(others)
        for owned in dirty:
            owned.dirty = False
            cells[owned.number] = self._cell(owned)
        if not cells:
            return {}
        freed = [owned for owned in dirty if owned.left]
        started = self._clock.monotonic()
        revisions: Mapping[int, int | None] = {}
        try:
            revisions = await self._log.save(cells)
        finally:
            for owned in dirty:
                revision = revisions.get(owned.number)
                if revision is None:
                    owned.dirty = True
                else:
                    owned.revision, owned.renewed = revision, started
                    if owned in freed:
                        self._drop(owned)
        return revisions

    def _cell(self, owned: OwnedPartition) -> Cell:
        record = owned.lease_record(self._member, lease=self._lease, now=self._clock.now())
        return Cell(record.encode(), owned.revision)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._flushes.discard(task)
        if not task.cancelled():
            task.exception()  # Marks it as retrieved, in case every caller was cancelled.

    async def _load(self) -> dict[int, tuple[LeaseRecord, int]]:
        cells = await self._log.load()
        if len(cells) < self._log.partitions:
            self.vanished = True
            self.changed.set()
        return {n: (LeaseRecord.decode(cell.value), cell.revision) for n, cell in cells.items()}

    def _compare(
        self,
        records: Mapping[int, tuple[LeaseRecord, int]],
        owned_partitions: Iterable[OwnedPartition],
    ) -> None:
        """Take over the requests of other members; lose the partitions that they have taken."""
        lost: list[OwnedPartition] = []
        for owned in owned_partitions:
            record, owned.revision = records.get(owned.number, (None, 0))
            if record and (record.owner, record.epoch) == (self._member, owned.epoch):
                owned.wanted = record.wanted
            else:
                lost.append(owned)
        self._lose(lost)

    # Renewing.

    async def _create(self) -> None:
        """Create the cells of a new group, all in one write, so that all start at one time."""
        cells = await self._log.load()
        missing = [number for number in range(self._log.partitions) if number not in cells]
        if missing and not (cells or self._spec.create):
            raise NotFound(f"group {self._spec.native_group} does not exist")
        if missing:
            start = self._spec.start
            cursors = await asyncio.gather(*(self._log.cursor_at(n, start) for n in missing))
            new = zip(missing, cursors, strict=True)
            await self._log.save({n: Cell(LeaseRecord(cursor=c).encode(), 0) for n, c in new})

    async def _renew_periodically(self) -> None:
        interval = self._interval
        while not await self._clock.wait(self._stop, interval * random.uniform(0.8, 1.2)):
            try:
                requesting = await self._renew()
            except Exception as error:
                log.debug("%s could not renew its partitions: %r; retrying", self._member, error)
                self.error = error
                self.changed.set()
                requesting = False
            else:
                self.error = None
            interval = self._interval / 4 if requesting else self._interval

    async def _renew(self) -> bool:
        """Renew, take, request and grant partitions; return whether a request is open."""
        async with self._writing:
            records = await self._load()
            self._compare(records, list(self.owned.values()))
            views = self._views(records)
            moves = plan(views, self._member)
            taken = [self._taken(number, *records[number]) for number in moves.take]
            others = {owned.number: self._cell(owned) for owned in taken}
            others |= {number: self._request(*records[number]) for number in moves.request}
            self._mark_dirty(moves)
            revisions = await self._write(others)
            for owned in taken:
                self._own(owned, revisions[owned.number])
        self._hand_over([self.owned[n] for n in moves.grant if n in self.owned])
        member = self._member
        requesting = (view.wanted == member and view.owner != member for view in views.values())
        return bool(moves.request) or any(requesting)

    def _views(self, records: Mapping[int, tuple[LeaseRecord, int]]) -> dict[int, PartitionView]:
        now = self._clock.monotonic()
        return {number: self._view(number, record, now) for number, (record, _) in records.items()}

    def _view(self, number: int, record: LeaseRecord, now: float) -> PartitionView:
        owned = self.owned.get(number)
        if owned is not None:
            # A partition that is being handed over counts for the member that requested it.
            granted = owned.leaving and owned.wanted
            return PartitionView("" if granted else self._member, owned.wanted)
        if number in self._revoking:
            return PartitionView(self._member)
        # Requests are written into the owner's cell too, but only its own writes prove it alive.
        change = (record.owner, record.epoch, record.beat if record.owner else record.wanted)
        if self._observed.get(number, (None,))[0] != change:
            self._observed[number] = change, now
        unchanged = now - self._observed[number][1]
        if not record.owner:
            reserved = (
                record.wanted == self._member or unchanged < RESERVE_RENEWALS * self._interval
            )
            return PartitionView("", record.wanted if reserved else "")
        if self._is_same_subscription(record.owner) or unchanged >= record.lease:
            return PartitionView()
        return PartitionView(record.owner, record.wanted)

    def _taken(self, number: int, record: LeaseRecord, revision: int) -> OwnedPartition:
        if record.owner != self._member and self._is_same_subscription(record.owner):
            record.delivered = ""  # Its handlers were cancelled, which is not an attempt.
        owned = OwnedPartition(number, record, revision, self._clock.monotonic())
        owned.epoch += 1
        owned.wanted = ""
        return owned

    def _is_same_subscription(self, owner: str) -> bool:
        """Whether `owner` is this source, or an earlier one of the same subscription.

        The core numbers the sources of a subscription, and closes one before it opens the next. So
        an earlier source reads nothing any more, even if it could not free its partitions.
        """
        if owner == self._member:
            return True
        own, _, own_number = self._member.rpartition("-")
        other, _, other_number = owner.rpartition("-")
        return bool(own) and own == other and own_number.isdecimal() and other_number.isdecimal()

    def _request(self, record: LeaseRecord, revision: int) -> Cell:
        record.wanted = self._member
        return Cell(record.encode(), revision)

    def _own(self, owned: OwnedPartition, revision: int | None) -> None:
        if revision is not None:
            owned.revision = revision
            self.owned[owned.number] = owned
            self.changed.set()

    def _mark_dirty(self, moves: Moves) -> None:
        """Mark the partitions to write: requests refused, or no renewal for half an interval."""
        due = self._clock.monotonic() - self._interval / 2
        for number, owned in self.owned.items():
            if number in moves.refuse:
                owned.wanted = ""
                owned.dirty = True
            elif owned.renewed <= due:
                owned.dirty = True

    # Handing over and losing.

    def _hand_over(self, owned_partitions: list[OwnedPartition]) -> None:
        for owned in owned_partitions:
            owned.leaving = True
        if owned_partitions:
            self._run(self._free(owned_partitions))

    async def _free(self, owned_partitions: list[OwnedPartition]) -> None:
        await self._revoke(owned_partitions, gone=False)
        for owned in owned_partitions:
            owned.left = owned.dirty = True
        try:
            await self.flush()
        except Exception as error:
            log.debug("%s hands over at its next renewal: %r", self._member, error)

    def _lose(self, owned_partitions: list[OwnedPartition]) -> None:
        for owned in owned_partitions:
            self._drop(owned)
        running = [owned for owned in owned_partitions if not owned.left]
        if running:
            log.debug("%s lost partitions %s", self._member, [item.number for item in running])
            self._revoking.update(owned.number for owned in running)
            self._run(self._revoke_lost(running))

    async def _revoke_lost(self, owned_partitions: list[OwnedPartition]) -> None:
        try:
            await self._revoke(owned_partitions, gone=True)
        finally:
            self._revoking.difference_update(owned.number for owned in owned_partitions)

    async def _revoke(self, owned_partitions: list[OwnedPartition], *, gone: bool) -> None:
        try:
            await self._listener.revoke(frozenset(owned.number for owned in owned_partitions), gone)
        except Exception:
            log.exception("ending the handlers of lost partitions failed")

    def _drop(self, owned: OwnedPartition) -> None:
        owned.gone = True
        if self.owned.get(owned.number) is owned:
            del self.owned[owned.number]

    async def _guard(self) -> None:
        """Drop partitions that could not be renewed, before another member may take them."""
        while True:
            self.drop_expired()
            now = self._clock.monotonic()
            oldest = min((owned.renewed for owned in self.owned.values()), default=now)
            wait = oldest + self._lease * DROP_FRACTION - now
            if await self._clock.wait(self._stop, max(self._lease / 20, wait)):
                return

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = supervise(work, name="anymq-partitions-handover")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
