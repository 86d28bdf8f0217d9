"""aiokafka: the names used of it, and the private parts of it that have to be reached into.

What is not its public interface is here, so that a new release has one file to break; but for what
`batches` and `fetched` say of themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from traceback import walk_tb
from typing import Any, TypeAlias, cast

from aiokafka import (  # type: ignore[import-untyped]
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    OffsetAndMetadata,
    TopicPartition,
)
from aiokafka import errors as kafka
from aiokafka.admin import (  # type: ignore[import-untyped]
    AIOKafkaAdminClient,
    NewTopic,
    RecordsToDelete,
)
from aiokafka.admin.config_resource import (  # type: ignore[import-untyped]
    ConfigResource,
    ConfigResourceType,
)
from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]
from aiokafka.codec import (  # type: ignore[import-untyped]
    cramjam,
    gzip_encode,
    has_lz4,
    has_snappy,
    has_zstd,
    lz4_encode,
    snappy_encode,
    zstd_encode,
)
from aiokafka.conn import AIOKafkaConnection  # type: ignore[import-untyped]
from aiokafka.consumer.fetcher import (  # type: ignore[import-untyped]
    Fetcher,
    FetchResult,
    PartitionRecords,
)
from aiokafka.consumer.group_coordinator import GroupCoordinator  # type: ignore[import-untyped]
from aiokafka.consumer.subscription_state import (  # type: ignore[import-untyped]
    Assignment,
    SubscriptionState,
    TopicPartitionState,
)
from aiokafka.coordinator.protocol import (  # type: ignore[import-untyped]
    ConsumerProtocolMemberAssignment as MemberAssignment,
)
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata as MemberMetadata
from aiokafka.protocol.admin import (  # type: ignore[import-untyped]
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
)
from aiokafka.protocol.api import (  # type: ignore[import-untyped]
    Request,
    RequestStruct,
    Response,
)
from aiokafka.protocol.commit import (  # type: ignore[import-untyped]
    OffsetCommitRequest,
    OffsetFetchRequest,
)
from aiokafka.protocol.fetch import FetchRequest  # type: ignore[import-untyped]
from aiokafka.protocol.types import (  # type: ignore[import-untyped]
    Array,
    Boolean,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
)
from aiokafka.record.util import calc_crc32c  # type: ignore[import-untyped]

__all__ = [
    "CLIENT_PARTS",
    "CODECS",
    "PACKAGED",
    "AIOKafkaAdminClient",
    "AIOKafkaConnection",
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "ConfigResource",
    "ConfigResourceType",
    "Consumed",
    "DeleteGroupsRequest",
    "DescribeGroupsRequest",
    "DescribeLogDirsRequest",
    "FetchRequest",
    "ListGroupsRequest",
    "MemberAssignment",
    "MemberMetadata",
    "NewTopic",
    "OffsetAndMetadata",
    "OffsetCommitRequest",
    "OffsetFetchRequest",
    "RebalanceListener",
    "RecordsToDelete",
    "TopicPartition",
    "abandon_admin",
    "abandon_consumer",
    "abandon_producer",
    "check",
    "commit",
    "committed",
    "cramjam",
    "crc32c",
    "forget_topic",
    "generation",
    "has_ended",
    "kafka",
    "places",
    "refresh",
    "rejoin",
    "send",
    "start_client",
]

RETRY_PAUSE = 0.1

CLIENT_PARTS: dict[type, tuple[str, ...]] = {
    AIOKafkaClient: ("_conns", "_topics", "force_metadata_update", "send"),
    AIOKafkaConnection: ("_on_close_cb", "close"),
    AIOKafkaProducer: ("_closed", "_message_accumulator", "_sender", "client", "send_batch"),
    AIOKafkaAdminClient: ("_client", "_closed", "_send_request_to_node"),
    AIOKafkaConsumer: ("_client", "_closed", "_coordinator", "_fetcher", "_subscription"),
    GroupCoordinator: (
        "_coordination_task",
        "_do_commit_offsets",
        "_send_req",
        "check_errors",
        "coordinator_dead",
        "ensure_coordinator_known",
        "generation",
        "group_id",
        "member_id",
        "request_rejoin",
    ),
    Fetcher: (
        "_client",
        "_create_fetch_waiter",
        "_fetch_max_wait_ms",
        "_fetch_task",
        "_notify",
        "_records",
        "_wait_consume_future",
        "seek_to",
    ),
    FetchResult: (
        "_assignment",
        "_partition_records",
        "check_assignment",
        "getall",
        "has_more",
    ),
    PartitionRecords: ("next_fetch_offset",),
    SubscriptionState: ("fetch_context", "reassignment_in_progress", "wait_for_assignment"),
    Assignment: ("active", "state_value"),
    TopicPartitionState: ("consumed_to", "paused", "position"),
}
"""The parts of aiokafka that `Driver.client_parts` asks for."""

Consumed: TypeAlias = ConsumerRecord[Any, Any]

crc32c: Callable[[bytes | memoryview], int] = cast("Any", calc_crc32c)
CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
"""By what name a compression is asked for: its number in a batch, and what does it."""
PACKAGED: dict[int, tuple[str, Callable[[], bool]]] = {
    2: ("snappy", has_snappy),
    3: ("lz4", has_lz4),
    4: ("zstd", has_zstd),
}
"""By its number in a batch: the compression that needs a package, and whether that is there."""


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """`aiokafka.ConsumerRebalanceListener`, which declares as plain what may be coroutines."""

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """All partitions are taken away; the group waits for this."""
        raise NotImplementedError

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These are the partitions from now on."""
        raise NotImplementedError

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> Any:
        return self.revoked(revoked)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> Any:
        return self.assigned(assigned)


async def committed(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return what the consumer's group has committed; nothing for where it has nothing.

    aiokafka keeps the metadata to itself, and takes a refusal (the coordinator has moved, or is
    still loading the group after a restart) for "nothing was ever committed": the error code of
    the whole answer is not looked at. Repeats until there is an answer; give it a timeout.
    """
    parts: Any = consumer
    coordinator = parts._coordinator
    topics: dict[str, list[int]] = {}
    for tp in partitions:
        topics.setdefault(tp.topic, []).append(tp.partition)
    while True:
        try:
            await coordinator.ensure_coordinator_known()
            request = OffsetFetchRequest(coordinator.group_id, list(topics.items()))
            return places(await coordinator._send_req(request))
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
            if isinstance(error, kafka.NotCoordinatorForGroupError):
                coordinator.coordinator_dead()
            await asyncio.sleep(RETRY_PAUSE)


def places(answer: Any) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return the offsets in the answer to an `OffsetFetchRequest`, or raise its error."""
    check(getattr(answer, "error_code", 0))
    found: dict[TopicPartition, OffsetAndMetadata] = {}
    for topic, partitions in answer.topics:
        for partition, offset, metadata, code in partitions:
            if kafka.for_code(code) is not kafka.UnknownTopicOrPartitionError:
                check(code)
                if offset >= 0:
                    found[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, metadata)
    return found


def check(code: int) -> None:
    """Raise the error that the broker's `code` stands for, if it is one."""
    error = kafka.for_code(code)
    if error is not kafka.NoError:
        raise error


async def commit(
    consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, tuple[int, str]]
) -> None:
    """Commit with one request, for the generation that the consumer is in.

    `AIOKafkaConsumer.commit` repeats a refused request for ever, in a task that outlives its
    caller: an old commit could arrive after a newer one.
    """
    parts: Any = consumer
    await parts._coordinator.ensure_coordinator_known()
    places = {tp: OffsetAndMetadata(*place) for tp, place in offsets.items()}
    await parts._coordinator._do_commit_offsets(None, places)


async def send(admin: AIOKafkaAdminClient, node: int, request: Any) -> Any:
    """Send any request to one broker, and return its answer."""
    parts: Any = admin
    return await parts._send_request_to_node(node, request)


class _LogDirsAnswer(Response):  # type: ignore[misc]
    API_KEY = 35  # pyright: ignore
    API_VERSION = 1  # pyright: ignore
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "log_dirs",
            Array(
                ("error_code", Int16),
                ("log_dir", String("utf-8")),
                (
                    "topics",
                    Array(
                        ("topic", String("utf-8")),
                        (
                            "partitions",
                            Array(
                                ("partition", Int32),
                                ("size", Int64),
                                ("offset_lag", Int64),
                                ("is_future", Boolean),
                            ),
                        ),
                    ),
                ),
            ),
        ),
    )


class _LogDirsRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 35
    API_VERSION = 1
    RESPONSE_TYPE = _LogDirsAnswer
    SCHEMA = Schema(
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
    )


class DescribeLogDirsRequest(Request[_LogDirsRequest]):  # type: ignore[misc]
    """How large partitions are: not among aiokafka's requests."""

    API_KEY = 35

    def __init__(self, topic: str, partitions: Iterable[int]) -> None:
        self._topics = [(topic, list(partitions))]

    def build(self, request_struct_class: type[_LogDirsRequest]) -> _LogDirsRequest:
        return request_struct_class(self._topics)


def generation(consumer: AIOKafkaConsumer) -> tuple[int, str]:
    """Return the generation of the group that the consumer is in, and its member id."""
    parts: Any = consumer
    return parts._coordinator.generation, parts._coordinator.member_id


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Ask for a rebalance of the group."""
    parts: Any = consumer
    parts._coordinator.request_rejoin()


def refresh(consumer: AIOKafkaConsumer) -> None:
    """Look for new topics and partitions now, in the background."""
    parts: Any = consumer
    parts._client.force_metadata_update()


def has_ended(consumer: AIOKafkaConsumer) -> bool:
    """Whether one of the tasks that the consumer lives by has ended (#983)."""
    parts: Any = consumer
    # A consumer without a group has no such task.
    coordination = getattr(parts._coordinator, "_coordination_task", None)
    tasks = (coordination, parts._fetcher._fetch_task)
    return any(task is not None and task.done() for task in tasks)


def forget_topic(producer: AIOKafkaProducer, topic: str) -> None:
    """Ask for the metadata of `topic` no more."""
    client: Any = producer.client
    client._topics.discard(topic)


def abandon_producer(producer: AIOKafkaProducer) -> None:
    """Tear `producer` down at once. What it has not sent yet is never sent."""
    parts: Any = producer
    parts._closed = True
    _abandon(producer, parts.client, parts._sender, parts._message_accumulator)


def abandon_consumer(consumer: AIOKafkaConsumer) -> None:
    """Tear `consumer` down at once, without leaving its group."""
    parts: Any = consumer
    parts._closed = True
    _abandon(consumer, parts._client, parts._coordinator, parts._fetcher)


async def start_client(client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient) -> None:
    """Start `client`. Given up meanwhile, the connection it had just made is closed: aiokafka has
    that in a local variable only, and would leave it open."""
    try:
        await client.start()
    except BaseException as error:
        for frame, _ in walk_tb(error.__traceback__):
            connection = frame.f_locals.get("bootstrap_conn")
            if isinstance(connection, AIOKafkaConnection):
                connection.close()
        raise


def abandon_admin(admin: AIOKafkaAdminClient) -> None:
    """Tear `admin` down at once."""
    parts: Any = admin
    parts._closed = True
    _abandon(admin, parts._client)


class _Shut(dict[Any, Any]):
    """The connections of a client that has been torn down: one that is put in is closed.

    A call that was under way may connect once more, when nothing would close that connection.
    """

    def __setitem__(self, key: Any, connection: Any) -> None:
        # It would start a refresh of the metadata, which nothing would ever end.
        connection._on_close_cb = None
        connection.close()
        super().__setitem__(key, connection)


def _abandon(owner: Any, client: Any, *others: Any) -> None:
    """Cancel every task that runs a method of one of these objects, and close the connections.

    aiokafka keeps some of its tasks in local variables only, so they are found by whose method they
    run rather than by attribute.
    """
    open_ones, client._conns = client._conns, _Shut()
    for key, connection in open_ones.items():
        client._conns[key] = connection
    own = [owner, client, *others]
    current = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not current and any(_runs_for(task) is part for part in own if part is not None):
            task.cancel()


def _runs_for(task: asyncio.Task[Any]) -> object | None:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self") if frame is not None else None
