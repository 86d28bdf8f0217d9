"""`RabbitMQDriver`: topics and groups on RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Self

import aio_pika
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ConnectionClosed,
)

from anymq.driver import (
    MAX_BODY,
    URL,
    Binding,
    BrokerError,
    Capabilities,
    Clock,
    Driver,
    ErrorTable,
    GroupInfo,
    Listener,
    NotFound,
    Outcome,
    Reader,
    Received,
    Record,
    Start,
    StateError,
    SubscribeSpec,
    TopicInfo,
    TopicSpec,
    TransientError,
    UnsupportedOperation,
    logger,
    partition_of,
)

from . import convert, topology
from .attempts import Attempts
from .capabilities import CAPABILITIES
from .consumer import Consumer
from .delays import Delays
from .due import Destination, Due
from .errors import ERRORS
from .fill import Fill, Filling
from .group import ENDLESS, LIMIT, Group
from .lane import Lane
from .link import CLIENT_PARTS, Link
from .log import Log
from .names import Names
from .operating import describe_group, describe_topic, present
from .options import RabbitMQOptions, tls_context
from .ordered import OrderedQueueSource
from .publisher import Outgoing, Publisher
from .reader import LogSource
from .source import QueueSource

log = logger("anymq.rabbitmq")
SMALLEST_PREFETCH = 64
"""What a member of an ordered group asks for of each partition, at least."""
_MISSING = (NotFound, ChannelNotFoundEntity)


class RabbitMQDriver(Driver):
    """Two connections to RabbitMQ: one publishes, one consumes and asks. See the package."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    errors: ClassVar[ErrorTable] = ERRORS
    binding: ClassVar[Binding] = Binding(prefix=convert.PREFIX, content_type=None)
    options: ClassVar[type[Any]] = RabbitMQOptions
    # The server confirms a batch late, when it is on disk, and takes others meanwhile.
    overlap: ClassVar[int] = 4
    max_body: ClassVar[float] = 16 * 1024 * 1024
    tls_schemes: ClassVar[frozenset[str]] = frozenset({"amqps"})
    client_parts = CLIENT_PARTS
    client_loggers = ("aio_pika", "aiormq")

    def __init__(
        self, link: Link, publishing: Link, options: RabbitMQOptions, clock: Clock
    ) -> None:
        self.clock = clock
        self._link = link
        self._publishing = publishing
        self._options = options
        self._publisher = Publisher(
            publishing, timeout=options.confirm_timeout, check=self._check_log
        )
        self._names = Names(link, self._publisher)
        self._delays = Delays(link, settle=options.settle_time)
        self._due = Due(
            link,
            publishing,
            self._delays,
            self._names,
            settle=options.settle_time,
            timeout=options.confirm_timeout,
        )
        self._topics: dict[str, TopicSpec] = {}
        self._logs: dict[str, str] = {}
        self._partitions: dict[str, int] = {}
        self._queues: set[str] = set()
        """Natives of topics that are an operator's queue, and no exchange."""
        self._next_partition = itertools.count()
        self._has_streams = False
        self._half_made: set[str] = set()
        """Exchanges of which making the rest, with the bindings of the groups, has not ended."""

    @classmethod
    async def open(
        cls, url: URL, options: RabbitMQOptions, *, timeout: float, clock: Clock
    ) -> Self:
        """See `Driver`. A connection is complete when its handshake is answered."""
        context = await asyncio.to_thread(tls_context, url, options)
        link, publishing = (
            Link(url, options, context=context, purpose=purpose, timeout=timeout)
            for purpose in ("consumer", "publisher")
        )
        await link.connect()
        return cls(link, publishing, options, clock)

    @property
    def native(self) -> aio_pika.Connection:
        """The aio-pika connection that consumes; another one after a reconnect."""
        connection = self._link.native
        assert connection is not None
        return connection

    @property
    def obstacle(self) -> BaseException | None:
        """See `Driver`."""
        return self._publisher.obstacle

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
            await self._look_for_queue(topic.native)
        self._topics[topic.name] = topic

    async def _look_for_queue(self, native: str) -> None:
        self._queues.discard(native)
        if not await topology.exchange_exists(self._link, native):
            with suppress(ChannelAccessRefused):
                if await topology.exists(self._link, native):
                    self._queues.add(native)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """See `Driver`. RabbitMQ names no position."""
        if self._queues and any(map(self._is_delayed_to_queue, records)):
            return await self._publish_others(records)
        if any(record.deliver_at is not None for record in records):
            await self._due.prepare()
        now = time.time()
        outcomes = await self._publisher.publish([self._outgoing(one, now) for one in records])
        if any(isinstance(outcome, _MISSING) for outcome in outcomes):
            for name in {record.topic for record in records}:
                await self._rejoin_groups(self._topics[name])
            return [
                await self._repaired(record, outcome)
                for record, outcome in zip(records, outcomes, strict=True)
            ]
        return outcomes

    def _is_delayed_to_queue(self, record: Record) -> bool:
        return record.deliver_at is not None and self._topic(record.topic).native in self._queues

    async def _publish_others(self, records: Sequence[Record]) -> Sequence[Outcome]:
        others = [record for record in records if not self._is_delayed_to_queue(record)]
        outcomes = iter(await self.publish(others) if others else ())
        return [
            UnsupportedOperation(f"{record.topic!r} is a queue: it takes no delayed messages")
            if self._is_delayed_to_queue(record)
            else next(outcomes)
            for record in records
        ]

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        """See `Driver`."""
        if spec.topic.create:
            await self._due.take_part()
        elif spec.topic.native not in self._queues:
            await topology.require_exchange(self._link, topology.exchange_of(spec.topic))
        if spec.group is None:
            return await self._follow(spec, listener)
        try:
            return await self._take_part(spec, listener)
        except ConnectionClosed:
            # The server closes the connection of a consumer whose quorum queue is just being made
            # by another member.
            return await self._take_part(spec, listener)

    async def _take_part(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        group = self._group(spec.topic, spec.native_group, ordered=spec.ordered, create=spec.create)
        filling = await self._prepare(spec, group)
        try:
            return await self._join(spec, group, filling, listener)
        except BaseException:
            if filling is not None:
                filling.cancel()
            raise

    async def _join(
        self, spec: SubscribeSpec, group: Group, filling: Filling | None, listener: Listener
    ) -> Reader:
        source: QueueSource | OrderedQueueSource
        if spec.ordered:
            source = await self._join_ordered(spec, group, filling, listener)
        else:
            life = await group.claim(self._link) if spec.create else 0
            # The server counts messages, not bytes; how large they are is seen when some have come.
            first = min(spec.first or spec.prefetch, max(1, spec.prefetch_bytes // MAX_BODY))
            consumer = await Consumer.open(self._link, group.queue, prefetch=first)
            source = QueueSource(
                consumer,
                queue=group.queue,
                life=life,
                link=self._link,
                publisher=self._publisher,
                delays=self._delays,
                filling=filling,
                most=max(spec.prefetch, spec.first),
                listener=listener,
                attempts=self._attempts_of(group) if spec.create else None,
            )
        # Half of what the server allows, for its own heartbeat may have been the last word.
        source.silence = float(self._options.heartbeat)
        if filling is not None:
            try:
                await filling.begun()
            except BaseException:
                await source.aclose()
                raise
        return source

    async def _join_ordered(
        self, spec: SubscribeSpec, group: Group, filling: Filling | None, listener: Listener
    ) -> OrderedQueueSource:
        count = group.partitions or 1
        prefetch = min(spec.prefetch, max(SMALLEST_PREFETCH, spec.prefetch // count))
        attempts = self._attempts_of(group)
        lanes = [
            Lane(
                self._link,
                group,
                number,
                attempts=attempts,
                member=spec.member,
                prefetch=prefetch,
            )
            for number in range(count)
        ]
        try:
            for lane in lanes:
                await lane.open()
        except BaseException:
            await asyncio.gather(*(lane.aclose() for lane in lanes))
            raise
        return OrderedQueueSource(
            lanes,
            attempts=attempts,
            filling=filling,
            listener=listener,
        )

    def _attempts_of(self, group: Group) -> Attempts:
        return Attempts(group.attempts, self._link, self._publisher)

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        """See `Driver`. Reads the topic's log."""
        await self._find(topic)
        log = self._log(topology.exchange_of(topic))
        async for records in log.between(await log.place(start)):
            yield records

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        """See `Driver`. The group is made anew: its queues are deleted, and filled from the log.

        The job of filling is there before: whoever comes in between goes on with it.
        """
        group = await self._existing(topic, native_group)
        place = None if to == "latest" else await self._log(group.exchange).place(to)
        await self._require_idle(group)
        await self._renew(group, place)

    async def topics(self) -> Sequence[str]:
        """See `Driver`. Those that anymq made."""
        known = await self._names.read()
        return await present(known.groups, self._require_topic)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        """See `Driver`. Those that anymq made."""
        await self._find(topic)
        known = await self._names.read()
        return await present(known.groups.get(topic.native, ()), self._require_group)

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        """See `Driver`."""
        return await describe_topic(self._link, topic, await self._find(topic))

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        """See `Driver`."""
        group = await self._existing(topic, native_group)
        return await describe_group(self._link, topic, native_group, group)

    async def delete_topic(self, topic: TopicSpec) -> None:
        """See `Driver`."""
        exchange = topology.exchange_of(topic)
        if not await topology.exchange_exists(self._link, exchange):
            return
        for group in await self._groups(topic):
            await group.delete(self._link)
        await self._names.add_purge(exchange)
        await topology.delete_topic(self._link, exchange)
        await topology.seal(self._link)
        await self._names.drop_topic(topic.native)
        self._partitions.pop(exchange, None)

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        """See `Driver`."""
        with suppress(NotFound, ChannelNotFoundEntity):
            group = await self._existing(topic, native_group)
            await self._require_idle(group)
            await group.delete(self._link)
            await topology.seal(self._link)

    async def purge(self, topic: TopicSpec) -> None:
        """See `Driver`. The log and the groups' queues are made anew: their readers come back."""
        count = await self._find(topic)
        if not topic.create:
            raise UnsupportedOperation(f"{topic.name!r} is not anymq's to purge")
        exchange = topology.exchange_of(topic)
        await self._names.add_purge(exchange)
        retention = await topology.log_arguments(self._link, exchange)
        await topology.delete_queue(self._link, topology.log_of(exchange))
        await topology.make_log(self._link, exchange, retention)
        await topology.seal(self._link)
        self._partitions[exchange] = count
        for group in await self._groups(topic):
            await self._renew(group, None)

    async def _require_topic(self, native: str) -> None:
        await topology.require_exchange(self._link, topology.escaped(native))

    async def _require_group(self, native: str) -> None:
        await topology.require(self._link, topology.escaped(native))

    async def _groups(self, topic: TopicSpec) -> list[Group]:
        known = await self._names.read()
        natives = await present(known.groups.get(topic.native, ()), self._require_group)
        return [await self._existing(topic, native) for native in natives]

    async def _renew(self, group: Group, place: int | None) -> None:
        """Make the group anew, to begin at `place` of the log, or now."""
        life = await group.claim(self._link)
        await group.delete(self._link)
        if place is not None:
            fill = Fill(self._link, self._publisher, group, settle=self._options.settle_time)
            await fill.order(place)
        await group.make(self._link, with_history=place is not None, life=life + 1)
        if place is None:
            await group.bind(self._link)
            await topology.settled(self._link, self._options.settle_time)

    def _log(self, exchange: str) -> Log:
        return Log(topology.log_of(exchange), self._link, self._publisher)

    async def _existing(self, topic: TopicSpec, native_group: str) -> Group:
        """The group, as it is on the server. Raises `NotFound` if it is not there."""
        await self._find(topic)
        group = self._group(topic, native_group, ordered=False, create=topic.create)
        if not await topology.exists(self._link, group.queue):
            raise NotFound(f"the topic {topic.name!r} has no group {native_group!r}")
        if not topic.create:
            return group
        found = await topology.adopt(self._link, group.queue, group.arguments())
        ordered = bool(found.get(topology.SINGLE))
        return self._group(topic, native_group, ordered=ordered)

    async def _find(self, topic: TopicSpec) -> int:
        """The number of partitions. Raises the server's error if the topic is not there."""
        exchange = topology.exchange_of(topic)
        await topology.require_exchange(self._link, exchange)
        if exchange not in self._partitions:
            count = topic.partitions or 1
            if topic.create:
                count = await topology.partitions(self._link, exchange, topic)
            self._partitions[exchange] = count
        return self._partitions[exchange]

    async def _require_idle(self, group: Group) -> None:
        for queue in [*group.live, *group.histories]:
            with suppress(ChannelNotFoundEntity):
                if (await topology.counts(self._link, queue))[1]:
                    raise StateError(f"the group {group.queue!r} has live members")

    async def aclose(self) -> None:
        """See `Driver`."""
        await self._due.aclose()
        await asyncio.gather(self._link.aclose(), self._publishing.aclose())

    def _outgoing(self, record: Record, now: float) -> Outgoing:
        topic = self._topic(record.topic)
        exchange = topology.exchange_of(topic)
        if not topic.create and topic.native in self._queues:
            exchange, key = "", topic.native
        else:
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
        exchange = topology.exchange_of(topic)
        is_new = not await topology.exchange_exists(self._link, exchange)
        groups: list[Group] = []
        if is_new or exchange in self._half_made:
            self._half_made.add(exchange)
            await self._names.add_topic(topic.native)
            if await topology.exists(self._link, topology.log_of(exchange)):
                groups = await self._left_behind(topic)
                count = max([group.partitions or 1 for group in groups], default=None)
                topic = replace(topic, partitions=topic.partitions or count)
        self._partitions[exchange] = await topology.partitions(self._link, exchange, topic)
        # Before the log: what reaches no queue comes back, and what is in the log alone does not.
        for group in groups:
            await group.bind(self._link)
        retained = topology.retained(topic, self._options.retention)
        await topology.make_log(self._link, exchange, retained)
        if exchange in self._half_made:
            await topology.seal(self._link)
            self._half_made.discard(exchange)

    async def _left_behind(self, topic: TopicSpec) -> list[Group]:
        """The groups of a topic whose exchange is gone, and their bindings with it."""
        exchange = topology.exchange_of(topic)
        known = await self._names.read()
        found: list[Group] = []
        for native in await present(known.groups.get(topic.native, ()), self._require_group):
            group = Group(exchange, topology.escaped(native))
            if (await topology.adopt(self._link, group.queue, group.arguments())).get(
                topology.SINGLE
            ):
                group = await self._with_partitions(group)
            found.append(group)
        log.warning(
            "the exchange %s was not there: its groups, %d, are bound to a new one",
            exchange,
            len(found),
        )
        return found

    async def _with_partitions(self, group: Group) -> Group:
        count = 1
        while await topology.exists(self._link, group.partition(count)):
            count += 1
        return replace(group, partitions=count)

    async def _rejoin_groups(self, topic: TopicSpec) -> None:
        """Bind the groups of a topic whose messages reach no queue: its exchange has been made
        anew by others, without anything behind it."""
        if not topic.create:
            return
        exchange = topology.exchange_of(topic)
        try:
            if not await topology.exchange_exists(self._link, exchange):
                return  # Then it is made, with its groups.
            for group in await self._left_behind(topic):
                await group.bind(self._link)
        except (AMQPError, BrokerError) as error:
            log.debug("binding the groups of %s again: %s", topic.name, error)

    async def _check_log(self, exchange: str) -> None:
        """Raise while the log of a topic is not up: a server that has just started confirms what
        it has put into the groups' queues only, and says nothing of the log.

        An operator's exchange must be there: a publish to one that is not closes the channel, with
        all that others publish on it.
        """
        if log := self._logs.get(exchange):
            await topology.look(self._link, log)
        elif exchange in self._partitions:
            await topology.require_exchange(self._link, exchange)

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

    async def _follow(self, spec: SubscribeSpec, listener: Listener) -> LogSource:
        log = topology.log_of(topology.exchange_of(spec.topic))
        source = LogSource(
            log,
            link=self._link,
            publisher=self._publisher,
            prefetch=spec.prefetch,
            skipped=listener.skipped,
        )
        try:
            await source.start(spec.start, spec.place)
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
            await self._warn_of_limit(group)
            return None
        is_new = not await topology.exists(self._link, group.queue)
        if not is_new:
            await group.claim(self._link)
        else:
            await self._names.add_group(spec.topic.native, spec.native_group)
            if spec.ordered:
                await self._attempts_of(group).begin(group.histories)
        fill = Fill(self._link, self._publisher, group, settle=self._options.settle_time)
        if is_new and spec.start != "latest":
            await fill.order(await self._place(spec, group))
        # The queues after the job: whoever finds the first of them finds the job, or it is done.
        await group.make(self._link, with_history=is_new and spec.start != "latest")
        if await topology.exists(self._link, group.jobs):
            return Filling(fill)
        await group.bind(self._link)
        if is_new:
            await topology.settled(self._link, self._options.settle_time)
        return None

    async def _warn_of_limit(self, group: Group) -> None:
        """Say that RabbitMQ itself drops messages of an operator's queue, if it does."""
        try:
            found = await topology.adopt(self._link, group.queue, group.arguments())
        except ChannelAccessRefused:
            return
        limit = found.get(LIMIT, 20 if self._link.version >= (4, 0) else None)
        if found.get("x-queue-type") == "quorum" and limit is not None and int(limit) < ENDLESS:
            log.warning(
                "the queue %s drops a message, or moves it where its own settings say, once %s "
                "consumers were lost with it: declare it with a higher %s",
                group.queue,
                limit,
                LIMIT,
            )

    async def _place(self, spec: SubscribeSpec, group: Group) -> int:
        """Where in the log a new group begins."""
        if not await topology.exists(self._link, group.log):
            what = f"start={spec.start!r} of a new group"
            raise UnsupportedOperation(_no_log(spec, group.log, what))
        return await self._log(group.exchange).place(spec.start)


def _no_log(spec: SubscribeSpec, log: str, what: str) -> str:
    return (
        f"{what} needs the log of {spec.topic.name!r}, the stream {log!r}: anymq makes and binds "
        "it with the topics it creates; for others, create it and bind it with '#'"
    )
