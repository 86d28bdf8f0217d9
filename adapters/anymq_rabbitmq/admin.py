"""`Admin`: lists, describes, resets, purges and deletes topics and groups.

AMQP reports which topics and groups exist, how they were made, and how many messages a queue has
ready. It does not report how many messages members hold, wait in the delay queues, or are in a log.
"""

from __future__ import annotations

import re
from contextlib import suppress

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.driver import (
    GroupInfo,
    NotFound,
    PartitionInfo,
    Start,
    StateError,
    TopicInfo,
    TopicSpec,
    UnsupportedOperation,
)

from .client import protocol
from .connection import Connection
from .groups.backfill import Backfill
from .groups.catalog import Catalog
from .groups.group import Group
from .groups.schema import escaped, exchange_of, log_of
from .positions import Log
from .publisher import Publisher
from .topology import Topics, delete_exchange, find_log_arguments, make_log

_AGE = re.compile(r"(\d+)([YMDhms])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "D": 86400, "M": 30 * 86400, "Y": 365 * 86400}


class Admin:
    """The operations of `Broker.admin` on one server."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        *,
        topics: Topics,
        catalog: Catalog,
        settle: float,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._topics = topics
        self._catalog = catalog
        self._settle = settle

    async def topics(self) -> list[str]:
        """Return the topics that anymq made."""
        entries = await self._catalog.read()
        return await protocol.existing(entries.groups, self._require_topic)

    async def groups(self, topic: TopicSpec) -> list[str]:
        """Return the groups of the topic that anymq made."""
        await self._topics.find(topic)
        return await self._topics.group_names(topic)

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        """Return the partitions and the retention of the topic."""
        count = await self._topics.find(topic)
        kept = await find_log_arguments(self._connection, exchange_of(topic))
        age = _AGE.fullmatch(str(kept.get("x-max-age", "")))
        return TopicInfo(
            native=topic.native,
            partitions=tuple(PartitionInfo(number=number) for number in range(count)),
            retention=float(int(age[1]) * _SECONDS[age[2]]) if age else None,
            retention_bytes=kept.get("x-max-length-bytes"),
        )

    async def describe_group(self, topic: TopicSpec, native: str) -> GroupInfo:
        """Return the mode of the group, and by partition the messages not yet sent to a member."""
        group = await self._topics.find_group(topic, native)
        ready: list[int] = []
        consumers = 0
        for queue in group.live:
            messages, members = await protocol.queue_counts(self._connection, queue)
            ready.append(messages)
            consumers = max(consumers, members)
        for queue in () if consumers else group.histories:  # Members read these first.
            with suppress(ChannelNotFoundEntity):
                counts = await protocol.queue_counts(self._connection, queue)
                consumers = max(consumers, counts[1])
        return GroupInfo(
            native=native,
            ordered=group.partitions is not None,
            members=None if consumers else (),
            partitions=tuple(PartitionInfo(number=n, lag=lag) for n, lag in enumerate(ready)),
        )

    async def seek(self, topic: TopicSpec, native: str, to: Start) -> None:
        """Delete the group's queues, and fill new ones from the log.

        The checkpoint of the backfill is there before: a member that joins meanwhile continues it.
        """
        group = await self._topics.find_group(topic, native)
        offset = None
        if to != "latest":
            offset = await Log(group.log, self._connection, self._publisher).offset_of(to)
        await self._require_idle(group)
        await self._reset(group, offset)

    async def delete_topic(self, topic: TopicSpec) -> None:
        """Delete the topic, its log and its groups; no error if absent."""
        exchange = exchange_of(topic)
        if not await protocol.exchange_exists(self._connection, exchange):
            return
        for group in await self._topics.find_groups(topic):
            await group.delete(self._connection)
        await self._catalog.add_purge(exchange)
        await delete_exchange(self._connection, exchange)
        await protocol.fsync_metadata(self._connection)
        await self._catalog.drop_topic(topic.native)
        self._topics.forget(topic)

    async def delete_group(self, topic: TopicSpec, native: str) -> None:
        """Delete the group; no error if absent."""
        with suppress(NotFound, ChannelNotFoundEntity):
            group = await self._topics.find_group(topic, native)
            await self._require_idle(group)
            await group.delete(self._connection)
            await protocol.fsync_metadata(self._connection)

    async def purge(self, topic: TopicSpec) -> None:
        """Replace the log and the groups' queues by new ones; readers resume there."""
        connection = self._connection
        await self._topics.find(topic)
        if not topic.create:
            raise UnsupportedOperation(f"{topic.name!r} is not anymq's to purge")
        exchange = exchange_of(topic)
        await self._catalog.add_purge(exchange)
        arguments = await find_log_arguments(connection, exchange)
        await protocol.delete_queue(connection, log_of(exchange))
        await make_log(connection, exchange, arguments)
        await protocol.fsync_metadata(connection)
        for group in await self._topics.find_groups(topic):
            await self._reset(group, None)

    async def _reset(self, group: Group, offset: int | None) -> None:
        """Replace the group by a new one that starts at `offset` of the log, or now."""
        connection = self._connection
        generation = await group.claim(connection)
        await group.delete(connection)
        if offset is not None:
            backfill = Backfill(connection, self._publisher, group, settle=self._settle)
            await backfill.order(offset)
        await group.make(connection, with_history=offset is not None, generation=generation + 1)
        if offset is None:
            await group.bind(connection)
            await protocol.wait_until_durable(connection, self._settle)

    async def _require_idle(self, group: Group) -> None:
        for queue in [*group.live, *group.histories]:
            with suppress(ChannelNotFoundEntity):
                if (await protocol.queue_counts(self._connection, queue))[1]:
                    raise StateError(f"the group {group.queue!r} has live members")

    async def _require_topic(self, native: str) -> None:
        await protocol.require_exchange(self._connection, escaped(native))
