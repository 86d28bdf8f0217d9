"""`NatsDriver`: one connection to NATS JetStream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from anymq.driver import (
    URL,
    Binding,
    Clock,
    ConfigurationError,
    Driver,
    Duplicate,
    GroupInfo,
    LeasedSource,
    Listener,
    Outcome,
    Reader,
    Received,
    Record,
    Start,
    SubscribeSpec,
    TopicInfo,
    TopicSpec,
    UnsupportedOperation,
)

from . import operate
from .admin import describe_group, describe_topic
from .broadcast import BroadcastSource
from .browse import browse
from .capabilities import CAPABILITIES
from .client.internals import CLIENT_PARTS
from .connect import Target
from .connection import Link
from .errors import ERRORS
from .gaps import tell_gap
from .groups import make_consumer, make_marker
from .jetstream.log import StreamReader
from .jetstream.presence import Presence
from .jetstream.schema import check_subject
from .listing import consumers, group_name, topic_names
from .options import NatsOptions
from .ordered import StreamLog
from .positions import first_sequence
from .publisher import Publisher
from .routes import Routes
from .source import GroupSource
from .starts import Starts
from .topology import Stream, find_stream, make_cells, make_stream

_LEAST = (2, 10)


class NatsDriver(Driver):
    """Topics are streams, groups are durable pull consumers."""

    capabilities = CAPABILITIES
    errors = ERRORS
    # https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
    binding: ClassVar[Binding] = Binding(
        prefix="ce-", content_type="ce-datacontenttype", percent=True
    )
    options = NatsOptions
    max_batch = 1000
    overlap = 4
    max_batch_bytes = 4 * 1024 * 1024
    tls_schemes = frozenset({"tls"})
    client_parts = CLIENT_PARTS
    client_loggers = ("nats",)

    def __init__(
        self, link: Link, publisher: Publisher, options: NatsOptions, clock: Clock
    ) -> None:
        self.clock = clock
        self._link = link
        self._publisher = publisher
        self._options = options
        self._routes = Routes(link)
        self._closed = False

    @classmethod
    async def open(cls, url: URL, options: NatsOptions, *, timeout: float, clock: Clock) -> Self:
        link = Link(Target.of(url, options), timeout=options.request_timeout, domain=options.domain)
        await link.open(timeout)
        publisher = Publisher(link)
        try:
            await _check_server(link, options)
            await publisher.open()
        except BaseException:
            await link.aclose()
            raise
        return cls(link, publisher, options, clock)

    @property
    def native(self) -> Client:
        return self._link.client

    async def ping(self) -> None:
        await self._link.flush()

    async def declare(self, topic: TopicSpec) -> None:
        check_subject(topic.native)
        stream = await make_stream(self._link, topic, self._options) if topic.create else None
        self._routes.learn(topic, stream)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        outgoing = self._routes.outgoing
        later = any([record.deliver_at is not None for record in records])
        refused = await self._prepare(records)
        if not later and not refused:
            return await self._publisher.send([outgoing(record) for record in records])
        outcomes: list[Outcome] = [None] * len(records)
        known: list[int] = []
        for at, record in enumerate(records):
            if (error := refused.get((record.topic, record.deliver_at is not None))) is not None:
                outcomes[at] = error
            else:
                known.append(at)
        sent = await self._publisher.send([outgoing(records[at]) for at in known])
        for at, outcome in zip(known, sent, strict=True):
            if records[at].deliver_at is not None and isinstance(outcome, str):
                outcome = Duplicate() if isinstance(outcome, Duplicate) else None
            outcomes[at] = outcome
        return outcomes

    async def _prepare(self, records: Sequence[Record]) -> dict[tuple[str, bool], Exception]:
        """Return what keeps records out, by topic and whether they are for later."""
        refused: dict[tuple[str, bool], Exception] = {}
        for topic, later in {(record.topic, record.deliver_at is not None) for record in records}:
            try:
                await self._routes.prepare(topic, later=later)
            except Exception as error:
                refused[topic, later] = error
        return refused

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        stream = await self._stream(spec.topic)
        if spec.group is None:
            first = await first_sequence(self._link, stream.name, spec.start)
            reader = StreamReader(
                self._link,
                stream.name,
                stream.patterns,
                last=first - 1,
                place=spec.place,
                skipped=listener.skipped,
            )
            try:
                await reader.open()
            except BaseException:
                reader.close()
                raise
            return BroadcastSource(reader)
        if spec.ordered:
            return await self._ordered(stream, spec, listener)
        consumer = await make_consumer(self._link, stream, spec)
        starts = None
        if spec.create and consumer.private is not None:
            make = partial(make_cells, self._link, stream, self._options)
            starts = Starts(self._link, self._publisher, consumer, make)
        source = GroupSource(
            self._link,
            self._publisher,
            consumer,
            member=spec.member,
            prefetch_bytes=spec.prefetch_bytes,
            starts=starts,
        )
        await tell_gap(self._link, consumer)
        await source.open()
        return source

    async def _ordered(
        self, stream: Stream, spec: SubscribeSpec, listener: Listener
    ) -> LeasedSource:
        marker = await make_marker(self._link, stream, spec)
        if spec.create:
            await make_cells(self._link, stream, self._options)
        presence = Presence(self._link, stream.name, marker.name, spec.member)
        await presence.open()
        log = StreamLog(self._link, self._publisher, marker, presence)
        # Where the group began is written in its marker, whoever makes the cells.
        source = LeasedSource(
            log, replace(spec, start=str(marker.first), create=True), listener, self.clock
        )
        await source.start()
        return source

    def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        return self._browse(topic, start)

    async def _browse(self, topic: TopicSpec, start: Start) -> AsyncIterator[Sequence[Received]]:
        stream = await self._existing(topic)
        async with aclosing(browse(self._link, stream, start)) as batches:
            async for batch in batches:
                yield batch

    async def topics(self) -> Sequence[str]:
        return await topic_names(self._link)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        found = await consumers(self._link, await self._existing(topic))
        return [group_name(info["config"]) for info in found]

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        return await describe_topic(self._link, topic)

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        stream = await self._existing(topic)
        return await describe_group(self._link, self._publisher, stream, topic, native_group)

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        await operate.seek(self._link, await self._existing(topic), native_group, to)

    async def delete_topic(self, topic: TopicSpec) -> None:
        try:
            stream = await self._existing(topic)
        except nats.js.errors.NotFoundError:
            return
        await operate.delete_topic(self._link, stream)

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        try:
            stream = await self._existing(topic)
        except nats.js.errors.NotFoundError:
            return
        await operate.delete_group(self._link, stream, native_group)

    async def purge(self, topic: TopicSpec) -> None:
        await operate.purge_topic(self._link, await self._existing(topic))

    async def _existing(self, topic: TopicSpec) -> Stream:
        return await find_stream(self._link, replace(topic, partitions=None))

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._publisher.close()
        await self._link.aclose()

    async def _stream(self, topic: TopicSpec) -> Stream:
        if topic.create:
            return await make_stream(self._link, topic, self._options)
        return await find_stream(self._link, topic)


async def _check_server(link: Link, options: NatsOptions) -> None:
    """Refuse a server without JetStream now, with words, rather than at the first publish."""
    version: Any = link.client.connected_server_version
    if (version.major, version.minor) < _LEAST:
        raise UnsupportedOperation(f"{version!r}: nats-server 2.10 or newer is needed")
    if link.client.info.get("jetstream") or options.domain:
        return
    try:
        await link.api("INFO")  # in a cluster another server may have it
    except nats.errors.NoRespondersError as error:
        raise ConfigurationError(
            "JetStream is not enabled on this server: start it with --jetstream"
        ) from error
