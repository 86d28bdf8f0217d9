"""`GroupSource`: one member of an unordered group, as the core uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymq.driver import Listener, Nack, Received, Source, SubscribeSpec, settle_stored

from .client.compat import kafka
from .delays import retry_copy, retry_plans, retry_topic_for, retry_topics
from .group.member import GroupMember, MemberSource, is_open
from .messages import as_kafka
from .ordered import check_mode
from .positions import initialize_group

if TYPE_CHECKING:
    from .connection import Clients
    from .publisher import Publisher
    from .topology import Topology


class GroupSource(MemberSource, Source):
    """One member of an unordered group: its partitions, and those of the group's retry topics.

    A record is settled in the offset tracker of its partition. A nacked record is copied into a
    retry topic first.
    """

    def __init__(
        self,
        member: GroupMember,
        spec: SubscribeSpec,
        clients: Clients,
        topology: Topology,
        publisher: Publisher,
    ) -> None:
        super().__init__(member)
        self._create = spec.create
        self._options = clients.options
        self._retry_topics = retry_topics(spec.native_group)
        self._topology = topology
        self._publisher = publisher

    @classmethod
    async def open(
        cls,
        spec: SubscribeSpec,
        listener: Listener,
        clients: Clients,
        topology: Topology,
        publisher: Publisher,
    ) -> GroupSource:
        """Create the group and its retry topics, and join it."""
        await check_mode(spec, clients, topology)
        topics = retry_topics(spec.native_group)
        if spec.create:
            await topology.create(retry_plans(topics, clients.options))
        elif missing := await topology.missing(topics):
            raise kafka.UnknownTopicOrPartitionError(
                f"the group {spec.native_group} needs its retry topics, and may not create them: "
                + ", ".join(missing)
            )
        await initialize_group(clients, topology, spec)
        member = GroupMember(
            spec.native_group,
            (spec.topic.native, *topics),
            topics,
            clients,
            topology,
            listener=listener,
            trim=spec.create,
        )
        source = cls(member, spec, clients, topology, publisher)
        await member.join()
        return source

    async def nack(self, nacks: Sequence[Nack]) -> None:
        try:
            await self._copy_and_settle(nacks)
        except kafka.UnknownTopicOrPartitionError:
            if not self._create:
                raise
            await self._topology.create(retry_plans(self._retry_topics, self._options))
            self._member.refresh()
            await self._copy_and_settle(nacks)

    async def release(self, nacks: Sequence[Nack]) -> None:
        # Kafka does not know of attempts made in the handler's slot, so a copy has to state them.
        attempted = [item for item in nacks if item.attempt >= item.native_attempt]
        if attempted:
            await self.nack(attempted)
        rest = [item.received for item in nacks if item.attempt < item.native_attempt]
        self._member.release(rest)

    async def _copy_and_settle(self, nacks: Sequence[Nack]) -> None:
        """Copy the records into retry topics, and settle those whose copies were confirmed."""
        live = [item for item in nacks if all(map(is_open, as_kafka((item.received,))))]
        if not live:
            return
        topics = [retry_topic_for(self._retry_topics, item.delay) for item in live]
        outcomes = await self._publisher.publish(topics, [retry_copy(item) for item in live])
        await settle_stored([item.received for item in live], outcomes, self._settle)

    async def _settle(self, stored: Sequence[Received]) -> None:
        self._member.settle(stored)
