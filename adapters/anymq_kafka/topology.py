"""`Topology`: topics, made and looked at through one admin client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anymq.driver import logger

from .client.internals import (
    AIOKafkaAdminClient,
    ConfigResource,
    ConfigResourceType,
    DescribeLogDirsRequest,
    NewTopic,
    RecordsToDelete,
    TopicPartition,
    abandon_admin,
    check,
    kafka,
    send,
)
from .connection import Clients, stop_admin

log = logger("anymq.kafka")

CLOSE_GRACE = 1.0
# Of what a topic keeps, this share at most is kept longer: segments are deleted as a whole.
SEGMENTS = 4
SEGMENT_MS = (10_000, 7 * 86_400_000)
SEGMENT_BYTES = (1024 * 1024, 1024 * 1024 * 1024)
LEADER_PAUSE = 0.05

_NOT_ALLOWED = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """A topic to make."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


class Topology:
    """Every call ends within about the request timeout."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._timeout = clients.options.request_timeout
        self._admin: AIOKafkaAdminClient | None = None
        self._closed = False
        self._opening = asyncio.Lock()

    async def ping(self) -> None:
        """Return after one answered request."""
        await self.call(lambda admin: admin.describe_topics([]))

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
        answer: Any = await self.call(lambda admin: admin.create_topics(new))
        for topic, code, *rest in answer.topic_errors:
            error = kafka.for_code(code)
            if error in (kafka.NoError, kafka.TopicAlreadyExistsError):
                continue
            if error in _NOT_ALLOWED:
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

    async def names(self) -> list[str]:
        """Return the names of all topics that are not the broker's own."""
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
        """Return the settings of `topic` that are in force."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        answers: Any = await self.call(lambda admin: admin.describe_configs([resource]))
        (answer,) = answers
        ((code, _, _, _, entries),) = answer.resources
        check(code)
        return {name: value for name, value, *_ in entries if value is not None}

    async def sizes(self, topic: str, partitions: int) -> list[int] | None:
        """Return the bytes each partition takes on its largest replica; None if that is secret."""

        async def ask(admin: AIOKafkaAdminClient) -> list[Any]:
            brokers = (await admin.describe_cluster())["brokers"]
            request = DescribeLogDirsRequest(topic, range(partitions))
            return [await send(admin, broker["node_id"], request) for broker in brokers]

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

    async def call(self, call: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """Return what `call` returns; tried once more over a new connection."""
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
            await self._disconnect()
            raise kafka.KafkaConnectionError(f"no answer within {self._timeout:g} s") from None

    async def aclose(self) -> None:
        """Close the connection, by force if it does not end by itself; open none from now on."""
        self._closed = True
        await self._disconnect()

    async def _disconnect(self) -> None:
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


def settings(*, body: int, retention: float | None) -> dict[str, str]:
    """Return a topic's settings, so that bodies of `body` bytes pass with their headers."""
    # 64 headers of 4 KiB at most are 16 KiB in all; a key is 1 KiB; the rest is framing.
    config = {"max.message.bytes": str(max(body + 64 * 1024, 1_048_588))}
    if retention is not None:
        config["retention.ms"] = str(-1 if retention < 0 else round(retention * 1000))
        if retention >= 0:
            # Only whole segments are deleted.
            config["segment.ms"] = str(_within(retention * 1000 / SEGMENTS, *SEGMENT_MS))
    return config


def size_bound(total: int, partitions: int) -> dict[str, str]:
    """Return the settings by which a topic of `partitions` keeps about `total` bytes in all."""
    each = -(-total // partitions)
    return {
        "retention.bytes": str(each),
        "segment.bytes": str(_within(each / SEGMENTS, *SEGMENT_BYTES)),
    }


def _within(value: float, least: int, most: int) -> int:
    return round(min(max(value, least), most))
