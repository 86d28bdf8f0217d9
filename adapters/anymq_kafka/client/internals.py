"""aiokafka's private API, behind functions: commits, group state, forced shutdown, raw requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from traceback import walk_tb
from typing import Any

from .compat import (
    AIOKafkaAdminClient,
    AIOKafkaClient,
    AIOKafkaConnection,
    AIOKafkaConsumer,
    AIOKafkaProducer,
    Array,
    Boolean,
    ConsumerRebalanceListener,
    Int16,
    Int32,
    Int64,
    OffsetAndMetadata,
    OffsetFetchRequest,
    Request,
    RequestStruct,
    Response,
    Schema,
    String,
    TopicPartition,
    kafka,
)

COORDINATOR_RETRY_SECONDS = 0.1
"""Pause before the coordinator is asked again for committed offsets."""


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka's rebalance listener with coroutines: it declares its callbacks as plain methods."""

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Give up all partitions. The rebalance of the group waits until this returns."""
        raise NotImplementedError

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Take over `partitions`: all that the member has in the new generation."""
        raise NotImplementedError

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> Any:
        return self.revoked(revoked)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> Any:
        return self.assigned(assigned)


def by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Return the numbers of `partitions` by topic, both in ascending order."""
    found: dict[str, list[int]] = {}
    for tp in sorted(partitions):
        found.setdefault(tp.topic, []).append(tp.partition)
    return found


async def committed(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return the committed offsets of the consumer's group, without partitions that have none.

    aiokafka's own method drops the metadata. It also ignores the error code of the whole answer,
    so it takes a refusal (the coordinator has moved, or still loads the group after a restart) for
    "nothing committed". Repeats the request until the coordinator answers: give it a timeout.
    """
    parts: Any = consumer
    coordinator = parts._coordinator
    topics = list(by_topic(partitions).items())
    while True:
        try:
            await coordinator.ensure_coordinator_known()
            request = OffsetFetchRequest(coordinator.group_id, topics)
            return committed_offsets(await coordinator._send_req(request))
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
            if isinstance(error, kafka.NotCoordinatorForGroupError):
                coordinator.coordinator_dead()
            await asyncio.sleep(COORDINATOR_RETRY_SECONDS)


def committed_offsets(answer: Any) -> dict[TopicPartition, OffsetAndMetadata]:
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
    """Raise the error of the broker's error `code`; return if it means success."""
    error = kafka.for_code(code)
    if error is not kafka.NoError:
        raise error


async def commit_offsets(
    consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, tuple[int, str]]
) -> None:
    """Commit `offsets` with their metadata in one request, for the consumer's generation.

    `AIOKafkaConsumer.commit` repeats a refused request without end, in a task that outlives its
    caller. So an old commit could arrive after a newer one.
    """
    parts: Any = consumer
    await parts._coordinator.ensure_coordinator_known()
    commits = {tp: OffsetAndMetadata(*commit) for tp, commit in offsets.items()}
    await parts._coordinator._do_commit_offsets(None, commits)


async def send_request(admin: AIOKafkaAdminClient, node: int, request: Any) -> Any:
    """Send `request` to the broker `node`, and return the answer."""
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
    """Request for the sizes of partitions, which aiokafka does not have."""

    API_KEY = 35

    def __init__(self, topic: str, partitions: Iterable[int]) -> None:
        self._topics = [(topic, list(partitions))]

    def build(self, request_struct_class: type[_LogDirsRequest]) -> _LogDirsRequest:
        return request_struct_class(self._topics)


def generation(consumer: AIOKafkaConsumer) -> tuple[int, str]:
    """Return the generation that the consumer is in, and its member id."""
    parts: Any = consumer
    return parts._coordinator.generation, parts._coordinator.member_id


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Request a rebalance of the group."""
    parts: Any = consumer
    parts._coordinator.request_rejoin()


def refresh_metadata(consumer: AIOKafkaConsumer) -> None:
    """Look up new topics and partitions now, in the background."""
    parts: Any = consumer
    parts._client.force_metadata_update()


def has_ended(consumer: AIOKafkaConsumer) -> bool:
    """Whether one of the consumer's own tasks has ended, so that it stalls (aiokafka #983)."""
    parts: Any = consumer
    # A consumer without a group has no coordination task.
    coordination = getattr(parts._coordinator, "_coordination_task", None)
    tasks = (coordination, parts._fetcher._fetch_task)
    return any(task is not None and task.done() for task in tasks)


def forget_topic(producer: AIOKafkaProducer, topic: str) -> None:
    """Stop requesting the metadata of `topic`."""
    client: Any = producer.client
    client._topics.discard(topic)


def abandon_producer(producer: AIOKafkaProducer) -> None:
    """Close `producer` by force. Records that it has not sent yet are never sent."""
    parts: Any = producer
    parts._closed = True
    _abandon(producer, parts.client, parts._sender, parts._message_accumulator)


def abandon_consumer(consumer: AIOKafkaConsumer) -> None:
    """Close `consumer` by force, without leaving its group."""
    parts: Any = consumer
    parts._closed = True
    _abandon(consumer, parts._client, parts._coordinator, parts._fetcher)


async def start_client(client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient) -> None:
    """Start `client`. If that fails or is cancelled, close the connection it was making.

    aiokafka has that connection in a local variable only, and would leave it open.
    """
    try:
        await client.start()
    except BaseException as error:
        for frame, _ in walk_tb(error.__traceback__):
            connection = frame.f_locals.get("bootstrap_conn")
            if isinstance(connection, AIOKafkaConnection):
                connection.close()
        raise


Login = Callable[[], tuple[str, str]]
"""Returns user and password."""


class _RenewingClient(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client, which asks for user and password whenever it opens a connection.

    aiokafka reads its two attributes then, the user before the password.
    """

    login: Login

    @property
    def _sasl_plain_username(self) -> str:
        user, self._password = self.login()
        return user

    @property
    def _sasl_plain_password(self) -> str:
        return self._password


def renew_login(
    owner: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient, login: Login
) -> None:
    """Have every connection that `owner` opens from now on use what `login` returns then."""
    parts: Any = owner
    client = parts.client if isinstance(owner, AIOKafkaProducer) else parts._client
    client.login = login
    client.__class__ = _RenewingClient  # It is made by `owner`, of the class that aiokafka names.


def abandon_admin(admin: AIOKafkaAdminClient) -> None:
    """Close `admin` by force."""
    parts: Any = admin
    parts._closed = True
    _abandon(admin, parts._client)


class _ClosedConnections(dict[Any, Any]):
    """The connections of a closed client: closes each connection that is added.

    A call that was running at the close may still open one, which nothing else would close.
    """

    def __setitem__(self, key: Any, connection: Any) -> None:
        # The callback would start a metadata refresh that never ends.
        connection._on_close_cb = None
        connection.close()
        super().__setitem__(key, connection)


def _abandon(owner: Any, client: Any, *others: Any) -> None:
    """Cancel every task that runs a method of one of these objects, and close the connections.

    aiokafka keeps some of its tasks in local variables only. So tasks are found by the `self` of
    the coroutine that they run.
    """
    connections, client._conns = client._conns, _ClosedConnections()
    for key, connection in connections.items():
        client._conns[key] = connection
    parts = [part for part in (owner, client, *others) if part is not None]
    current = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not current and any(_self_of(task) is part for part in parts):
            task.cancel()


def _self_of(task: asyncio.Task[Any]) -> object | None:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self") if frame is not None else None


class _HideLogins(logging.Filter):
    """Log filter that replaces the requests and answers of a SASL login."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(argument) for argument in record.args)
        return True


def _hidden(argument: object) -> object:
    name = type(argument).__name__
    return f"{name}(***)" if name.startswith("SaslAuthenticate") else argument


def hide_logins() -> None:
    """Keep passwords out of aiokafka's log, which shows every request at DEBUG.

    A second call does nothing.
    """
    logger = logging.root.getChild("aiokafka.conn")
    if not any(isinstance(found, _HideLogins) for found in logger.filters):
        logger.addFilter(_HideLogins())
