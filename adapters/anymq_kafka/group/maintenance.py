"""`Gaps`: tells of messages that were deleted before their group had read them."""

from __future__ import annotations

import asyncio

from anymq.driver import logger, supervise

from ..client.internals import AIOKafkaConsumer, TopicPartition, kafka

log = logger("anymq.kafka")

LOOK_TIMEOUT = 5.0
PAUSE = 5.0
"""Seconds between two looks: offsets that are no messages are many in a topic of transactions."""


class Gaps:
    """Looks, where offsets were passed over, whether what was there lies below the log's begin."""

    def __init__(self, consumer: AIOKafkaConsumer, group: str) -> None:
        self._consumer = consumer
        self._group = group
        self._seen: dict[TopicPartition, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, tp: TopicPartition, begin: int, end: int) -> None:
        """Nothing came of the offsets from `begin` up to, but not including, `end`."""
        self._seen.setdefault(tp, (begin, end))
        if self._task is None or self._task.done():
            self._task = supervise(self._look(), name="anymq-kafka-gaps")

    def close(self) -> None:
        """No more looks."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        while self._seen:
            seen, self._seen = self._seen, {}
            try:
                async with asyncio.timeout(LOOK_TIMEOUT):
                    begins = await self._consumer.beginning_offsets(list(seen))
            except (kafka.KafkaError, OSError) as error:
                log.debug("the begin of %s could not be looked up: %r", list(seen), error)
                return
            for tp, (begin, end) in seen.items():
                if begin < begins[tp] <= end:
                    self._say(tp, begin, begins[tp])
            await asyncio.sleep(PAUSE)

    def _say(self, tp: TopicPartition, begin: int, end: int) -> None:
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
