"""`DeadLetterWriter`: stores dead letters, and retries those that the broker refuses."""

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
MAX_UNCOUNTED = 1000
"""The most waiting letters that do not count as held; more of them slow down fetching."""

Write = Callable[[Sequence[Rejected]], Awaitable[BaseException | None]]
"""Stores letters and settles their messages, retrying transient errors; returns the last error."""


class PendingLetter:
    """A rejected delivery whose letter has not been stored."""

    __slots__ = ("counted", "delivery", "due", "pause", "rejected")

    def __init__(self, delivery: Delivery, rejected: Rejected) -> None:
        self.delivery = delivery
        self.rejected = rejected
        self.pause = 0.0
        self.due = 0.0
        self.counted = True
        """Whether it still counts as held by the subscription."""

    @property
    def topic(self) -> str:
        """The dead-letter topic."""
        return self.rejected.letter.topic


class DeadLetterWriter:
    """Stores dead letters. No message is lost or handled again because of its letter.

    If the broker refuses a letter permanently (it is too large, or has a value that this broker
    cannot store), the letter is stored without the part at fault. If no letter can be stored (its
    topic is missing, access is denied), it waits here with its message unsettled. It is retried
    after 1 s, then after pauses that double up to 60 s. If the process ends meanwhile, the broker
    redelivers the message.
    """

    def __init__(
        self,
        write: Write,
        *,
        binding: Binding,
        clock: Clock,
        forget: Callable[[Sequence[Received]], None],
    ) -> None:
        self.waiting: dict[PendingLetter, None] = {}
        self._write = write
        self._binding = binding
        self._clock = clock
        self._forget = forget
        self._changed = asyncio.Event()

    async def write(self, letters: Sequence[PendingLetter]) -> None:
        """Store `letters`. On return each has been stored, or waits here."""
        for topic in {item.topic for item in letters}:
            of_topic = [item for item in letters if item.topic == topic]
            for item, error in await self._refused(of_topic):
                left = error if _refuses_all(error) else await self._reduce(item, error)
                if left is not None:
                    self._wait(item, left)
                    of_topic.remove(item)
            self._done(of_topic)

    def drop(self, unwanted: Callable[[Delivery], bool]) -> None:
        """Drop the waiting letters of `unwanted` deliveries: the broker redelivers these."""
        self._done([item for item in self.waiting if unwanted(item.delivery)])

    async def run(self) -> None:
        """Retry the waiting letters indefinitely."""
        while True:
            now = self._clock.monotonic()
            due = [item for item in self.waiting if item.due <= now]
            if due:
                await self._again(due)
                continue
            self._changed.clear()
            soonest = min((item.due for item in self.waiting), default=now + LONGEST_PAUSE)
            await self._clock.wait(self._changed, soonest - now)

    async def _again(self, due: Sequence[PendingLetter]) -> None:
        for topic in {item.topic for item in due}:
            first, *others = [item for item in due if item.topic == topic]
            # One letter shows whether the topic accepts letters by now.
            await self.write([first])
            if first in self.waiting:
                for item in others:
                    self._postpone(item)
            elif others:
                await self.write(others)

    async def _refused(
        self, letters: Sequence[PendingLetter]
    ) -> list[tuple[PendingLetter, BaseException]]:
        """Store `letters`; return those that were refused, with the errors."""
        error = await self._write([item.rejected for item in letters])
        if error is None:
            return []
        if len(letters) == 1 or _refuses_all(error):
            return [(item, error) for item in letters]
        return [pair for item in letters for pair in await self._refused([item])]

    async def _reduce(self, item: PendingLetter, error: BaseException) -> BaseException | None:
        """Store a letter without the refused part; return the error if that is refused as well."""
        letter = item.rejected.letter
        if TRACEBACK in letter.own:
            letter = without_traceback(letter)
            refusal = await self._write([Rejected(item.rejected.received, letter)])
            if refusal is None or _refuses_all(refusal):
                return refusal
            error = refusal
        for without in reductions(letter, error):
            smaller = reduced(
                letter,
                item.delivery.message,
                self._binding,
                position=item.delivery.position,
                without=without,
                error=error,
            )
            refusal = await self._write([Rejected(item.rejected.received, smaller)])
            if refusal is None:
                log.seldom(
                    ("reduced", letter.topic),
                    WARNING,
                    "dead letter of message %s stored without its %s: %s",
                    letter.id,
                    " and ".join(sorted(without)),
                    error,
                )
                return None
            if _refuses_all(refusal):
                return refusal
        return error

    def _wait(self, item: PendingLetter, error: BaseException) -> None:
        self._postpone(item)
        log.seldom(
            ("waits", item.topic),
            ERROR,
            "storing the dead letter of message %s in %s failed: %s; the message stays unsettled, "
            "retrying in %g s",
            item.rejected.letter.id,
            item.topic,
            error,
            item.pause,
        )
        if item.counted and len(self.waiting) <= MAX_UNCOUNTED:
            item.counted = False
            self._forget([item.rejected.received])

    def _postpone(self, item: PendingLetter) -> None:
        item.pause = min(item.pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        item.due = self._clock.monotonic() + item.pause
        self.waiting[item] = None
        self._changed.set()

    def _done(self, letters: Sequence[PendingLetter]) -> None:
        for item in letters:
            self.waiting.pop(item, None)
        self._forget([item.rejected.received for item in letters if item.counted])


def _refuses_all(error: BaseException) -> bool:
    """Whether the broker would refuse any letter, whatever its content."""
    if isinstance(error, NotFound | AccessDenied):
        return True
    return not isinstance(error, PermanentError | ValueError | OverflowError | struct.error)
