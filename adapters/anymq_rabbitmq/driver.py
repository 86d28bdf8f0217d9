"""`RabbitMQDriver`: topics and groups on RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import aio_pika
from aiormq.exceptions import ChannelNotFoundEntity

from anymq.capabilities import Capabilities
from anymq.driver import Binding, Driver, Outcome, Record, Source, SubscribeSpec, TopicSpec
from anymq.errors import ErrorTable, StateError, UnsupportedOperation
from anymq.url import URL

from . import convert, topology
from .capabilities import CAPABILITIES
from .consumer import Consumer
from .delays import Delays
from .errors import ERRORS
from .fill import Fill
from .link import Link
from .options import RabbitMQOptions, tls_context
from .publisher import Publisher
from .reader import LogSource
from .source import QueueSource


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
        self._publisher = Publisher(publishing, timeout=options.confirm_timeout)
        self._delays = Delays(link)
        self._topics: dict[str, TopicSpec] = {}

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
        if topic.create:
            await topology.declare_topic(self._link, topic, self._options.retention)
        self._topics[topic.name] = topic

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """See `Driver`. RabbitMQ names no position."""
        return await self._publisher.publish(
            [
                convert.outgoing(
                    record,
                    exchange=topology.exchange_of(self._topic(record.topic)),
                    routing_key=convert.routing_key(record),
                )
                for record in records
            ]
        )

    async def subscribe(self, spec: SubscribeSpec) -> Source:
        """See `Driver`."""
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
        await asyncio.gather(self._link.aclose(), self._publishing.aclose())

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
        fill = Fill(self._link, self._publisher, exchange=exchange, queue=queue)
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
        return None


def _no_log(spec: SubscribeSpec, log: str, what: str) -> str:
    return (
        f"{what} needs the log of {spec.topic.name!r}, the stream {log!r}: anymq makes and binds "
        "it with the topics it creates; for others, create it and bind it with '#'"
    )
