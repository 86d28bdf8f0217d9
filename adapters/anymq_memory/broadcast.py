"""`MemoryBroadcast`: a broadcast reader of one topic."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anymq.driver import Clock, Listener, Reader, Received, SourceLost, SubscribeSpec

from .messages import received
from .space.log import TopicLog


class MemoryBroadcast(Reader):
    """A broadcast reader. Its place is the log, and the sequence of the last record it returned."""

    def __init__(
        self, log: TopicLog, spec: SubscribeSpec, listener: Listener, clock: Clock
    ) -> None:
        self._log = log
        self._listener = listener
        self._clock = clock
        self._last = log.sequence_before(spec.start)
        if isinstance(spec.position, tuple):
            place_log, last = spec.position
            self._last = last if place_log is log else 0
        self._changed = asyncio.Event()
        log.readers.add(self._changed)

    @property
    def position(self) -> object:
        return self._log, self._last

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        clock = self._clock
        until = clock.monotonic() + wait
        while True:
            if self._log.deleted:
                raise SourceLost("the topic was deleted")
            found = self._log.after(self._last, limit)
            left = until - clock.monotonic()
            if found or limit == 0 or left <= 0:
                break
            self._changed.clear()
            await clock.wait(self._changed, self._log.bounded_wait(left))
        if found:
            if found[0].sequence > self._last + 1:
                self._listener.skipped(str(self._last), str(found[0].sequence))
            self._last = found[-1].sequence
        return [received(stored) for stored in found]

    async def aclose(self) -> None:
        self._log.readers.discard(self._changed)
