"""`Watch`: who waits for which topic."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable


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

    def wake(self, topics: Iterable[str]) -> None:
        """Set the events of `topics`."""
        for topic in topics:
            for event in self._events.get(topic, ()):
                event.set()

    def wake_all(self) -> None:
        """Set all events."""
        self.wake(self._events)
