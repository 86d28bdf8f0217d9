"""`OrderedGroup`: one member of an ordered group, as the core uses it.

Kafka serves ordered and unordered groups, but a group is only one of them at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from anymq.driver import ConfigurationError, Listener, Nack, OrderedSource, SubscribeSpec

from .admin import backlog
from .connection import Clients
from .delays import retry_topics
from .group.assignor import ORDERED, UNORDERED
from .group.member import GroupMember, MemberSource
from .positions import initialize_group
from .topology import Groups, Topology


class OrderedGroup(MemberSource, OrderedSource):
    """One member of an ordered group.

    It reads no retry topics. A failed record stays in its partition, and `keep` commits its
    attempts in the metadata of the offset.
    """

    @classmethod
    async def open(
        cls, spec: SubscribeSpec, listener: Listener, clients: Clients, topology: Topology
    ) -> OrderedGroup:
        """Create the group, and join it."""
        await check_mode(spec, clients, topology)
        await initialize_group(clients, topology, spec)
        member = GroupMember(
            spec.native_group,
            (spec.topic.native,),
            (),
            clients,
            topology,
            listener=listener,
            trim=spec.create,
            revoke=listener.revoke,
        )
        await member.join()
        return cls(member)

    async def keep(self, nacks: Sequence[Nack]) -> None:
        await self._member.keep([(item.received, item.redeliveries, item.due) for item in nacks])


async def check_mode(spec: SubscribeSpec, clients: Clients, topology: Topology) -> None:
    """Raise `ConfigurationError` if the group is in use in the other mode than `spec` asks for.

    An ordered member would not read the copies that unordered members left in retry topics.
    """
    group = await Groups(topology).describe(spec.native_group)
    other = UNORDERED if spec.ordered else ORDERED
    if group is not None and group.members and group.protocol == other:
        raise ConfigurationError(
            f"the group {spec.native_group} has members that read it "
            + ("without order" if spec.ordered else "in order")
        )
    if not spec.ordered:
        return
    waiting = await backlog(clients, topology, spec.native_group, retry_topics(spec.native_group))
    if count := sum(partition.count for partition in waiting.values()):
        raise ConfigurationError(
            f"the group {spec.native_group} was read without order, and {count} of its messages "
            "wait for a retry: let members without order finish them first"
        )
