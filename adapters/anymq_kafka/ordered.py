"""Ordered groups and others: a group is one or the other while a member or a retry is in it."""

from __future__ import annotations

from anymq.driver import ConfigurationError, SubscribeSpec

from . import retry
from .connection import Clients
from .group.assignor import ORDERED, UNORDERED
from .groups import Groups
from .lag import remaining
from .topology import Topology


async def check_mode(spec: SubscribeSpec, clients: Clients, topology: Topology) -> None:
    """Raise `ConfigurationError` if the group cannot be read in the way that `spec` asks for.

    Kafka serves both; but not at the same time, and an ordered member does not read the copies that
    the nacks of an unordered life have left in the retry topics.
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
    topics = retry.retry_topics(spec.native_group)
    waiting = await remaining(clients, topology, spec.native_group, topics)
    if count := sum(place.count for place in waiting.values()):
        raise ConfigurationError(
            f"the group {spec.native_group} was read without order, and {count} of its messages "
            "wait for a retry: let members without order finish them first"
        )
