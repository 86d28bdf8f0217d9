"""`DelayQueue`: records of delay topics that were read before they are due."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from ..messages import KafkaReceived, now_ms


class DelayQueue:
    """Records that are not due yet, earliest due time first, then in the order of reading.

    It keeps `delayed_count` and `delayed_bytes` of their partitions.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, KafkaReceived]] = []
        self._count = 0

    def push(self, due: int, record: KafkaReceived) -> None:
        """Add `record`, due at `due` milliseconds since the epoch."""
        partition = record.token
        partition.delayed_count += 1
        partition.delayed_bytes += record.size
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, record))

    def pop_due(self, limit: int) -> Iterator[KafkaReceived]:
        """Remove and yield up to `limit` records that are due."""
        now = now_ms()
        for _ in range(limit):
            if not self._heap or self._heap[0][0] > now:
                return
            record = heapq.heappop(self._heap)[2]
            partition = record.token
            partition.delayed_count -= 1
            partition.delayed_bytes -= record.size
            yield record

    def wait(self) -> float:
        """Return the seconds until the next record is due."""
        return max(0.0, (self._heap[0][0] - now_ms()) / 1000) if self._heap else float("inf")

    def drop_closed(self) -> None:
        """Remove the records of partitions that this member no longer owns."""
        self._heap = [item for item in self._heap if not item[2].token.tracker.closed]
        heapq.heapify(self._heap)
