"""`RabbitMQDriver`: topics and groups on RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import aio_pika
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from anymq.capabilities import Capabilities
from anymq.driver import Binding, Driver, Outcome, Record, Source, SubscribeSpec, TopicSpec
from anymq.errors import (
    BrokerError,
    ErrorTable,
    NotFound,
    StateError,
    TransientError,
    UnsupportedOperation,
)
from anymq.partitions import partition_of
from anymq.url import URL

from . import convert, topology
from .capabilities import CAPABILITIES
from .consumer import Consumer
from .delays import Delays
from .due import Destination, Due
from .errors import ERRORS
from .fill import Fill
from .link import Link
from .options import RabbitMQOptions, tls_context
from .publisher import Outgoing, Publisher
from .reader import LogSource
from .source import QueueSource

_MISSING = (NotFound, ChannelNotFoundEntity)


class RabbitMQDriver(Driver):
    """Two connections to RabbitMQ: one publishes, one consumes and asks. See the package."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix="ce-", content_type=None)
    options: ClassVar[type[Any]] = RabbitMQOptions
    max_body: ClassVar[float] = 16 * 1024 * 1024
    tls_schemes: ClassVar[frozenset[str]] = frozenset({"amqps"})

    def __init__(self, link: Link, publishing: Link, options: RabbitMQOptions) -> None:
        self._link = link
        self._publishing = publishing
        self._options = options
        self._publisher = Publisher(
            publishing, timeout=options.confirm_timeout, check=self._check_log
        )
        self._delays = Delays(link, settle=options.settle_time)
        self._due = Due(
            link,
            publishing,
            self._delays,
            settle=options.settle_time,
            timeout=options.confirm_timeout,
        )
        self._topics: dict[str, TopicSpec] = {}
        self._logs: dict[str, str] = {}
        self._partitions: dict[str, int] = {}
        self._next_partition = itertools.count()
        self._has_streams = False

    @classmethod
    async def open(cls, url: URL, options: RabbitMQOptions, *, timeout: float) -> Self:
        """See `Driver`. A connection is complete when its handshake is answered."""
        context = await asyncio.to_thread(tls_context, url, options)
        link, publishing = (
            Link(url, options, context=context, purpose=purpose, timeout=timeout)
            for purpose in ("consumer", "publisher")
        )
        await link.connect()
        return cls(link, publishing, options)

    @property
    def native(self) -> aio_pika.Connection:
        """The aio-pika connection that consumes; another one after a reconnect."""
        connection = self._link.native
        assert connection is not None
        return connection

    async def ping(self) -> None:
        """See `Driver`."""
        async with self._link.scratch():
            pass

    async def declare(self, topic: TopicSpec) -> None:
        """See `Driver`."""
        exchange = topology.exchange_of(topic)
        if topic.create:
            await self._create(topic)
            self._logs[exchange] = topology.log_of(exchange)
        else:
            self._partitions[exchange] = topic.partitions or 1
        self._topics[topic.name] = topic

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """See `Driver`. RabbitMQ names no position."""
        if any(record.deliver_at is not None for record in records):
            await self._due.prepare()
        now = time.time()
        outcomes = await self._publisher.publish([self._outgoing(one, now) for one in records])
        if any(isinstance(outcome, _MISSING) for outcome in outcomes):
            return [
                await self._repaired(record, outcome)
                for record, outcome in zip(records, outcomes, strict=True)
            ]
        return outcomes

    async def subscribe(self, spec: SubscribeSpec) -> Source:
        """See `Driver`."""
        if spec.topic.create:
            self._due.start()
        else:
            await topology.require_exchange(self._link, topology.exchange_of(spec.topic))
        if spec.group is None:
            return await self._follow(spec)
        queue = topology.escaped(spec.native_group) if spec.create else spec.native_group
        fill = await self._prepare(spec, queue)
        consumer = await Consumer.open(self._link, queue, prefetch=spec.prefetch)
        source = QueueSource(
            consumer,
            queue=queue,
            link=self._link,
            publisher=self._publisher,
            delays=self._delays,
        )
        if fill is not None:
            try:
                await source.fill(fill)
            except BaseException:
                await source.aclose()
                raise
        return source

    async def aclose(self) -> None:
        """See `Driver`."""
        await self._due.aclose()
        await asyncio.gather(self._link.aclose(), self._publishing.aclose())

    def _outgoing(self, record: Record, now: float) -> Outgoing:
        exchange = topology.exchange_of(self._topic(record.topic))
        key = convert.routing_key(record, self._partition(exchange, record.key))
        if record.deliver_at is None or record.deliver_at <= now:
            return convert.outgoing(record, exchange=exchange, routing_key=key)
        to = Destination(record.deliver_at, time.time_ns(), exchange, key, self._logs.get(exchange))
        return self._due.outgoing(record, to)

    def _partition(self, exchange: str, key: str | None) -> int | None:
        count = self._partitions[exchange]
        if count == 1:
            return None
        return next(self._next_partition) % count if key is None else partition_of(key, count)

    async def _create(self, topic: TopicSpec) -> None:
        if not self._has_streams:
            await topology.ensure_streams(self._link, self._options.settle_time)
            self._has_streams = True
        self._partitions[topology.exchange_of(topic)] = await topology.declare_topic(
            self._link, topic, self._options.retention
        )

    async def _check_log(self, exchange: str) -> None:
        """Raise while the log of a topic is not up: a server that has just started confirms what
        it has put into the groups' queues only, and says nothing of the log."""
        if log := self._logs.get(exchange):
            await topology.look(self._link, log)

    async def _repaired(self, record: Record, outcome: BaseException | None) -> Outcome:
        """What became of a record that came back as there was no queue to take it.

        A topic of anymq's own has its log at least. So that was deleted, or is not up yet after a
        restart of the server: which passes.
        """
        topic = self._topics[record.topic]
        if not isinstance(outcome, _MISSING):
            return outcome
        if record.deliver_at is not None:
            self._due.forget()
        elif not topic.create:
            return outcome
        try:
            if topic.create:
                await self._create(topic)
        except (AMQPError, BrokerError) as error:
            outcome.__cause__ = error
        return TransientError(str(outcome)).with_traceback(outcome.__traceback__)

    def _topic(self, name: str) -> TopicSpec:
        try:
            return self._topics[name]
        except KeyError:
            raise StateError(f"the topic {name!r} has not been declared") from None

    async def _follow(self, spec: SubscribeSpec) -> LogSource:
        log = topology.log_of(topology.exchange_of(spec.topic))
        source = LogSource(log, link=self._link, prefetch=spec.prefetch)
        try:
            await source.start(spec.start, self._publisher)
        except ChannelNotFoundEntity as error:
            raise UnsupportedOperation(_no_log(spec, log, "broadcast")) from error
        return source

    async def _prepare(self, spec: SubscribeSpec, queue: str) -> Fill | None:
        """Make the group's queue, or find it; return what still fills it, if anything does."""
        if not spec.create:
            await topology.require(self._link, queue)
            return None
        exchange = topology.exchange_of(spec.topic)
        settle = self._options.settle_time
        fill = Fill(self._link, self._publisher, exchange=exchange, queue=queue, settle=settle)
        is_new = not await topology.exists(self._link, queue)
        if is_new and spec.start == "earliest":
            log = topology.log_of(exchange)
            if not await topology.exists(self._link, log):
                raise UnsupportedOperation(_no_log(spec, log, "start='earliest' of a new group"))
            await fill.order()
        # The queue after the job: whoever finds the queue finds the job as well, or it is done.
        await topology.ensure_queue(self._link, queue, topology.GROUP_ARGUMENTS)
        if await topology.exists(self._link, topology.fill_of(queue)):
            return fill
        await topology.bind(self._link, queue, exchange)
        if is_new:
            await asyncio.sleep(settle)
        return None


def _no_log(spec: SubscribeSpec, log: str, what: str) -> str:
    return (
        f"{what} needs the log of {spec.topic.name!r}, the stream {log!r}: anymq makes and binds "
        "it with the topics it creates; for others, create it and bind it with '#'"
    )
