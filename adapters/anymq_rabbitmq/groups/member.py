"""`Members`: makes the queues of groups, and opens the sources of their members."""

from __future__ import annotations

import asyncio

from aiormq.exceptions import ChannelAccessRefused

from anymq.driver import (
    MAX_BODY,
    GroupReader,
    Listener,
    SubscribeSpec,
    UnsupportedOperation,
    logger,
)

from ..client import protocol
from ..client.fetcher import Fetcher
from ..connection import Connection
from ..delays import DelayLadder
from ..options import RabbitMQOptions
from ..ordered import OrderedQueueSource
from ..positions import Log
from ..publisher import Publisher
from ..source import QueueSource
from ..topology import Topics, no_log
from .attempts import Attempts
from .backfill import Backfill, BackfillTask
from .catalog import Catalog
from .group import Group
from .partition_consumer import PartitionConsumer
from .schema import LEAST_NO_LIMIT, LIMIT

log = logger("anymq.rabbitmq")

SMALLEST_PREFETCH = 64
"""Messages of each partition that a member of an ordered group prefetches, at least."""
SERVER_LIMIT = 20
"""The limit of deliveries of a quorum queue without one, since RabbitMQ 4.0."""


class Members:
    """Opens the sources of one driver's members of groups."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        *,
        topics: Topics,
        catalog: Catalog,
        ladder: DelayLadder,
        options: RabbitMQOptions,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._topics = topics
        self._catalog = catalog
        self._ladder = ladder
        self._options = options

    async def join(self, spec: SubscribeSpec, listener: Listener) -> GroupReader:
        """Make the group if it is absent, and open the source of one member."""
        group = self._topics.group(
            spec.topic, spec.native_group, ordered=spec.ordered, create=spec.create
        )
        backfill = await self._prepare(spec, group)
        try:
            return await self._open(spec, group, backfill, listener)
        except BaseException:
            if backfill is not None:
                backfill.cancel()
            raise

    def attempts_of(self, group: Group) -> Attempts:
        """Return the noted attempts of the group."""
        return Attempts(group.attempts, self._connection, self._publisher)

    async def _prepare(self, spec: SubscribeSpec, group: Group) -> BackfillTask | None:
        """Make or find the group's queues; return the backfill that is not complete, if any."""
        connection, settle = self._connection, self._options.settle_time
        if not spec.create:
            await self._find_operators_queue(spec, group)
            return None
        is_new = not await protocol.queue_exists(connection, group.queue)
        from_past = is_new and spec.start != "latest"
        if is_new:
            await self._catalog.add_group(spec.topic.native, spec.native_group)
            if spec.ordered:
                await self.attempts_of(group).begin_histories(group.histories)
        else:
            await group.claim(connection)
        backfill = Backfill(connection, self._publisher, group, settle=settle)
        if from_past:
            await backfill.order(await self._start_offset(spec, group))
        # After the checkpoint: a member that finds the group finds the checkpoint, or all is done.
        await group.make(connection, with_history=from_past)
        if await protocol.queue_exists(connection, group.checkpoints):
            return BackfillTask(backfill)
        await group.bind(connection)
        if is_new:
            await protocol.wait_until_durable(connection, settle)
        return None

    async def _find_operators_queue(self, spec: SubscribeSpec, group: Group) -> None:
        if spec.ordered:
            raise UnsupportedOperation(
                f"{spec.native_group!r} is not anymq's: ordered=True needs queues of its own"
            )
        await protocol.require_queue(self._connection, group.queue)
        await self._warn_of_limit(group)

    async def _warn_of_limit(self, group: Group) -> None:
        """Warn if RabbitMQ itself drops messages of an operator's queue."""
        try:
            found = await protocol.adopt_queue(self._connection, group.queue, group.arguments())
        except ChannelAccessRefused:
            return
        limit = found.get(LIMIT, SERVER_LIMIT if self._connection.version >= (4, 0) else None)
        is_quorum = found.get("x-queue-type") == "quorum"
        if is_quorum and limit is not None and int(limit) < LEAST_NO_LIMIT:
            log.warning(
                "queue %s drops a message, or dead-letters it as its own settings say, after %s "
                "deliveries to consumers that were lost; declare it with a higher %s",
                group.queue,
                limit,
                LIMIT,
            )

    async def _start_offset(self, spec: SubscribeSpec, group: Group) -> int:
        """Return the offset of the log that the start position of a new group stands for."""
        if not await protocol.queue_exists(self._connection, group.log):
            raise no_log(spec.topic, group.log, f"start={spec.start!r} of a new group")
        return await Log(group.log, self._connection, self._publisher).offset_of(spec.start)

    async def _open(
        self,
        spec: SubscribeSpec,
        group: Group,
        backfill: BackfillTask | None,
        listener: Listener,
    ) -> GroupReader:
        opened = self._open_ordered if spec.ordered else self._open_unordered
        source = await opened(spec, group, backfill, listener)
        # Half of the server's limit, because its own heartbeat may have been the last data.
        source.silence = float(self._options.heartbeat)
        if backfill is not None:
            try:
                await backfill.started()
            except BaseException:
                await source.aclose()
                raise
        return source

    async def _open_unordered(
        self,
        spec: SubscribeSpec,
        group: Group,
        backfill: BackfillTask | None,
        listener: Listener,
    ) -> QueueSource:
        generation = await group.claim(self._connection) if spec.create else 0
        # The server counts messages, not bytes; their size is known when some have come.
        first = min(spec.first or spec.prefetch, max(1, spec.prefetch_bytes // MAX_BODY))
        return QueueSource(
            await Fetcher.open(self._connection, group.queue, prefetch=first),
            queue=group.queue,
            generation=generation,
            connection=self._connection,
            publisher=self._publisher,
            ladder=self._ladder,
            backfill=backfill,
            most=max(spec.prefetch, spec.first),
            listener=listener,
            attempts=self.attempts_of(group) if spec.create else None,
        )

    async def _open_ordered(
        self,
        spec: SubscribeSpec,
        group: Group,
        backfill: BackfillTask | None,
        listener: Listener,
    ) -> OrderedQueueSource:
        count = group.partitions or 1
        attempts = self.attempts_of(group)
        partitions = [
            PartitionConsumer(
                self._connection,
                group,
                number,
                attempts=attempts,
                member=spec.member,
                prefetch=min(spec.prefetch, max(SMALLEST_PREFETCH, spec.prefetch // count)),
            )
            for number in range(count)
        ]
        try:
            for partition in partitions:
                await partition.open()
        except BaseException:
            await asyncio.gather(*(partition.aclose() for partition in partitions))
            raise
        return OrderedQueueSource(
            partitions, attempts=attempts, backfill=backfill, listener=listener
        )
