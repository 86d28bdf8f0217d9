"""Leases on partitions: taken, kept alive, asked for, handed over and lost, by compare-and-set."""

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

BEAT = 1.0
"""Seconds between two renewals, unless a quarter of the lease is shorter."""
GIVE_UP = 2 / 3
"""The part of its lease after which an owner that could not renew it stops by itself."""
RESERVED = 3.0
"""How many renewals a free partition is kept for the member that asked for it."""
TRIES = 10
STOP_GRACE, CLOSE_GRACE = 0.5, 1.0


class LeaseManager:
    """The partitions of one member, `held`, and the tasks that keep them.

    An owner renews by writing a new beat. Another member takes a partition when its cell has not
    changed for the owner's lease, by its own monotonic clock, or when it is free. An owner that
    could not write for two thirds of the lease gives up before that. All writes happen in one
    lane, one after the other, and each carries everything that has gathered.
    """

    def __init__(
        self, cells: PartitionedLog, spec: SubscribeSpec, listener: Listener, clock: Clock
    ) -> None:
        self.held: dict[int, OwnedPartition] = {}
        self.changed = asyncio.Event()
        """Set whenever there may be something new to read."""
        self.error: Exception | None = None
        """Why the last renewal failed."""
        self.vanished = False
        """The cells have been deleted: this source has no place any more."""
        self._log = cells
        self._me = spec.member
        self._spec = spec
        self._listener = listener
        self._clock = clock
        self._lease = spec.ack_deadline
        self._pause = min(BEAT, self._lease / 4)
        self._seen: dict[int, tuple[tuple[str, int, int | str], float]] = {}
        self._ending: set[int] = set()
        self._lane = asyncio.Lock()
        self._round: asyncio.Task[None] | None = None
        self._rounds: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeping: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def start(self) -> None:
        """Make the group, where it does not exist, and take what is there to take."""
        await self._create()
        await self._renew()
        self._keeping = [
            supervise(self._keep(), name="anymq-partitions"),
            supervise(self._guard(), name="anymq-partitions-guard"),
        ]

    async def flush(self) -> None:
        """Return when earlier changes of the partitions have been written, or have been lost.

        Callers that come while a write is under way share the next one, and its error.
        """
        if self._round is None:
            self._round = asyncio.create_task(self._flush(), name="anymq-partitions-write")
            self._rounds.add(self._round)
            self._round.add_done_callback(self._written)
        shared = self._round
        try:
            await asyncio.shield(shared)
        except asyncio.CancelledError:
            if shared.cancelled():
                raise SourceLost("this member has left its group") from None
            raise

    def lapse(self) -> None:
        """Lose at once what could not be renewed in time: somebody else may take it soon."""
        limit = self._clock.monotonic() - self._lease * GIVE_UP
        self._lose([owned for owned in self.held.values() if owned.renewed <= limit])

    @property
    def certain_until(self) -> float:
        """Until when all that is held is ours, if nothing more is heard."""
        now = self._clock.monotonic()
        soonest = min((owned.renewed for owned in self.held.values()), default=now)
        return soonest + self._lease * GIVE_UP

    async def aclose(self) -> None:
        """Give up everything, cleanly if the cells can be written within a second."""
        self._stop.set()
        try:
            if self._keeping:
                await asyncio.wait(self._keeping, timeout=STOP_GRACE)
            for owned in self.held.values():
                owned.leaving = owned.left = owned.dirty = True
            async with asyncio.timeout(CLOSE_GRACE):
                await self.flush()
        except Exception as error:
            log.debug("%s could not give up its partitions: %r", self._me, error)
        finally:
            for owned in list(self.held.values()):
                self._drop(owned)
            tasks = [*self._keeping, *self._tasks, *self._rounds]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Writing. Only in the lane.

    async def _flush(self) -> None:
        async with self._lane:
            self._round = None  # who comes from now on is not part of this write
            await self._write({})

    async def _write(self, others: Mapping[int, Cell]) -> Mapping[int, int | None]:
        """Write what is dirty of ours, and `others`; return what became of those."""
        ours = [owned for owned in self.held.values() if owned.dirty]
        answers = await self._save(ours, others)
        for _ in range(TRIES):
            ours = [item for item in ours if answers[item.number] is None and not item.gone]
            if not ours:
                return answers
            # Somebody asks for it, or has taken it; or the answer to an earlier write was lost.
            self._compare(await self._load(), ours)
            ours = [owned for owned in ours if not owned.gone]
            answers = {**answers, **await self._save(ours, {})}
        raise TransientError("the cells of the group change faster than they can be written")

    async def _save(
        self, ours: Iterable[OwnedPartition], others: Mapping[int, Cell]
    ) -> Mapping[int, int | None]:
        cells = dict(others)
        for owned in ours:
            owned.dirty = False
            cells[owned.number] = self._cell(owned)
        if not cells:
            return {}
        given_up = [owned for owned in ours if owned.left]
        begun = self._clock.monotonic()
        answers: Mapping[int, int | None] = {}
        try:
            answers = await self._log.save(cells)
        finally:
            for owned in ours:
                revision = answers.get(owned.number)
                if revision is None:
                    owned.dirty = True
                else:
                    owned.revision, owned.renewed = revision, begun
                    if owned in given_up:
                        self._drop(owned)
        return answers

    def _cell(self, owned: OwnedPartition) -> Cell:
        content = owned.content(self._me, lease=self._lease, now=self._clock.now())
        return Cell(content.encode(), owned.revision)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        if not task.cancelled():
            task.exception()  # heard, also when nobody waits for the write any more

    async def _load(self) -> dict[int, tuple[LeaseRecord, int]]:
        cells = await self._log.load()
        if len(cells) < self._log.partitions:
            self.vanished = True
            self.changed.set()
        return {n: (LeaseRecord.decode(cell.value), cell.revision) for n, cell in cells.items()}

    def _compare(
        self,
        cells: Mapping[int, tuple[LeaseRecord, int]],
        owned_partitions: Iterable[OwnedPartition],
    ) -> None:
        """Learn what others have written into our cells; lose those that are ours no more."""
        lost: list[OwnedPartition] = []
        for owned in owned_partitions:
            content, owned.revision = cells.get(owned.number, (None, 0))
            if content and (content.owner, content.epoch) == (self._me, owned.epoch):
                owned.wanted = content.wanted
            else:
                lost.append(owned)
        self._lose(lost)

    # Renewing.

    async def _create(self) -> None:
        """Make the cells of a new group, all at once: no partition begins later than another."""
        cells = await self._log.load()
        missing = [number for number in range(self._log.partitions) if number not in cells]
        if missing and not (cells or self._spec.create):
            raise NotFound(f"there is no group {self._spec.native_group}")
        if missing:
            start = self._spec.start
            places = await asyncio.gather(*(self._log.place(n, start) for n in missing))
            new = zip(missing, places, strict=True)
            await self._log.save({n: Cell(LeaseRecord(cursor=p).encode(), 0) for n, p in new})

    async def _keep(self) -> None:
        pause = self._pause
        while not await self._clock.wait(self._stop, pause * random.uniform(0.8, 1.2)):
            try:
                expecting = await self._renew()
            except Exception as error:
                log.debug("%s could not renew its partitions: %r", self._me, error)
                self.error = error
                self.changed.set()
                expecting = False
            else:
                self.error = None
            pause = self._pause / 4 if expecting else self._pause

    async def _renew(self) -> bool:
        """Renew what we hold, take and ask for what we should; return whether we wait for some."""
        async with self._lane:
            cells = await self._load()
            self._compare(cells, list(self.held.values()))
            views = self._seats(cells)
            decided = plan(views, self._me)
            taking = [self._taken(number, *cells[number]) for number in decided.take]
            others = {owned.number: self._cell(owned) for owned in taking}
            others |= {number: self._asked(*cells[number]) for number in decided.ask}
            self._beat(decided)
            answers = await self._write(others)
            for owned in taking:
                self._hold(owned, answers[owned.number])
        self._hand_over([self.held[n] for n in decided.give if n in self.held])
        asking = (view.wanted == self._me and view.owner != self._me for view in views.values())
        return bool(decided.ask) or any(asking)

    def _seats(self, cells: Mapping[int, tuple[LeaseRecord, int]]) -> dict[int, PartitionView]:
        now = self._clock.monotonic()
        return {number: self._seat(number, content, now) for number, (content, _) in cells.items()}

    def _seat(self, number: int, content: LeaseRecord, now: float) -> PartitionView:
        owned = self.held.get(number)
        if owned is not None:
            # What we are giving up counts for whom it is kept.
            kept = owned.leaving and owned.wanted
            return PartitionView("" if kept else self._me, owned.wanted)
        if number in self._ending:
            return PartitionView(self._me)
        # Those who ask write into an owner's cell too: that is no sign of its life.
        sign = (content.owner, content.epoch, content.beat if content.owner else content.wanted)
        if self._seen.get(number, (None,))[0] != sign:
            self._seen[number] = sign, now
        still = now - self._seen[number][1]
        if not content.owner:
            reserved = content.wanted == self._me or still < RESERVED * self._pause
            return PartitionView("", content.wanted if reserved else "")
        if self._was_ours(content.owner) or still >= content.lease:
            return PartitionView()
        return PartitionView(content.owner, content.wanted)

    def _taken(self, number: int, content: LeaseRecord, revision: int) -> OwnedPartition:
        if content.owner != self._me and self._was_ours(content.owner):
            content.delivered = ""  # its handlers were cancelled: that is not an attempt
        owned = OwnedPartition(number, content, revision, self._clock.monotonic())
        owned.epoch += 1
        owned.wanted = ""
        return owned

    def _was_ours(self, owner: str) -> bool:
        """Whether `owner` is this source, or an earlier one of the same subscription.

        The engine closes one before it opens the next, and numbers them: nobody reads for the
        earlier one any more, even if it could not say so.
        """
        if owner == self._me:
            return True
        (mine, _, number), (theirs, _, earlier) = self._me.rpartition("-"), owner.rpartition("-")
        return bool(mine) and mine == theirs and number.isdecimal() and earlier.isdecimal()

    def _asked(self, content: LeaseRecord, revision: int) -> Cell:
        content.wanted = self._me
        return Cell(content.encode(), revision)

    def _hold(self, owned: OwnedPartition, revision: int | None) -> None:
        if revision is not None:
            owned.revision = revision
            self.held[owned.number] = owned
            self.changed.set()

    def _beat(self, decided: Moves) -> None:
        """Let everything be written again that was not written lately."""
        due = self._clock.monotonic() - self._pause / 2
        for number, owned in self.held.items():
            if number in decided.refuse:
                owned.wanted = ""
                owned.dirty = True
            elif owned.renewed <= due:
                owned.dirty = True

    # Giving up and losing.

    def _hand_over(self, owned_partitions: list[OwnedPartition]) -> None:
        for owned in owned_partitions:
            owned.leaving = True
        if owned_partitions:
            self._run(self._leave(owned_partitions))

    async def _leave(self, owned_partitions: list[OwnedPartition]) -> None:
        await self._revoke(owned_partitions, gone=False)
        for owned in owned_partitions:
            owned.left = owned.dirty = True
        try:
            await self.flush()
        except Exception as error:
            log.debug("%s will hand over at the next renewal: %r", self._me, error)

    def _lose(self, owned_partitions: list[OwnedPartition]) -> None:
        for owned in owned_partitions:
            self._drop(owned)
        running = [owned for owned in owned_partitions if not owned.left]
        if running:
            log.debug("%s lost partitions %s", self._me, [item.number for item in running])
            self._ending.update(owned.number for owned in running)
            self._run(self._end(running))

    async def _end(self, owned_partitions: list[OwnedPartition]) -> None:
        try:
            await self._revoke(owned_partitions, gone=True)
        finally:
            self._ending.difference_update(owned.number for owned in owned_partitions)

    async def _revoke(self, owned_partitions: list[OwnedPartition], *, gone: bool) -> None:
        try:
            await self._listener.revoke(frozenset(owned.number for owned in owned_partitions), gone)
        except Exception:
            log.exception("the handlers of lost partitions could not be ended")

    def _drop(self, owned: OwnedPartition) -> None:
        owned.gone = True
        if self.held.get(owned.number) is owned:
            del self.held[owned.number]

    async def _guard(self) -> None:
        """Give up what could not be renewed in time, before anybody else may take it."""
        while True:
            self.lapse()
            now = self._clock.monotonic()
            oldest = min((item.renewed for item in self.held.values()), default=now)
            wait = oldest + self._lease * GIVE_UP - now
            if await self._clock.wait(self._stop, max(self._lease / 20, wait)):
                return

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = supervise(work, name="anymq-partitions-handover")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
