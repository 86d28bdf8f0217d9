"""Maintenance by a group member: it trims delay topics, and reports messages deleted unread."""

from __future__ import annotations

import asyncio

from anymq.driver import logger, supervise

from ..client.compat import AIOKafkaConsumer, TopicPartition, kafka
from ..topology import Topology

log = logger("anymq.kafka")

TRIM_SECONDS = 30.0
"""Between two trims."""
LOOK_UP_SECONDS = 5.0
LOSS_CHECK_SECONDS = 5.0
"""Between two checks for lost messages. In a topic of transactions most gaps are no loss."""


class Trimmer:
    """Deletes settled records from delay topics, in which nothing expires."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._next = 0.0
        self._settled: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None

    def settled(self, tp: TopicPartition, below: int) -> None:
        """Delete the records below the offset `below`, now or with a later trim."""
        self._settled[tp] = below
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + TRIM_SECONDS
            before, self._settled = self._settled, {}
            self._task = supervise(self._trim(before), name="anymq-kafka-trim")

    def close(self) -> None:
        """Stop trimming."""
        if self._task is not None:
            self._task.cancel()

    async def _trim(self, before: dict[TopicPartition, int]) -> None:
        try:
            await self._topology.trim(before)
        except (kafka.KafkaError, OSError) as error:
            log.debug("deleting settled records of %s failed: %r", list(before), error)


class LossReporter:
    """Logs the messages that were deleted before the group had read them.

    A gap in the offsets is a loss only where the log begins above the gap's first offset.
    """

    def __init__(self, consumer: AIOKafkaConsumer, group: str) -> None:
        self._consumer = consumer
        self._group = group
        self._gaps: dict[TopicPartition, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, tp: TopicPartition, begin: int, end: int) -> None:
        """Check the gap from the offset `begin` up to, but not including, `end`."""
        self._gaps.setdefault(tp, (begin, end))
        if self._task is None or self._task.done():
            self._task = supervise(self._check(), name="anymq-kafka-gaps")

    def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()

    async def _check(self) -> None:
        while self._gaps:
            gaps, self._gaps = self._gaps, {}
            try:
                async with asyncio.timeout(LOOK_UP_SECONDS):
                    begins = await self._consumer.beginning_offsets(list(gaps))
            except (kafka.KafkaError, OSError) as error:
                log.debug("looking up the first offsets of %s failed: %r", list(gaps), error)
                return
            for tp, (begin, end) in gaps.items():
                if begin < begins[tp] <= end:
                    self._report(tp, begin, begins[tp])
            await asyncio.sleep(LOSS_CHECK_SECONDS)

    def _report(self, tp: TopicPartition, begin: int, end: int) -> None:
        log.warning(
            "messages of %s were deleted (by retention, or a purge) before the group %s had read "
            "them: in partition %d the offsets %d to %d, %d at most",
            tp.topic,
            self._group,
            tp.partition,
            begin,
            end - 1,
            end - begin,
        )
