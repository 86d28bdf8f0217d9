"""`Progress`: notices a source that should be moving and is not."""

from __future__ import annotations

import asyncio

from ..errors import text_of
from ..logs import logger
from .source import Reader, SourceLost

log = logger("anymq.consumer")

TIMEOUT = 5.0
"""Seconds that the broker has to answer."""
LONGEST = 300.0
"""Seconds between two looks at a source that has long been idle."""


class Progress:
    """The watchdog of one source.

    A client library may go on living and deliver nothing: its reading task has stalled, or the
    broker has dropped a consumer without a word. So a source that had room and returned nothing for
    `Source.stall` seconds is asked for what is `undelivered`. If it gives the same answer twice,
    and delivered nothing in between, the source has stalled.
    """

    def __init__(self, source: Reader, now: float) -> None:
        self.source = source
        self._pause = source.stall
        self._next = now + self._pause
        self._seen: object = None

    def moved(self, now: float) -> None:
        """Something was delivered, or the source was not asked for anything."""
        self._pause = self.source.stall
        self._next = now + self._pause
        self._seen = None

    async def look(self, now: float) -> None:
        """Look, if it is time. Raises `SourceLost` if the source has stalled.

        If the broker does not answer, the next look asks it again.
        """
        if now < self._next:
            return
        seen: object = None
        try:
            async with asyncio.timeout(TIMEOUT):
                seen = await self.source.undelivered()
        except SourceLost:
            raise
        except Exception as error:
            log.debug("the broker does not say what is undelivered: %s", text_of(error))
        if seen is not None and seen == self._seen:
            raise SourceLost(f"messages wait, and none is delivered: {seen}")
        self._seen = seen
        self._pause = self.source.stall if seen is not None else min(2 * self._pause, LONGEST)
        self._next = now + self._pause
