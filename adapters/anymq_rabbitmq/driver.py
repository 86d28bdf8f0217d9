"""`RabbitMQDriver`: topics and groups on RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, ClassVar, Self

import aio_pika
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity, ConnectionClosed

from anymq.driver import (
    URL,
    Binding,
    BrokerError,
    Capabilities,
    Check,
    Clock,
    Driver,
    Endpoint,
    ErrorTable,
    GroupInfo,
    Listener,
    NotFound,
    Outcome,
    Reader,
    Received,
    Record,
    Start,
    SubscribeSpec,
    TopicInfo,
    TopicSpec,
    TransientError,
    UnsupportedOperation,
)

from . import checks, messages
from .admin import Admin
from .broadcast import BroadcastReader
from .capabilities import CAPABILITIES
from .client.compat import CLIENT_LOGGERS, CLIENT_PARTS
from .client.protocol import require_exchange
from .connection import Connection, endpoints
from .delays import DelayedPublisher, DelayLadder, Destination
from .errors import ERRORS
from .groups.catalog import Catalog
from .groups.member import Members
from .groups.schema import exchange_of, log_of
from .options import RabbitMQOptions, tls_context
from .positions import Log
from .publisher import Outgoing, Publisher
from .topology import Topics, no_log

_MISSING = (NotFound, ChannelNotFoundEntity)


class RabbitMQDriver(Driver):
    """Two connections to RabbitMQ: one publishes, one consumes and makes requests."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix=messages.PREFIX, content_type=None)
    options: ClassVar[type[Any]] = RabbitMQOptions
    name_option = "connection_name"
    # The server confirms a batch when it is on disk, and accepts others meanwhile.
    overlap: ClassVar[int] = 4
    max_body: ClassVar[float] = 16 * 1024 * 1024
    tls_schemes: ClassVar[frozenset[str]] = frozenset({"amqps"})
    client_parts = CLIENT_PARTS
    client_loggers = CLIENT_LOGGERS
    grants = checks.GRANTS

    def __init__(
        self,
        consuming: Connection,
        publishing: Connection,
        options: RabbitMQOptions,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self._options = options
        self._consuming = consuming
        self._publishing = publishing
        settle, timeout = options.settle_time, options.confirm_timeout
        self._publisher = Publisher(publishing, timeout=timeout, check=self._check_ready)
        self._catalog = catalog = Catalog(consuming, self._publisher)
        self._topics = topics = Topics(consuming, catalog, options)
        self._ladder = ladder = DelayLadder(consuming, settle=settle)
        self._delayed = DelayedPublisher(
            consuming, publishing, ladder=ladder, catalog=catalog, settle=settle, timeout=timeout
        )
        self._members = Members(
            consuming,
            self._publisher,
            topics=topics,
            catalog=catalog,
            ladder=ladder,
            options=options,
        )
        self._admin = Admin(
            consuming, self._publisher, topics=topics, catalog=catalog, settle=settle
        )

    @classmethod
    async def open(
        cls, url: URL, options: RabbitMQOptions, *, timeout: float, clock: Clock
    ) -> Self:
        """See `Driver`. A connection is complete when its handshake is answered."""
        context = await asyncio.to_thread(tls_context, url, options)
        consuming, publishing = (
            Connection(url, options, context=context, purpose=purpose, timeout=timeout)
            for purpose in ("consumer", "publisher")
        )
        await consuming.connect()
        return cls(consuming, publishing, options, clock)

    @property
    def native(self) -> aio_pika.Connection:
        """The aio-pika connection that consumes; another one after a reconnect."""
        connection = self._consuming.native
        assert connection is not None
        return connection

    @property
    def obstacle(self) -> BaseException | None:
        """See `Driver`."""
        return self._publisher.obstacle

    async def ping(self) -> None:
        """See `Driver`."""
        async with self._consuming.request_channel():
            pass

    async def declare(self, topic: TopicSpec) -> None:
        """See `Driver`."""
        await self._topics.declare(topic)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """See `Driver`. RabbitMQ reports no position."""
        if self._topics.has_queues and any(map(self._is_delayed_to_queue, records)):
            return await self._publish_others(records)
        if any(record.deliver_at is not None for record in records):
            await self._delayed.prepare()
        now = time.time()
        outcomes = await self._publisher.publish([self._outgoing(one, now) for one in records])
        if any(isinstance(outcome, _MISSING) for outcome in outcomes):
            for name in {record.topic for record in records}:
                await self._topics.rebind_groups(self._topics.spec(name))
            return [
                await self._repaired(record, outcome)
                for record, outcome in zip(records, outcomes, strict=True)
            ]
        return outcomes

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        """See `Driver`."""
        if spec.topic.create:
            await self._delayed.take_part()
        elif not self._topics.is_queue(spec.topic):
            await require_exchange(self._consuming, exchange_of(spec.topic))
        if spec.group is None:
            return await self._follow(spec, listener)
        try:
            return await self._members.join(spec, listener)
        except ConnectionClosed:
            # The server closes the connection of a consumer whose quorum queue another member is
            # just making.
            return await self._members.join(spec, listener)

    @classmethod
    def endpoints(cls, url: URL, options: RabbitMQOptions) -> Sequence[Endpoint]:
        """See `Driver`."""
        return endpoints(url, options)

    def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        """See `Driver`."""
        return checks.checks(self._consuming, self._publisher, self._options, scratch)

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        """See `Driver`. Reads the topic's log."""
        await self._topics.find(topic)
        log = self._log(topic)
        async for records in log.browse(await log.offset_of(start)):
            yield records

    async def topics(self) -> Sequence[str]:
        """See `Driver`."""
        return await self._admin.topics()

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        """See `Driver`."""
        return await self._admin.groups(topic)

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        """See `Driver`."""
        return await self._admin.describe_topic(topic)

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        """See `Driver`."""
        return await self._admin.describe_group(topic, native_group)

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        """See `Driver`."""
        await self._admin.seek(topic, native_group, to)

    async def delete_topic(self, topic: TopicSpec) -> None:
        """See `Driver`."""
        await self._admin.delete_topic(topic)

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        """See `Driver`."""
        await self._admin.delete_group(topic, native_group)

    async def purge(self, topic: TopicSpec) -> None:
        """See `Driver`."""
        await self._admin.purge(topic)

    async def aclose(self) -> None:
        """See `Driver`."""
        await self._delayed.aclose()
        await asyncio.gather(self._consuming.aclose(), self._publishing.aclose())

    def _log(self, topic: TopicSpec) -> Log:
        return Log(log_of(exchange_of(topic)), self._consuming, self._publisher)

    def _outgoing(self, record: Record, now: float) -> Outgoing:
        exchange, key = self._topics.route(record)
        if record.deliver_at is None or record.deliver_at <= now:
            return messages.outgoing(record, exchange=exchange, routing_key=key)
        log = self._topics.log_of(exchange)
        to = Destination(record.deliver_at, time.time_ns(), exchange, key, log)
        return self._delayed.outgoing(record, to)

    def _is_delayed_to_queue(self, record: Record) -> bool:
        return record.deliver_at is not None and self._topics.is_queue(
            self._topics.spec(record.topic)
        )

    async def _publish_others(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Publish the records without those that are delayed to an operator's queue."""
        others = [record for record in records if not self._is_delayed_to_queue(record)]
        outcomes = iter(await self.publish(others) if others else ())
        return [
            UnsupportedOperation(f"{record.topic!r} is a queue: it takes no delayed messages")
            if self._is_delayed_to_queue(record)
            else next(outcomes)
            for record in records
        ]

    async def _check_ready(self, exchange: str) -> None:
        await self._topics.check_ready(exchange)

    async def _repaired(self, record: Record, outcome: BaseException | None) -> Outcome:
        """Return the outcome of a record that was returned because no queue took it.

        A topic of anymq has at least its log. So that was deleted, or is not up yet after a restart
        of the server: the topic is made again, and the error is transient.
        """
        topic = self._topics.spec(record.topic)
        if not isinstance(outcome, _MISSING):
            return outcome
        if record.deliver_at is not None:
            self._delayed.forget()
        elif not topic.create:
            return outcome
        try:
            if topic.create:
                await self._topics.create(topic)
        except (AMQPError, BrokerError) as error:
            outcome.__cause__ = error
        return TransientError(str(outcome)).with_traceback(outcome.__traceback__)

    async def _follow(self, spec: SubscribeSpec, listener: Listener) -> BroadcastReader:
        log = self._log(spec.topic)
        reader = BroadcastReader(
            log,
            connection=self._consuming,
            prefetch=spec.prefetch,
            skipped=listener.skipped,
        )
        try:
            await reader.start(spec.start, spec.position)
        except ChannelNotFoundEntity as error:
            raise no_log(spec.topic, log.stream, "broadcast") from error
        return reader
