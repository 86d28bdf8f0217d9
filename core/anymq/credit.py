"""Credit: how many messages, and bytes, a subscription may hold unsettled at a time."""

from __future__ import annotations

SMALLEST = 32
LARGEST = 1000
MAX_BYTES = 32 * 1024 * 1024
STALE = 1.0


class Credit:
    """Adapts the window to the handler.

    It doubles while the handlers empty the buffer faster than it is filled, and halves when
    messages wait in the buffer for over a second, so that a slow member does not sit on messages
    others could handle. A `fixed` window stays as it is. Bytes are bounded in either case.
    """

    __slots__ = ("_average", "_fixed", "_floor", "_most", "bytes", "held", "window")

    def __init__(
        self, *, concurrency: int, fixed: int | None, max_bytes: int | None = None
    ) -> None:
        self._fixed = fixed is not None
        self._floor = max(1, concurrency)
        self._most = MAX_BYTES if max_bytes is None else max_bytes
        self.window = fixed if fixed is not None else max(SMALLEST, 2 * concurrency)
        self.held = 0
        self.bytes = 0
        self._average = 256.0

    def resize(self, concurrency: int) -> None:
        """The handlers are this many from now on."""
        self._floor = max(1, concurrency)
        if not self._fixed:
            self.window = max(self.window, 2 * concurrency)

    def take(self, count: int, size: int) -> None:
        """So many messages, of `size` bytes together, are held."""
        self.held += count
        self.bytes += size
        self._average += (size / count - self._average) * min(1.0, count / 64)

    def give(self, count: int, size: int) -> None:
        """So many messages, of `size` bytes together, are settled."""
        self.held -= count
        self.bytes -= size

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

    def fetched(self, *, full: bool, starved: bool, oldest_wait: float) -> None:
        """Adapt after a fetch: it came back full, the handlers were idle, the longest wait."""
        if self._fixed:
            return
        if full and starved:
            self.window = min(self.window * 2, LARGEST)
        elif oldest_wait > STALE:
            self.window = max(self.window // 2, self._floor)
