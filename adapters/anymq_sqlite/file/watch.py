"""`Watch`: who waits for which topic."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable

# What is due is looked for this much later, lest a clock that ticks coarsely make the look vain.
_SLACK = 0.001


class Watch:
    """Wakes the sources of a driver; lives on the event loop."""

    def __init__(self) -> None:
        self._events: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def add(self, topic: str) -> asyncio.Event:
        """Return an event that is set whenever `topic` may have something to take."""
        event = asyncio.Event()
        self._events[topic].add(event)
        return event

    def remove(self, topic: str, event: asyncio.Event) -> None:
        """Forget `event`."""
        events = self._events[topic]
        events.discard(event)
        if not events:
            del self._events[topic]

    async def wait(self, event: asyncio.Event, deadline: float, wait: float | None) -> bool:
        """Return when `event` is set, at the monotonic `deadline`, or after `wait` seconds.

        False if the deadline had passed before.
        """
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        if wait is not None:
            remaining = min(remaining, max(0.0, wait) + _SLACK)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), remaining)
        return True

    def wake(self, topics: Iterable[str]) -> None:
        """Set the events of `topics`."""
        for topic in topics:
            for event in self._events.get(topic, ()):
                event.set()

    def wake_all(self) -> None:
        """Set all events."""
        self.wake(self._events)
