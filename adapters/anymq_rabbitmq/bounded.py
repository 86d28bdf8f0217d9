"""`BoundedStream`: reads a stream with a window that goes by the size of its messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from . import convert
from .consumer import Consumer, Delivery
from .link import Link

HELD = 2 * 1024 * 1024
"""Bytes of a window. Copying holds a few: what comes next, and the copies on their way."""
FEWEST, MOST = 4, 250
"""Messages of a window. The most is what may come before it is seen that they have become large."""


class BoundedStream:
    """The messages of a stream from `place` on, a few megabytes at a time.

    The server counts messages, not bytes: so the first window is small, and the stream is consumed
    anew, from where it is, when another one fits the messages better.
    """

    def __init__(self, link: Link, stream: str, place: str | int) -> None:
        self._link = link
        self._stream = stream
        self._place = place
        self._window = FEWEST
        self._size = 0.0
        self._seen = 0
        """How many have come since the window has its size."""
        self._consumer: Consumer | None = None

    async def open(self) -> None:
        """Start consuming."""
        self._seen = 0
        self._consumer = await Consumer.open(
            self._link,
            self._stream,
            prefetch=self._window,
            arguments={"x-stream-offset": self._place},
        )

    async def take(self, wait: float) -> list[Delivery]:
        """Take what is there, waiting up to `wait` seconds. What was taken before is settled."""
        fitting = max(FEWEST, min(MOST, int(HELD / max(self._size, 1.0))))
        larger = fitting >= 2 * self._window and self._seen >= self._window
        if larger or 2 * fitting <= self._window:
            self._window = min(fitting, 4 * self._window)
            await self.aclose()
            await self.open()
        assert self._consumer is not None
        taken = await self._consumer.take(MOST, wait)
        if taken:
            self._place = convert.offset(taken[-1]) + 1
            size = sum(len(one.body) for one in taken) / len(taken)
            self._size = max(size, (self._size + size) / 2)
            self._seen += len(taken)
        return taken

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Undo a `take`, or the end of it."""
        assert self._consumer is not None
        if deliveries:
            self._place = convert.offset(deliveries[0])
            self._consumer.put_back(deliveries)

    async def ack(self, tags: Collection[int]) -> None:
        """Let the server send more."""
        assert self._consumer is not None
        await self._consumer.ack(tags)

    async def aclose(self) -> None:
        """End it."""
        if self._consumer is not None:
            await self._consumer.aclose()
