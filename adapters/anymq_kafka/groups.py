"""`Groups`: consumer groups as their coordinators know them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .client.internals import (
    AIOKafkaAdminClient,
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
    MemberAssignment,
    OffsetAndMetadata,
    OffsetCommitRequest,
    OffsetFetchRequest,
    TopicPartition,
    check,
    kafka,
    places,
    send,
)
from .topology import Topology

PAUSE = 0.05
SIDE_BY_SIDE = 50
_NO_MEMBER = -1
_NOT_NOW = (
    kafka.GroupCoordinatorNotAvailableError,
    kafka.NotCoordinatorForGroupError,
    kafka.GroupLoadInProgressError,
)


@dataclass(frozen=True)
class Member:
    """A live member of a group."""

    name: str
    host: str
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True)
class Group:
    """A group. `protocol` is the name of its members' assignor, empty while there are none."""

    protocol: str
    members: tuple[Member, ...]


class Groups:
    """Every call ends within about the request timeout."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    async def describe(self, group: str) -> Group | None:
        """Return the group; None where its coordinator knows of none."""
        request = DescribeGroupsRequest([group])
        answer = await self._ask(group, request, lambda answer: answer.groups[0][0])
        code, _, state, _, protocol, members, *_ = answer.groups[0]
        if kafka.for_code(code) is kafka.GroupIdNotFound or state == "Dead":
            return None
        check(code)
        return Group(protocol, tuple(_member(member) for member in members))

    async def committed(
        self, group: str, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return what the group has committed; nothing for where it has nothing."""
        request = OffsetFetchRequest(group, _by_topic(tps))
        return places(await self._ask(group, request, lambda answer: answer.error_code))

    async def topics(self, group: str) -> set[str]:
        """Return the topics of which the group has committed anything."""
        request = OffsetFetchRequest(group, None)
        answer = await self._ask(group, request, lambda answer: answer.error_code)
        return {tp.topic for tp in places(answer)}

    async def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for a group that must have no live members; raises `UnknownMemberId` if it has."""
        topics = {
            topic: [(number, offsets[TopicPartition(topic, number)], "") for number in numbers]
            for topic, numbers in _by_topic(offsets)
        }
        request = OffsetCommitRequest(group, _NO_MEMBER, "", -1, list(topics.items()))
        answer = await self._ask(group, request, lambda answer: answer.topics[0][1][0][1])
        for _, partitions in answer.topics:
            for _, code in partitions:
                check(code)

    async def delete(self, group: str) -> None:
        """Delete the group; no error if absent, `NonEmptyGroup` while it has live members."""
        request = DeleteGroupsRequest([group])
        answer = await self._ask(group, request, lambda answer: answer.results[0][1])
        code = answer.results[0][1]
        if kafka.for_code(code) is not kafka.GroupIdNotFound:
            check(code)

    async def reading(self, tps: Collection[TopicPartition]) -> list[str]:
        """Return the groups that have committed anything of `tps`."""
        topics = _by_topic(tps)
        found: list[str] = []
        for node, names in (await self._topology.call(_listed)).items():
            for first in range(0, len(names), SIDE_BY_SIDE):
                some = names[first : first + SIDE_BY_SIDE]
                requests = [OffsetFetchRequest(name, topics) for name in some]
                answers = await self._topology.call(
                    lambda admin, node=node, requests=requests: asyncio.gather(  # type: ignore[misc]
                        *(send(admin, node, request) for request in requests)
                    )
                )
                found += [name for name, one in zip(some, answers, strict=True) if places(one)]
        return sorted(found)

    async def _ask(self, group: str, request: Any, code_of: Callable[[Any], int]) -> Any:
        """Send to the coordinator of `group`; waits for one that a new cluster has yet to make."""

        async def ask(admin: AIOKafkaAdminClient) -> Any:
            while True:
                try:
                    answer = await send(admin, await admin.find_coordinator(group), request)
                except _NOT_NOW:
                    pass
                else:
                    if not issubclass(kafka.for_code(code_of(answer)), _NOT_NOW):
                        return answer
                await asyncio.sleep(PAUSE)

        return await self._topology.call(ask)


async def _listed(admin: AIOKafkaAdminClient) -> dict[int, list[str]]:
    """Return the groups by the broker that coordinates them."""
    found: dict[int, list[str]] = {}
    for broker in (await admin.describe_cluster())["brokers"]:
        node = broker["node_id"]
        answer = await send(admin, node, ListGroupsRequest())
        check(answer.error_code)
        found[node] = [name for name, *_ in answer.groups]
    return found


def _by_topic(tps: Collection[TopicPartition]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for tp in sorted(tps):
        found.setdefault(tp.topic, []).append(tp.partition)
    return list(found.items())


def _member(answer: Any) -> Member:
    name, _, host, _, assignment = answer
    partitions = MemberAssignment.decode(assignment).partitions() if assignment else ()
    return Member(name, host.removeprefix("/"), tuple(sorted(partitions)))
