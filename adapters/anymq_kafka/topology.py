"""`Topology`: topics, made and looked at through one admin client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .aio import (
    AIOKafkaAdminClient,
    MemberAssignment,
    NewTopic,
    RecordsToDelete,
    TopicPartition,
    abandon_admin,
    kafka,
)
from .clients import Clients, stop_admin

log = logging.getLogger("anymq.kafka")

CLOSE_GRACE = 1.0
LEADER_PAUSE = 0.05

_NOT_ALLOWED = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)

_COORDINATOR = (
    kafka.GroupCoordinatorNotAvailableError,
    kafka.NotCoordinatorForGroupError,
    kafka.GroupLoadInProgressError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """A topic to make."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


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


class Topology:
    """Every call ends within about the request timeout."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._timeout = clients.options.request_timeout
        self._admin: AIOKafkaAdminClient | None = None
        self._opening = asyncio.Lock()

    async def ping(self) -> None:
        """Return after one answered request."""
        await self._call(lambda admin: admin.describe_topics([]))

    async def create(self, plans: Iterable[Plan]) -> None:
        """Make the topics that do not exist, and return when every one of them has its leaders."""
        wanted = {plan.name: plan for plan in plans}
        if not wanted:
            return
        new = [
            NewTopic(
                plan.name,
                plan.partitions,
                plan.replication,
                # aiokafka takes -1 (the broker's default) only beside an assignment.
                replica_assignments={} if plan.replication == -1 else None,
                topic_configs=dict(plan.config),
            )
            for plan in wanted.values()
        ]
        answer: Any = await self._call(lambda admin: admin.create_topics(new))
        for topic, code, *rest in answer.topic_errors:
            error = kafka.for_code(code)
            if error in (kafka.NoError, kafka.TopicAlreadyExistsError):
                continue
            if error in (
                kafka.TopicAuthorizationFailedError,
                kafka.ClusterAuthorizationFailedError,
            ):
                # Fine where an operator has made it: without the right to create, too.
                if await self.partitions(topic) is not None:
                    continue
                raise error(topic)
            raise error(*(text for text in rest if text))
        await self._wait_for_leaders(set(wanted))

    async def partitions(self, topic: str) -> int | None:
        """Return how many partitions `topic` has; None if there is no such topic."""
        return (await self.counts([topic])).get(topic)

    async def counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return how many partitions those of `topics` have that exist."""
        found = await self._describe(topics)
        return {topic: len(leaders) for topic, leaders in found.items()}

    async def missing(self, topics: Iterable[str]) -> list[str]:
        """Return those of `topics` that do not exist."""
        wanted = list(topics)
        found = await self.counts(wanted)
        return [topic for topic in wanted if topic not in found]

    async def group(self, name: str) -> Group | None:
        """Return the group as its coordinator knows it; None where that knows of none."""
        answer = await self._call(lambda admin: _coordinated(admin, name))
        code, _, state, _, protocol, members, *_ = answer.groups[0]
        error = kafka.for_code(code)
        if error is kafka.GroupIdNotFound or state == "Dead":
            return None
        if error is not kafka.NoError:
            raise error(name)
        return Group(protocol, tuple(_member(member) for member in members))

    async def trim(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offsets."""
        wanted = {tp: RecordsToDelete(offset) for tp, offset in before.items()}
        await self._call(lambda admin: admin.delete_records(wanted))

    async def aclose(self) -> None:
        """Close the connection, by force if it does not end by itself."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await stop_admin(admin, CLOSE_GRACE)

    async def _wait_for_leaders(self, topics: set[str]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    found = await self._describe(topics)
                    if topics == {topic for topic, leaders in found.items() if -1 not in leaders}:
                        return
                    await asyncio.sleep(LEADER_PAUSE)
        except TimeoutError:
            raise kafka.LeaderNotAvailableError(", ".join(sorted(topics))) from None

    async def _describe(self, topics: Iterable[str]) -> dict[str, list[int]]:
        """Return the leader of every partition of those topics that exist."""
        wanted = list(topics)
        found: dict[str, list[int]] = {}
        for item in await self._call(lambda admin: admin.describe_topics(wanted)):
            error = kafka.for_code(item["error_code"])
            if error in (kafka.NoError, kafka.LeaderNotAvailableError):
                found[item["topic"]] = [part["leader"] for part in item["partitions"]]
            elif error is not kafka.UnknownTopicOrPartitionError:
                raise error(item["topic"])
        return found

    async def _call(self, call: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await call(await self._open())
                except (kafka.NodeNotReadyError, kafka.KafkaConnectionError):
                    # A connection that had died unnoticed, or one broker of several.
                    return await call(await self._open())
                except AttributeError as error:
                    # aiokafka does not know the controller (yet).
                    raise kafka.NodeNotReadyError("no controller is known") from error
        except TimeoutError:
            await self.aclose()
            raise kafka.KafkaConnectionError(f"no answer within {self._timeout:g} s") from None

    async def _open(self) -> AIOKafkaAdminClient:
        async with self._opening:
            if self._admin is None:
                admin = self._clients.admin()
                try:
                    await admin.start()
                except BaseException:
                    abandon_admin(admin)
                    raise
                self._admin = admin
            return self._admin


def settings(*, body: int, retention: float | None) -> dict[str, str]:
    """Return a topic's settings, so that bodies of `body` bytes pass with their headers."""
    # 64 headers of 4 KiB at most are 16 KiB in all; a key is 1 KiB; the rest is framing.
    config = {"max.message.bytes": str(max(body + 64 * 1024, 1_048_588))}
    if retention is not None:
        config["retention.ms"] = str(-1 if retention < 0 else round(retention * 1000))
    return config


async def _coordinated(admin: AIOKafkaAdminClient, group: str) -> Any:
    """Describe `group`; waits for its coordinator, which a new cluster has yet to make."""
    while True:
        try:
            (answer,) = await admin.describe_consumer_groups([group])
            error = kafka.for_code(answer.groups[0][0])
            if not issubclass(error, _COORDINATOR):
                return answer
        except _COORDINATOR:
            pass
        await asyncio.sleep(LEADER_PAUSE)


def _member(answer: Any) -> Member:
    name, _, host, _, assignment = answer
    partitions = MemberAssignment.decode(assignment).partitions() if assignment else ()
    return Member(name, host.removeprefix("/"), tuple(sorted(partitions)))
