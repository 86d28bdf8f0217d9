"""Credit: how many messages, and bytes, a subscription may hold unsettled at a time."""

from __future__ import annotations

from ..driver.options import MAX_BODY
from ..driver.specs import MAX_BYTES

MIN_UNSHARED_WINDOW = 32
"""The smallest window, in messages, of a member that shares its messages with no other."""
MAX_WINDOW = 1000
"""The largest window in messages."""
AHEAD_SECONDS = 0.5
"""Seconds of the handlers' work that may be buffered."""
MAX_GROWTH = 8
"""The factor by which a window grows at most after one fetch."""
STALE_SECONDS = 1.0
"""Seconds in the buffer after which a message shows that the window is too large."""


class Credit:
    """The credit window of one subscription, adapted to the speed of its handlers.

    The window of members that share their messages starts at `concurrency`, one message for each
    handler. So the first member does not take messages that others could handle. The window grows
    while the handlers empty the buffer faster than it is filled, or handle far more than it holds.
    It grows up to `AHEAD_SECONDS` of their measured work. Fast handlers reach `MAX_WINDOW` within
    about five fetches; slow ones get no buffered messages. The window halves when messages wait in
    the buffer for more than `STALE_SECONDS`.

    A `fixed` window stays as it is. Bytes are bounded in either case.
    """

    __slots__ = (
        "_average",
        "_fixed",
        "_floor",
        "_known",
        "_max_bytes",
        "_measured_at",
        "_settled",
        "_shared",
        "bytes",
        "held",
        "window",
    )

    def __init__(
        self,
        *,
        concurrency: int,
        fixed: int | None,
        max_bytes: int | None = None,
        shared: bool = True,
    ) -> None:
        self._fixed = fixed is not None
        self._shared = shared
        self._max_bytes = MAX_BYTES if max_bytes is None else max_bytes
        self.held = 0
        self.bytes = 0
        self.window = 0 if fixed is None else fixed
        self.resize(concurrency)
        self._average = float(MAX_BODY)  # until the first message
        self._known = False
        self._settled = 0
        """Messages settled since the handlers' speed was last measured."""
        self._measured_at = 0.0

    def resize(self, concurrency: int) -> None:
        """Set the number of handlers."""
        self._floor = concurrency if self._shared else max(MIN_UNSHARED_WINDOW, 2 * concurrency)
        if not self._fixed:
            self.window = max(self.window, self._floor)

    def take(self, count: int, size: int) -> None:
        """Add `count` held messages, of `size` bytes in all."""
        self.held += count
        self.bytes += size
        average = size / count
        if average > self._average or not self._known:
            self._average = average  # at once, because too many bytes are worse than too few
            self._known = True
        else:
            self._average += (average - self._average) * min(1.0, count / 64)

    def free(self, count: int, size: int) -> None:
        """Subtract `count` settled messages, of `size` bytes in all."""
        self.held -= count
        self.bytes -= size
        self._settled += count

    def clear(self) -> None:
        """Count nothing as held."""
        self.held = self.bytes = 0

    @property
    def room(self) -> int:
        """The number of messages that may be fetched now."""
        by_bytes = int((self._max_bytes - self.bytes) / max(self._average, 1.0))
        if by_bytes < 1 and self.held == 0:
            by_bytes = 1
        return min(self.window - self.held, by_bytes)

    def fetched(self, *, full: bool, starved: bool, oldest_wait: float, now: float) -> None:
        """Adapt the window after a fetch.

        The fetch was `full` if it reached its limit, and the handlers were `starved` if they were
        idle before it. The longest wait in the buffer was `oldest_wait` seconds.
        """
        if self._fixed:
            return
        ahead = self._ahead(now)
        if full and (starved or ahead >= MAX_GROWTH * self.window):
            self.window = max(
                self.window, int(min(self.window * MAX_GROWTH, self._floor + ahead, MAX_WINDOW))
            )
        else:
            if oldest_wait > STALE_SECONDS:
                self.window = max(self.window // 2, self._floor)
            elif now - self._measured_at < STALE_SECONDS:
                return
            if self.held and not self._settled:
                return  # The handlers are still busy with the same messages.
        self._settled, self._measured_at = 0, now

    def _ahead(self, now: float) -> float:
        """Return how many messages the handlers complete in `AHEAD_SECONDS`, as last measured."""
        seconds = now - self._measured_at
        # On a virtual clock no time may have passed.
        return (
            self._settled * AHEAD_SECONDS / seconds if seconds > 0 else self._settled * MAX_WINDOW
        )

    def stretch(self) -> None:
        """Widen the window for a handler that asks for more before it settles what it holds."""
        if not self._fixed:
            self.window = max(self.window, min(self.window * 2, MAX_WINDOW))
