"""`Held`: records that have been read before they are due."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator

from ..messages import KafkaReceived


def now_ms() -> float:
    """The wall clock: the only one that processes share."""
    return time.time() * 1000


class Held:
    """Records that are not due yet, soonest first; of equal ones the first that was read."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, KafkaReceived]] = []
        self._count = 0

    def push(self, due: int, record: KafkaReceived) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, record))

    def pop_due(self, limit: int) -> Iterator[KafkaReceived]:
        """Yield, and forget, up to `limit` records that are due."""
        now = now_ms()
        for _ in range(limit):
            if not self._heap or self._heap[0][0] > now:
                return
            yield heapq.heappop(self._heap)[2]

    def wait(self) -> float:
        """How many seconds until the next is due."""
        return max(0.0, (self._heap[0][0] - now_ms()) / 1000) if self._heap else float("inf")

    def drop_closed(self) -> None:
        """Forget the records of partitions that are no longer ours."""
        self._heap = [item for item in self._heap if not item[2].token.tracker.closed]
        heapq.heapify(self._heap)
