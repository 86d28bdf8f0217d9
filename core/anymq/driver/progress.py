"""`Progress`: the watchdog for a source that stops delivering."""

from __future__ import annotations

import asyncio

from ..errors import text_of
from ..logs import logger
from .source import Reader, SourceLost

log = logger("anymq.consumer")

ANSWER_TIMEOUT = 5.0
"""Seconds within which the broker must answer a check."""
MAX_INTERVAL = 300.0
"""The most seconds between two checks of an idle source."""


class Stalled(SourceLost):
    """Raised if the broker has undelivered messages and delivers none."""


class Progress:
    """The watchdog of one source.

    A client library may stay connected and deliver nothing, because its reading task has stalled or
    the broker has dropped the consumer silently. So the watchdog calls `undelivered` of a source
    that had credit and returned nothing for `Source.stall` seconds. Two equal answers without a
    delivery in between mean that the source has stalled.
    """

    def __init__(self, source: Reader, now: float) -> None:
        self.source = source
        self._pause = source.stall
        self._next = now + self._pause
        self._seen: object = None

    def moved(self, now: float) -> None:
        """Restart the interval: the source has delivered, or there was no credit."""
        self._pause = self.source.stall
        self._next = now + self._pause
        self._seen = None

    async def look(self, now: float) -> bool:
        """Check the source if the interval has passed. Raises `Stalled` if it has stalled.

        Return True if the broker has answered that it has no undelivered message. If it does not
        answer, the check is repeated after the next interval.
        """
        if now < self._next:
            return False
        answered = False
        seen: object = None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                seen = await self.source.undelivered()
                answered = True
        except SourceLost:
            raise
        except Exception as error:
            log.debug("checking for undelivered messages failed: %s; retrying", text_of(error))
        if seen is not None and seen == self._seen:
            raise Stalled(f"the broker has undelivered messages and delivers none: {seen}")
        self._seen = seen
        self._pause = self.source.stall if seen is not None else min(2 * self._pause, MAX_INTERVAL)
        self._next = now + self._pause
        return answered and seen is None
