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
    ConfigurationError,
    ErrorTable,
    NotFound,
    StateError,
    TransientError,
    UnsupportedOperation,
)
from anymq.partitions import partition_of
from anymq.url import URL

from . import convert, topology
from .attempts import ARGUMENTS as ATTEMPTS_ARGUMENTS
from .attempts import Attempts
from .capabilities import CAPABILITIES
from .consumer import Consumer
from .delays import Delays
from .due import Destination, Due
from .errors import ERRORS
from .fill import Fill, Filling
from .group import Group
from .lane import Lane
from .link import Link
from .log import Log
from .options import RabbitMQOptions, tls_context
from .ordered import OrderedQueueSource
from .publisher import Outgoing, Publisher
from .reader import LogSource
from .source import QueueSource

SMALLEST_PREFETCH = 64
"""What a member of an ordered group asks for of each partition, at least."""
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
        group = self._group(spec.topic, spec.native_group, ordered=spec.ordered, create=spec.create)
        filling = await self._prepare(spec, group)
        try:
            return await self._join(spec, group, filling)
        except BaseException:
            if filling is not None:
                filling.cancel()
            raise

    async def _join(self, spec: SubscribeSpec, group: Group, filling: Filling | None) -> Source:
        source: QueueSource | OrderedQueueSource
        if spec.ordered:
            source = await self._join_ordered(spec, group, filling)
        else:
            consumer = await Consumer.open(self._link, group.queue, prefetch=spec.prefetch)
            source = QueueSource(
                consumer,
                queue=group.queue,
                link=self._link,
                publisher=self._publisher,
                delays=self._delays,
                filling=filling,
            )
        if filling is not None:
            try:
                await filling.begun()
            except BaseException:
                await source.aclose()
                raise
        return source

    async def _join_ordered(
        self, spec: SubscribeSpec, group: Group, filling: Filling | None
    ) -> OrderedQueueSource:
        count = group.partitions or 1
        prefetch = min(spec.prefetch, max(SMALLEST_PREFETCH, spec.prefetch // count))
        lanes = [
            Lane(self._link, group, number, member=spec.member, prefetch=prefetch)
            for number in range(count)
        ]
        try:
            for lane in lanes:
                await lane.open()
        except BaseException:
            await asyncio.gather(*(lane.aclose() for lane in lanes))
            raise
        attempts = Attempts(group.attempts, self._link, self._publisher)
        return OrderedQueueSource(lanes, attempts=attempts, revoke=spec.revoke, filling=filling)

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

    def _group(self, topic: TopicSpec, native: str, *, ordered: bool, create: bool = True) -> Group:
        exchange = topology.exchange_of(topic)
        queue = topology.escaped(native) if create else native
        return Group(exchange, queue, self._partitions[exchange] if ordered else None)

    async def _prepare(self, spec: SubscribeSpec, group: Group) -> Filling | None:
        """Make the group's queues, or find them; return what still fills them, if anything does."""
        if not spec.create:
            if spec.ordered:
                raise UnsupportedOperation(
                    f"{spec.native_group!r} is not anymq's: ordered=True needs queues of its own"
                )
            await topology.require(self._link, group.queue)
            return None
        is_new = not await topology.exists(self._link, group.queue)
        if not is_new:
            await self._claim(group)
        fill = Fill(self._link, self._publisher, group, settle=self._options.settle_time)
        if is_new and spec.start != "latest":
            await fill.order(await self._place(spec, group))
        # The first queue after the job and all others: whoever finds it finds them as well.
        await self._make(group, with_history=is_new and spec.start != "latest")
        if await topology.exists(self._link, group.jobs):
            return Filling(fill)
        await group.bind(self._link)
        if is_new:
            await asyncio.sleep(self._options.settle_time)
        return None

    async def _make(self, group: Group, *, with_history: bool) -> None:
        if group.partitions is not None:
            await topology.ensure_queue(self._link, group.attempts, ATTEMPTS_ARGUMENTS)
        others = [queue for queue in group.live if queue != group.queue]
        for queue in [*(group.histories if with_history else ()), *others]:
            await topology.ensure_queue(self._link, queue, group.arguments())
        await self._claim(group)

    async def _claim(self, group: Group) -> None:
        """Make the group's first queue, which says whether it is ordered; it may be there."""
        found = await topology.adopt(self._link, group.queue, group.arguments())
        if bool(found.get(topology.SINGLE)) != (group.partitions is not None):
            mode = "ordered" if group.partitions is None else "not ordered"
            raise ConfigurationError(
                f"the group {group.queue!r} is {mode}: it stays so from its first subscription on"
            )

    async def _place(self, spec: SubscribeSpec, group: Group) -> int:
        """Where in the log a new group begins."""
        if not await topology.exists(self._link, group.log):
            what = f"start={spec.start!r} of a new group"
            raise UnsupportedOperation(_no_log(spec, group.log, what))
        return await Log(group.log, self._link, self._publisher).place(spec.start)


def _no_log(spec: SubscribeSpec, log: str, what: str) -> str:
    return (
        f"{what} needs the log of {spec.topic.name!r}, the stream {log!r}: anymq makes and binds "
        "it with the topics it creates; for others, create it and bind it with '#'"
    )
