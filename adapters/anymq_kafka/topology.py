"""`Topology` and `Groups`: topics and consumer groups, through one admin client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .client.compat import (
    AIOKafkaAdminClient,
    ConfigResource,
    ConfigResourceType,
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
    MemberAssignment,
    NewTopic,
    OffsetAndMetadata,
    OffsetCommitRequest,
    OffsetFetchRequest,
    RecordsToDelete,
    TopicPartition,
    kafka,
)
from .client.internals import (
    DescribeLogDirsRequest,
    abandon_admin,
    by_topic,
    check,
    committed_offsets,
    send_request,
)
from .connection import CLOSE_SECONDS, Clients, stop_admin

SEGMENTS_PER_RETENTION = 4
"""The broker deletes whole segments, so a topic keeps this share of its retention in excess."""
SEGMENT_MS_RANGE = (10_000, 7 * 86_400_000)
SEGMENT_BYTES_RANGE = (1024 * 1024, 1024 * 1024 * 1024)
LEADER_PAUSE_SECONDS = 0.05
COORDINATOR_PAUSE_SECONDS = 0.05
CONCURRENT_REQUESTS = 50
DELAY_SEGMENT_BYTES = 64 * 1024 * 1024

_NO_MEMBER = -1
_NOT_ALLOWED = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)
_COORDINATOR_MOVES = (
    kafka.GroupCoordinatorNotAvailableError,
    kafka.NotCoordinatorForGroupError,
    kafka.GroupLoadInProgressError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class TopicPlan:
    """A topic to create."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


class Topology:
    """Topics, through an admin client. Each request ends within about `request_timeout`."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._timeout = clients.options.request_timeout
        self._admin: AIOKafkaAdminClient | None = None
        self._closed = False
        self._opening = asyncio.Lock()

    async def ping(self) -> None:
        """Return after one answered request."""
        await self.call(lambda admin: admin.describe_topics([]))

    async def create(self, plans: Iterable[TopicPlan]) -> None:
        """Create the topics that do not exist. Return when all their partitions have leaders."""
        wanted = {plan.name: plan for plan in plans}
        if not wanted:
            return
        new = [
            NewTopic(
                plan.name,
                plan.partitions,
                plan.replication,
                # aiokafka accepts -1, the broker's default, only together with an assignment.
                replica_assignments={} if plan.replication == -1 else None,
                topic_configs=dict(plan.config),
            )
            for plan in wanted.values()
        ]
        answer: Any = await self.call(lambda admin: admin.create_topics(new))
        for topic, code, *rest in answer.topic_errors:
            error = kafka.for_code(code)
            if error in (kafka.NoError, kafka.TopicAlreadyExistsError):
                continue
            if error in _NOT_ALLOWED:
                # An operator may have created the topic; then the right to create is not needed.
                if await self.partitions(topic) is not None:
                    continue
                raise error(topic)
            raise error(*(text for text in rest if text))
        await self._wait_for_leaders(set(wanted))

    async def partitions(self, topic: str) -> int | None:
        """Return the number of partitions of `topic`; None if it does not exist."""
        return (await self.counts([topic])).get(topic)

    async def counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return the number of partitions of each of `topics` that exists."""
        found = await self._describe(topics)
        return {topic: len(leaders) for topic, leaders in found.items()}

    async def missing(self, topics: Iterable[str]) -> list[str]:
        """Return those of `topics` that do not exist."""
        wanted = list(topics)
        found = await self.counts(wanted)
        return [topic for topic in wanted if topic not in found]

    async def names(self) -> list[str]:
        """Return the names of all topics that are not internal to the broker."""
        answer = await self.call(lambda admin: admin.describe_topics(None))
        return [item["topic"] for item in answer if not item["is_internal"]]

    async def delete(self, topics: Iterable[str]) -> None:
        """Delete those of `topics` that exist."""
        wanted = list(topics)
        answer: Any = await self.call(lambda admin: admin.delete_topics(wanted))
        for _, code in answer.topic_error_codes:
            if kafka.for_code(code) is not kafka.UnknownTopicOrPartitionError:
                check(code)

    async def settings(self, topic: str) -> dict[str, str]:
        """Return the effective settings of `topic`."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        answers: Any = await self.call(lambda admin: admin.describe_configs([resource]))
        (answer,) = answers
        ((code, _, _, _, entries),) = answer.resources
        check(code)
        return {name: value for name, value, *_ in entries if value is not None}

    async def sizes(self, topic: str, partitions: int) -> list[int] | None:
        """Return the bytes of each partition on its largest replica; None if access is denied."""

        async def ask(admin: AIOKafkaAdminClient) -> list[Any]:
            brokers = (await admin.describe_cluster())["brokers"]
            request = DescribeLogDirsRequest(topic, range(partitions))
            return [await send_request(admin, broker["node_id"], request) for broker in brokers]

        sizes = [0] * partitions
        for answer in await self.call(ask):
            for code, _, topics in answer.log_dirs:
                if kafka.for_code(code) in _NOT_ALLOWED:
                    return None
                check(code)
                for _, found in topics:
                    for number, size, _, is_future in found:
                        if not is_future:
                            sizes[number] = max(sizes[number], size)
        return sizes

    async def trim(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offsets."""
        wanted = {tp: RecordsToDelete(offset) for tp, offset in before.items()}
        await self.call(lambda admin: admin.delete_records(wanted))

    async def call(self, request: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """Return the result of `request`. Repeat it once if its connection is lost."""
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await request(await self._open())
                except (kafka.NodeNotReadyError, kafka.KafkaConnectionError):
                    # The connection had died unnoticed, or one of several brokers is down.
                    return await request(await self._open())
                except AttributeError as error:
                    # aiokafka does not know the controller yet, or no longer.
                    raise kafka.NodeNotReadyError("no controller is known") from error
        except TimeoutError:
            await self._disconnect()
            raise kafka.KafkaConnectionError(f"no answer within {self._timeout:g} s") from None

    async def aclose(self) -> None:
        """Close the admin client, by force if it does not stop in time. Later calls fail."""
        self._closed = True
        await self._disconnect()

    async def _disconnect(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await stop_admin(admin, CLOSE_SECONDS)

    async def _wait_for_leaders(self, topics: set[str]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    found = await self._describe(topics)
                    if topics == {topic for topic, leaders in found.items() if -1 not in leaders}:
                        return
                    await asyncio.sleep(LEADER_PAUSE_SECONDS)
        except TimeoutError:
            raise kafka.LeaderNotAvailableError(", ".join(sorted(topics))) from None

    async def _describe(self, topics: Iterable[str]) -> dict[str, list[int]]:
        """Return the leaders of the partitions, for each of `topics` that exists."""
        wanted = list(topics)
        found: dict[str, list[int]] = {}
        for item in await self.call(lambda admin: admin.describe_topics(wanted)):
            error = kafka.for_code(item["error_code"])
            if error in (kafka.NoError, kafka.LeaderNotAvailableError):
                found[item["topic"]] = [part["leader"] for part in item["partitions"]]
            elif error is not kafka.UnknownTopicOrPartitionError:
                raise error(item["topic"])
        return found

    async def _open(self) -> AIOKafkaAdminClient:
        async with self._opening:
            if self._admin is None:
                admin = self._clients.admin()
                try:
                    await self._clients.start(admin)
                    if self._closed:
                        raise kafka.KafkaConnectionError("the connection was closed")
                except BaseException:
                    abandon_admin(admin)
                    raise
                self._admin = admin
            return self._admin


async def partitions_of(topology: Topology, topic: str) -> list[TopicPartition]:
    """Return the partitions of `topic`; raises if it does not exist."""
    count = await topology.partitions(topic)
    if count is None:
        raise kafka.UnknownTopicOrPartitionError(topic)
    return [TopicPartition(topic, number) for number in range(count)]


def partitions_in(counts: Mapping[str, int]) -> list[TopicPartition]:
    """Return all partitions of topics with these `counts` of partitions."""
    return [TopicPartition(topic, number) for topic, n in counts.items() for number in range(n)]


def settings(*, body: int, retention: float | None) -> dict[str, str]:
    """Return the settings of a topic whose messages may have bodies of `body` bytes.

    `retention` is in seconds: negative to keep messages forever, None for the broker's default.
    """
    # 64 KiB more: headers take 16 KiB at most and the key 1 KiB; framing takes the rest.
    config = {"max.message.bytes": str(max(body + 64 * 1024, 1_048_588))}
    if retention is not None:
        config["retention.ms"] = str(-1 if retention < 0 else round(retention * 1000))
        if retention >= 0:
            config["segment.ms"] = str(
                _within(retention * 1000 / SEGMENTS_PER_RETENTION, *SEGMENT_MS_RANGE)
            )
    return config


def size_bound(total: int, partitions: int) -> dict[str, str]:
    """Return the settings with which a topic of `partitions` keeps about `total` bytes."""
    each = -(-total // partitions)
    return {
        "retention.bytes": str(each),
        "segment.bytes": str(_within(each / SEGMENTS_PER_RETENTION, *SEGMENT_BYTES_RANGE)),
    }


def delay_settings(*, body: int) -> dict[str, str]:
    """Return the settings of a topic in which records wait. Nothing in it expires."""
    return settings(body=body, retention=-1) | {"segment.bytes": str(DELAY_SEGMENT_BYTES)}


def _within(value: float, least: int, most: int) -> int:
    return round(min(max(value, least), most))


@dataclass(frozen=True)
class Member:
    """A live member of a group."""

    name: str
    host: str
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True)
class Group:
    """A group. `protocol` is the name of its members' assignor, empty without members."""

    protocol: str
    members: tuple[Member, ...]


class Groups:
    """Consumer groups as their coordinators report them, within the time limits of `Topology`."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    async def describe(self, group: str) -> Group | None:
        """Return the group; None if it does not exist."""
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
        """Return the group's committed offsets, without partitions that have none."""
        request = OffsetFetchRequest(group, list(by_topic(tps).items()))
        return committed_offsets(await self._ask(group, request, lambda answer: answer.error_code))

    async def topics(self, group: str) -> set[str]:
        """Return the topics in which the group has committed offsets."""
        request = OffsetFetchRequest(group, None)
        answer = await self._ask(group, request, lambda answer: answer.error_code)
        return {tp.topic for tp in committed_offsets(answer)}

    async def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for a group without live members; raises `UnknownMemberIdError` if it has some."""
        topics = {
            topic: [(number, offsets[TopicPartition(topic, number)], "") for number in numbers]
            for topic, numbers in by_topic(offsets).items()
        }
        request = OffsetCommitRequest(group, _NO_MEMBER, "", -1, list(topics.items()))
        answer = await self._ask(group, request, lambda answer: answer.topics[0][1][0][1])
        for _, partitions in answer.topics:
            for _, code in partitions:
                check(code)

    async def delete(self, group: str) -> None:
        """Delete the group; no error if absent. Raises `NonEmptyGroup` while it has members."""
        request = DeleteGroupsRequest([group])
        answer = await self._ask(group, request, lambda answer: answer.results[0][1])
        code = answer.results[0][1]
        if kafka.for_code(code) is not kafka.GroupIdNotFound:
            check(code)

    async def reading(self, tps: Collection[TopicPartition]) -> list[str]:
        """Return the groups that have committed offsets of `tps`."""
        topics = list(by_topic(tps).items())
        found: list[str] = []
        for node, names in (await self._topology.call(_list_groups)).items():
            for first in range(0, len(names), CONCURRENT_REQUESTS):
                some = names[first : first + CONCURRENT_REQUESTS]
                requests = [OffsetFetchRequest(name, topics) for name in some]
                answers = await self._topology.call(
                    lambda admin, node=node, requests=requests: asyncio.gather(  # type: ignore[misc]
                        *(send_request(admin, node, request) for request in requests)
                    )
                )
                found += [
                    name for name, one in zip(some, answers, strict=True) if committed_offsets(one)
                ]
        return sorted(found)

    async def _ask(self, group: str, request: Any, code_of: Callable[[Any], int]) -> Any:
        """Send `request` to the coordinator of `group`, and wait while it starts or moves."""

        async def ask(admin: AIOKafkaAdminClient) -> Any:
            while True:
                try:
                    answer = await send_request(admin, await admin.find_coordinator(group), request)
                except _COORDINATOR_MOVES:
                    pass
                else:
                    if not issubclass(kafka.for_code(code_of(answer)), _COORDINATOR_MOVES):
                        return answer
                await asyncio.sleep(COORDINATOR_PAUSE_SECONDS)

        return await self._topology.call(ask)


async def _list_groups(admin: AIOKafkaAdminClient) -> dict[int, list[str]]:
    """Return the names of all groups, by the node that coordinates them."""
    found: dict[int, list[str]] = {}
    for broker in (await admin.describe_cluster())["brokers"]:
        node = broker["node_id"]
        answer = await send_request(admin, node, ListGroupsRequest())
        check(answer.error_code)
        found[node] = [name for name, *_ in answer.groups]
    return found


def _member(answer: Any) -> Member:
    name, _, host, _, assignment = answer
    partitions = MemberAssignment.decode(assignment).partitions() if assignment else ()
    return Member(name, host.removeprefix("/"), tuple(sorted(partitions)))
