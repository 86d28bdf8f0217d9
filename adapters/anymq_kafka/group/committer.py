"""`Committer`: how acks become commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from anymq.driver import Received, logger, offsets, supervise

from ..client.internals import AIOKafkaConsumer, TopicPartition, commit, kafka

if TYPE_CHECKING:
    from ..messages import KafkaReceived
    from .assignment import Partition

log = logger("anymq.kafka")

COMMIT_TIMEOUT = 5.0
PAUSE_AFTER_FAILURE = 0.5
REFUSED = (
    kafka.UnknownMemberIdError,
    kafka.IllegalGenerationError,
    kafka.RebalanceInProgressError,
)


class Committer:
    """Commits in the background, at most every `interval` seconds, what has become committable.

    Says to `dropped` what was done and may never be committed.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        partitions: Callable[[], Iterable[Partition]],
        *,
        interval: float,
        allowed: Callable[[], Awaitable[object]],
        committed: Callable[[Partition], None],
        dropped: Callable[[Sequence[Received]], None],
    ) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._interval = interval
        self._allowed = allowed
        self._committed = committed
        self._dropped = dropped
        self._done: list[Sequence[KafkaReceived]] = []
        self._limit = offsets.MAX_METADATA
        self._dirty = asyncio.Event()
        self._task = supervise(self._run(), name="anymq-kafka-commit")
        self.error: kafka.KafkaError | None = None
        self.refused_since: float | None = None

    def mark(self, partition: Partition) -> None:
        """Note that `partition` has something to commit."""
        partition.dirty = True
        self._dirty.set()

    def done(self, records: Sequence[KafkaReceived]) -> None:
        """Note what the next commit is of."""
        self._done.append(records)

    def give_up(self) -> None:
        """Partitions have been lost: say what had been done in them and was not committed."""
        waiting, self._done = self._done, []
        for records in waiting:
            late = [record for record in records if record.token.tracker.closed]
            if late:
                self._dropped(late)
            if len(late) < len(records):
                self._done.append(records)

    async def flush(self, timeout: float = COMMIT_TIMEOUT) -> bool:
        """Commit what is committable now; False, and to be repeated, if that failed."""
        marked = [partition for partition in self._partitions() if partition.dirty]
        offsets: dict[TopicPartition, tuple[int, str]] = {}
        for partition in marked:
            partition.dirty = False
            state = partition.tracker.commit(self._limit)
            if state != partition.committed:
                offsets[partition.tp] = state
        done, self._done = self._done, []
        if not offsets:
            return True
        try:
            async with asyncio.timeout(timeout):
                await commit(self._consumer, offsets)
        except BaseException as error:
            for partition in marked:
                partition.dirty = True
            for records in done:
                self._dropped(records)
            if not isinstance(error, kafka.KafkaError | OSError):
                raise
            self._note(error)
            return False
        self.error = self.refused_since = None
        for partition in marked:
            if partition.tp in offsets:
                partition.committed = offsets[partition.tp]
                self._committed(partition)
        return True

    def wake(self) -> None:
        """Commit, in the background, what is marked already."""
        self._dirty.set()

    def stop(self) -> None:
        """No more commits in the background."""
        self._task.cancel()

    def _note(self, error: kafka.KafkaError | OSError) -> None:
        log.debug("commit failed: %r", error)
        if isinstance(error, kafka.OffsetMetadataTooLargeError):
            self._limit //= 2
        elif isinstance(error, REFUSED):
            # The group is moving on without this generation; it joins again by itself, or is stuck.
            if self.refused_since is None:
                self.refused_since = asyncio.get_running_loop().time()
        elif isinstance(error, kafka.KafkaError) and not error.retriable:
            self.error = error

    async def _run(self) -> None:
        while True:
            await self._dirty.wait()
            await self._allowed()
            self._dirty.clear()
            if await self.flush():
                await asyncio.sleep(self._interval)
            else:
                self._dirty.set()
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
