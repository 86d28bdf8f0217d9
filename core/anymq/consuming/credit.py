"""Credit: how many messages, and bytes, a subscription may hold unsettled at a time."""

from __future__ import annotations

from ..driver.options import MAX_BODY
from ..driver.specs import MAX_BYTES

SMALLEST = 32
LARGEST = 1000
AHEAD = 0.5
"""Seconds of work that may wait here for the handlers."""
GROWTH = 8
STALE = 1.0


class Credit:
    """Adapts the window to the handler.

    Members that share their messages begin with one for each handler (`concurrency`), so that
    the first one does not take what others could handle. The window grows while the handlers
    empty the buffer faster than it is filled, or do far more than it holds, up to `AHEAD` seconds
    of what they have been seen to do: fast ones reach the largest window within some five fetches,
    slow ones have nothing that waits for them. It halves when messages wait in the buffer for over
    a second.

    A `fixed` window stays as it is. Bytes are bounded in either case.
    """

    __slots__ = (
        "_average",
        "_fixed",
        "_floor",
        "_known",
        "_looked",
        "_most",
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
        self._most = MAX_BYTES if max_bytes is None else max_bytes
        self.held = 0
        self.bytes = 0
        self.window = 0 if fixed is None else fixed
        self.resize(concurrency)
        self._average = float(MAX_BODY)  # until one has come
        self._known = False
        self._settled = 0
        """Since the last look at the handlers' speed."""
        self._looked = 0.0

    def resize(self, concurrency: int) -> None:
        """The handlers are this many from now on."""
        self._floor = concurrency if self._shared else max(SMALLEST, 2 * concurrency)
        if not self._fixed:
            self.window = max(self.window, self._floor)

    def take(self, count: int, size: int) -> None:
        """So many messages, of `size` bytes together, are held."""
        self.held += count
        self.bytes += size
        average = size / count
        if average > self._average or not self._known:
            self._average = average  # at once: too much is worse than too little
            self._known = True
        else:
            self._average += (average - self._average) * min(1.0, count / 64)

    def give(self, count: int, size: int) -> None:
        """So many messages, of `size` bytes together, are settled."""
        self.held -= count
        self.bytes -= size
        self._settled += count

    def clear(self) -> None:
        """Nothing is held any more."""
        self.held = self.bytes = 0

    @property
    def room(self) -> int:
        """How many more may be fetched now."""
        by_bytes = int((self._most - self.bytes) / max(self._average, 1.0))
        if by_bytes < 1 and self.held == 0:
            by_bytes = 1
        return min(self.window - self.held, by_bytes)

    def fetched(self, *, full: bool, starved: bool, oldest_wait: float, now: float) -> None:
        """Adapt after a fetch: it came back full, the handlers were idle, the longest wait."""
        if self._fixed:
            return
        ahead = self._ahead(now)
        if full and (starved or ahead >= GROWTH * self.window):
            self.window = max(
                self.window, int(min(self.window * GROWTH, self._floor + ahead, LARGEST))
            )
        else:
            if oldest_wait > STALE:
                self.window = max(self.window // 2, self._floor)
            elif now - self._looked < STALE:
                return
            if self.held and not self._settled:
                return  # What they are at has taken them all this time.
        self._settled, self._looked = 0, now

    def _ahead(self, now: float) -> float:
        """How many messages the handlers do in `AHEAD`, by what they did since the last look."""
        seconds = now - self._looked
        # In no time: by a clock that a test moves.
        return self._settled * AHEAD / seconds if seconds > 0 else self._settled * LARGEST

    def stretch(self) -> None:
        """Widen the window for a handler that asks for more before it settles what it holds."""
        if not self._fixed:
            self.window = max(self.window, min(self.window * 2, LARGEST))
