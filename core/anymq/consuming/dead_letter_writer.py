"""`Letterbox`: writes the dead letters of a session, whatever the broker says to them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from logging import ERROR, WARNING

from ..driver.clock import Clock
from ..driver.records import Received, Rejected
from ..driver.specs import Binding
from ..errors import AccessDenied, NotFound, PermanentError
from ..logs import logger
from ..wire.dead_letter_headers import TRACEBACK, reduced, reductions, without_traceback
from .delivery import Delivery

log = logger("anymq.dead_letters")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
MOST = 1000
"""Letters that wait without counting as held; those beyond it slow down the fetching."""

Write = Callable[[Sequence[Rejected]], Awaitable[BaseException | None]]
"""Stores letters and settles their messages, and repeats what may pass; returns what does not."""


class Pending:
    """A rejected delivery whose letter has not been stored."""

    __slots__ = ("counted", "delivery", "due", "item", "pause")

    def __init__(self, delivery: Delivery, item: Rejected) -> None:
        self.delivery = delivery
        self.item = item
        self.pause = 0.0
        self.due = 0.0
        self.counted = True
        """Whether it still counts as held by the subscription."""

    @property
    def topic(self) -> str:
        """Where the letter goes."""
        return self.item.letter.topic


class Letterbox:
    """Writes letters. No message is lost, and none is handled again, because of its letter.

    A letter that the broker refuses for good, as it is too large or holds what this broker cannot
    store, is written without what is at fault. One that cannot be written at all (no topic for it,
    no right to write there) waits here, its message unsettled, and is tried again after pauses
    that double, up to a minute. If the process ends meanwhile, the broker delivers it again.
    """

    def __init__(
        self,
        write: Write,
        *,
        binding: Binding,
        clock: Clock,
        forget: Callable[[Sequence[Received]], None],
    ) -> None:
        self.waiting: dict[Pending, None] = {}
        self._write = write
        self._binding = binding
        self._clock = clock
        self._forget = forget
        self._changed = asyncio.Event()

    async def bury(self, letters: Sequence[Pending]) -> None:
        """Write `letters`; on return each has been stored, or waits."""
        for topic in {item.topic for item in letters}:
            mine = [item for item in letters if item.topic == topic]
            for item, error in await self._refused(mine):
                left = error if _hopeless(error) else await self._reduce(item, error)
                if left is not None:
                    self._wait(item, left)
                    mine.remove(item)
            self._done(mine)

    def drop(self, unwanted: Callable[[Delivery], bool]) -> None:
        """Forget what waits of the `unwanted` deliveries: the broker delivers them again."""
        self._done([item for item in self.waiting if unwanted(item.delivery)])

    async def run(self) -> None:
        """Try again what waits, for ever."""
        while True:
            now = self._clock.monotonic()
            due = [item for item in self.waiting if item.due <= now]
            if due:
                await self._again(due)
                continue
            self._changed.clear()
            soonest = min((item.due for item in self.waiting), default=now + LONGEST_PAUSE)
            await self._clock.wait(self._changed, soonest - now)

    async def _again(self, due: Sequence[Pending]) -> None:
        for topic in {item.topic for item in due}:
            first, *others = [item for item in due if item.topic == topic]
            # One is enough to see that nothing can be written there yet.
            await self.bury([first])
            if first in self.waiting:
                for item in others:
                    self._postpone(item)
            elif others:
                await self.bury(others)

    async def _refused(self, letters: Sequence[Pending]) -> list[tuple[Pending, BaseException]]:
        """Write `letters`; return those that were refused, and why."""
        error = await self._write([item.item for item in letters])
        if error is None:
            return []
        if len(letters) == 1 or _hopeless(error):
            return [(item, error) for item in letters]
        return [pair for item in letters for pair in await self._refused([item])]

    async def _reduce(self, item: Pending, error: BaseException) -> BaseException | None:
        """Write what can be written of a letter; return what it was refused with if nothing can."""
        letter = item.item.letter
        if TRACEBACK in letter.own:
            letter = without_traceback(letter)
            refusal = await self._write([Rejected(item.item.received, letter)])
            if refusal is None or _hopeless(refusal):
                return refusal
            error = refusal
        for without in reductions(letter, error):
            smaller = reduced(letter, item.delivery, self._binding, without=without, error=error)
            refusal = await self._write([Rejected(item.item.received, smaller)])
            if refusal is None:
                log.seldom(
                    ("reduced", letter.topic),
                    WARNING,
                    "the dead letter of %s is without its %s: %s",
                    letter.id,
                    " and ".join(sorted(without)),
                    error,
                )
                return None
            if _hopeless(refusal):
                return refusal
        return error

    def _wait(self, item: Pending, error: BaseException) -> None:
        self._postpone(item)
        log.seldom(
            ("waits", item.topic),
            ERROR,
            "the dead letter of %s cannot be written to %s; the message is kept, the next try is "
            "in %g s: %s",
            item.item.letter.id,
            item.topic,
            item.pause,
            error,
        )
        if item.counted and len(self.waiting) <= MOST:
            item.counted = False
            self._forget([item.item.received])

    def _postpone(self, item: Pending) -> None:
        item.pause = min(item.pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        item.due = self._clock.monotonic() + item.pause
        self.waiting[item] = None
        self._changed.set()

    def _done(self, letters: Sequence[Pending]) -> None:
        for item in letters:
            self.waiting.pop(item, None)
        self._forget([item.item.received for item in letters if item.counted])


def _hopeless(error: BaseException) -> bool:
    """Whether it is not what is in a letter that keeps it out."""
    if isinstance(error, NotFound | AccessDenied):
        return True
    return not isinstance(error, PermanentError | ValueError | OverflowError | struct.error)
