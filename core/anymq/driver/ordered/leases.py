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
from .balance import Plan, Seat, plan
from .lease_record import Content
from .log import Cell, PartitionedLog
from .owned_partition import Holding

log = logger("anymq.ordered")

BEAT = 1.0
"""Seconds between two renewals, unless a quarter of the lease is shorter."""
GIVE_UP = 2 / 3
"""The part of its lease after which an owner that could not renew it stops by itself."""
RESERVED = 3.0
"""How many renewals a free partition is kept for the member that asked for it."""
TRIES = 10
STOP_GRACE, CLOSE_GRACE = 0.5, 1.0


class Keeper:
    """The partitions of one member, `held`, and the tasks that keep them.

    An owner renews by writing a new beat. Another member takes a partition when its cell has not
    changed for the owner's lease, by its own monotonic clock, or when it is free. An owner that
    could not write for two thirds of the lease gives up before that. All writes happen in one
    lane, one after the other, and each carries everything that has gathered.
    """

    def __init__(
        self, cells: PartitionedLog, spec: SubscribeSpec, listener: Listener, clock: Clock
    ) -> None:
        self.held: dict[int, Holding] = {}
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
        """Return when everything said to the holdings before has been written, or has been lost.

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
        self._lose([holding for holding in self.held.values() if holding.renewed <= limit])

    @property
    def certain_until(self) -> float:
        """Until when all that is held is ours, if nothing more is heard."""
        now = self._clock.monotonic()
        soonest = min((holding.renewed for holding in self.held.values()), default=now)
        return soonest + self._lease * GIVE_UP

    async def aclose(self) -> None:
        """Give up everything, cleanly if the cells can be written within a second."""
        self._stop.set()
        try:
            if self._keeping:
                await asyncio.wait(self._keeping, timeout=STOP_GRACE)
            for holding in self.held.values():
                holding.leaving = holding.left = holding.dirty = True
            async with asyncio.timeout(CLOSE_GRACE):
                await self.flush()
        except Exception as error:
            log.debug("%s could not give up its partitions: %r", self._me, error)
        finally:
            for holding in list(self.held.values()):
                self._drop(holding)
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
        ours = [holding for holding in self.held.values() if holding.dirty]
        answers = await self._save(ours, others)
        for _ in range(TRIES):
            ours = [item for item in ours if answers[item.number] is None and not item.gone]
            if not ours:
                return answers
            # Somebody asks for it, or has taken it; or the answer to an earlier write was lost.
            self._compare(await self._load(), ours)
            ours = [holding for holding in ours if not holding.gone]
            answers = {**answers, **await self._save(ours, {})}
        raise TransientError("the cells of the group change faster than they can be written")

    async def _save(
        self, ours: Iterable[Holding], others: Mapping[int, Cell]
    ) -> Mapping[int, int | None]:
        cells = dict(others)
        for holding in ours:
            holding.dirty = False
            cells[holding.number] = self._cell(holding)
        if not cells:
            return {}
        given_up = [holding for holding in ours if holding.left]
        begun = self._clock.monotonic()
        answers: Mapping[int, int | None] = {}
        try:
            answers = await self._log.save(cells)
        finally:
            for holding in ours:
                revision = answers.get(holding.number)
                if revision is None:
                    holding.dirty = True
                else:
                    holding.revision, holding.renewed = revision, begun
                    if holding in given_up:
                        self._drop(holding)
        return answers

    def _cell(self, holding: Holding) -> Cell:
        content = holding.content(self._me, lease=self._lease, now=self._clock.now())
        return Cell(content.encode(), holding.revision)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        if not task.cancelled():
            task.exception()  # heard, also when nobody waits for the write any more

    async def _load(self) -> dict[int, tuple[Content, int]]:
        cells = await self._log.load()
        if len(cells) < self._log.partitions:
            self.vanished = True
            self.changed.set()
        return {n: (Content.decode(cell.value), cell.revision) for n, cell in cells.items()}

    def _compare(
        self, cells: Mapping[int, tuple[Content, int]], holdings: Iterable[Holding]
    ) -> None:
        """Learn what others have written into our cells; lose those that are ours no more."""
        lost: list[Holding] = []
        for holding in holdings:
            content, holding.revision = cells.get(holding.number, (None, 0))
            if content and (content.owner, content.epoch) == (self._me, holding.epoch):
                holding.wanted = content.wanted
            else:
                lost.append(holding)
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
            await self._log.save({n: Cell(Content(cursor=p).encode(), 0) for n, p in new})

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
            seats = self._seats(cells)
            decided = plan(seats, self._me)
            taking = [self._taken(number, *cells[number]) for number in decided.take]
            others = {holding.number: self._cell(holding) for holding in taking}
            others |= {number: self._asked(*cells[number]) for number in decided.ask}
            self._beat(decided)
            answers = await self._write(others)
            for holding in taking:
                self._hold(holding, answers[holding.number])
        self._hand_over([self.held[n] for n in decided.give if n in self.held])
        asking = (seat.wanted == self._me and seat.owner != self._me for seat in seats.values())
        return bool(decided.ask) or any(asking)

    def _seats(self, cells: Mapping[int, tuple[Content, int]]) -> dict[int, Seat]:
        now = self._clock.monotonic()
        return {number: self._seat(number, content, now) for number, (content, _) in cells.items()}

    def _seat(self, number: int, content: Content, now: float) -> Seat:
        holding = self.held.get(number)
        if holding is not None:
            # What we are giving up counts for whom it is kept.
            kept = holding.leaving and holding.wanted
            return Seat("" if kept else self._me, holding.wanted)
        if number in self._ending:
            return Seat(self._me)
        # Those who ask write into an owner's cell too: that is no sign of its life.
        sign = (content.owner, content.epoch, content.beat if content.owner else content.wanted)
        if self._seen.get(number, (None,))[0] != sign:
            self._seen[number] = sign, now
        still = now - self._seen[number][1]
        if not content.owner:
            reserved = content.wanted == self._me or still < RESERVED * self._pause
            return Seat("", content.wanted if reserved else "")
        if self._was_ours(content.owner) or still >= content.lease:
            return Seat()
        return Seat(content.owner, content.wanted)

    def _taken(self, number: int, content: Content, revision: int) -> Holding:
        if content.owner != self._me and self._was_ours(content.owner):
            content.delivered = ""  # its handlers were cancelled: that is not an attempt
        holding = Holding(number, content, revision, self._clock.monotonic())
        holding.epoch += 1
        holding.wanted = ""
        return holding

    def _was_ours(self, owner: str) -> bool:
        """Whether `owner` is this source, or an earlier one of the same subscription.

        The engine closes one before it opens the next, and numbers them: nobody reads for the
        earlier one any more, even if it could not say so.
        """
        if owner == self._me:
            return True
        (mine, _, number), (theirs, _, earlier) = self._me.rpartition("-"), owner.rpartition("-")
        return bool(mine) and mine == theirs and number.isdecimal() and earlier.isdecimal()

    def _asked(self, content: Content, revision: int) -> Cell:
        content.wanted = self._me
        return Cell(content.encode(), revision)

    def _hold(self, holding: Holding, revision: int | None) -> None:
        if revision is not None:
            holding.revision = revision
            self.held[holding.number] = holding
            self.changed.set()

    def _beat(self, decided: Plan) -> None:
        """Let everything be written again that was not written lately."""
        due = self._clock.monotonic() - self._pause / 2
        for number, holding in self.held.items():
            if number in decided.refuse:
                holding.wanted = ""
                holding.dirty = True
            elif holding.renewed <= due:
                holding.dirty = True

    # Giving up and losing.

    def _hand_over(self, holdings: list[Holding]) -> None:
        for holding in holdings:
            holding.leaving = True
        if holdings:
            self._run(self._leave(holdings))

    async def _leave(self, holdings: list[Holding]) -> None:
        await self._revoke(holdings, gone=False)
        for holding in holdings:
            holding.left = holding.dirty = True
        try:
            await self.flush()
        except Exception as error:
            log.debug("%s will hand over at the next renewal: %r", self._me, error)

    def _lose(self, holdings: list[Holding]) -> None:
        for holding in holdings:
            self._drop(holding)
        running = [holding for holding in holdings if not holding.left]
        if running:
            log.debug("%s lost partitions %s", self._me, [item.number for item in running])
            self._ending.update(holding.number for holding in running)
            self._run(self._end(running))

    async def _end(self, holdings: list[Holding]) -> None:
        try:
            await self._revoke(holdings, gone=True)
        finally:
            self._ending.difference_update(holding.number for holding in holdings)

    async def _revoke(self, holdings: list[Holding], *, gone: bool) -> None:
        try:
            await self._listener.revoke(frozenset(holding.number for holding in holdings), gone)
        except Exception:
            log.exception("the handlers of lost partitions could not be ended")

    def _drop(self, holding: Holding) -> None:
        holding.gone = True
        if self.held.get(holding.number) is holding:
            del self.held[holding.number]

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
