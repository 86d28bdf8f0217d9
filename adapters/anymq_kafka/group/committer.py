"""`Committer`: commits acknowledged offsets in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from anymq.driver import Received, logger, offsets, supervise

from ..client.compat import AIOKafkaConsumer, TopicPartition, kafka
from ..client.internals import commit_offsets

if TYPE_CHECKING:
    from ..messages import KafkaReceived
    from .assignment import Partition

log = logger("anymq.kafka")

COMMIT_SECONDS = 5.0
PAUSE_AFTER_FAILURE_SECONDS = 0.5
REFUSED = (
    kafka.UnknownMemberIdError,
    kafka.IllegalGenerationError,
    kafka.RebalanceInProgressError,
)
"""The broker refuses a commit because it is not of a member of the group's generation."""


class Committer:
    """Commits the offsets of dirty partitions, at most once in `interval` seconds.

    `allowed` returns when commits are allowed. `committed` is called with each partition that was
    committed. `dropped` gets the acknowledged records whose commit failed or is no longer possible.
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
        self._uncommitted: list[Sequence[KafkaReceived]] = []
        self._metadata_limit = offsets.MAX_METADATA
        self._wake = asyncio.Event()
        self._task = supervise(self._run(), name="anymq-kafka-commit")
        self.error: kafka.KafkaError | None = None
        """Error of the last commit, if a repetition cannot succeed."""
        self.refused_since: float | None = None
        """Loop time of the first of the commits in a row that the group refused."""

    def mark(self, partition: Partition) -> None:
        """Mark `partition` dirty, for the next commit."""
        partition.dirty = True
        self._wake.set()

    def settled(self, records: Sequence[KafkaReceived]) -> None:
        """Add `records` to those that the next commit covers."""
        self._uncommitted.append(records)

    def drop_lost(self) -> None:
        """Report the settled records of lost partitions whose commit has become impossible."""
        waiting, self._uncommitted = self._uncommitted, []
        for records in waiting:
            lost = [record for record in records if record.token.tracker.closed]
            if lost:
                self._dropped(lost)
            if len(lost) < len(records):
                self._uncommitted.append(records)

    async def flush(self, timeout: float = COMMIT_SECONDS) -> bool:
        """Commit all dirty partitions now; return False if that failed and must be repeated."""
        marked = [partition for partition in self._partitions() if partition.dirty]
        commits: dict[TopicPartition, tuple[int, str]] = {}
        for partition in marked:
            partition.dirty = False
            state = partition.tracker.commit(self._metadata_limit)
            if state != partition.committed:
                commits[partition.tp] = state
        settled, self._uncommitted = self._uncommitted, []
        if not commits:
            return True
        try:
            async with asyncio.timeout(timeout):
                await commit_offsets(self._consumer, commits)
        except BaseException as error:
            for partition in marked:
                partition.dirty = True
            for records in settled:
                self._dropped(records)
            if not isinstance(error, kafka.KafkaError | OSError):
                raise
            self._note(error)
            return False
        self.error = self.refused_since = None
        for partition in marked:
            if partition.tp in commits:
                partition.committed = commits[partition.tp]
                self._committed(partition)
        return True

    def wake(self) -> None:
        """Commit the dirty partitions in the background."""
        self._wake.set()

    def stop(self) -> None:
        """Stop committing in the background."""
        self._task.cancel()

    def _note(self, error: kafka.KafkaError | OSError) -> None:
        log.debug("committing offsets failed: %r; repeating", error)
        if isinstance(error, kafka.OffsetMetadataTooLargeError):
            self._metadata_limit //= 2
        elif isinstance(error, REFUSED):
            # The group moves to a new generation, and the member joins it; or the member is stuck.
            if self.refused_since is None:
                self.refused_since = asyncio.get_running_loop().time()
        elif isinstance(error, kafka.KafkaError) and not error.retriable:
            self.error = error

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._allowed()
            self._wake.clear()
            if await self.flush():
                await asyncio.sleep(self._interval)
            else:
                self._wake.set()
                await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
