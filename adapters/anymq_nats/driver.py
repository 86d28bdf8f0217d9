"""`NatsDriver`: one connection to NATS JetStream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from anymq.driver import (
    URL,
    Binding,
    Check,
    Clock,
    ConfigurationError,
    Driver,
    Duplicate,
    Endpoint,
    GroupInfo,
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

from . import admin, checks
from .admin import browse
from .broadcast import open_broadcast
from .capabilities import CAPABILITIES
from .client.compat import PUBLIC_PARTS
from .connection import Connection, Target, endpoints
from .errors import ERRORS
from .jetstream.schema import check_subject
from .options import NatsOptions
from .ordered import open_ordered
from .publisher import Publisher, Routes
from .source import open_group
from .topology import Stream, find_stream, make_stream

_MIN_SERVER = (2, 10)


class NatsDriver(Driver):
    """The driver for NATS JetStream: topics are streams, groups are durable pull consumers."""

    capabilities = CAPABILITIES
    errors = ERRORS
    # https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
    binding: ClassVar[Binding] = Binding(
        prefix="ce-", content_type="ce-datacontenttype", percent=True
    )
    options = NatsOptions
    name_option = "name"
    max_batch = 1000
    overlap = 4
    max_batch_bytes = 4 * 1024 * 1024
    tls_schemes = frozenset({"tls"})
    # Without the private parts the driver works as well, so `open` checks those itself.
    client_parts = PUBLIC_PARTS
    client_loggers = ("nats",)
    grants = checks.GRANTS

    def __init__(
        self, connection: Connection, publisher: Publisher, options: NatsOptions, clock: Clock
    ) -> None:
        self.clock = clock
        self._connection = connection
        self._publisher = publisher
        self._options = options
        self._routes = Routes(connection)
        self._closed = False

    @classmethod
    async def open(cls, url: URL, options: NatsOptions, *, timeout: float, clock: Clock) -> Self:
        connection = Connection(
            Target.of(url, options), timeout=options.request_timeout, domain=options.domain
        )
        await connection.open(timeout)
        publisher = Publisher(connection)
        try:
            await _check_server(connection, options)
            await publisher.open()
        except BaseException:
            await connection.aclose()
            raise
        return cls(connection, publisher, options, clock)

    @property
    def native(self) -> Client:
        return self._connection.client

    async def ping(self) -> None:
        await self._connection.flush()

    async def declare(self, topic: TopicSpec) -> None:
        check_subject(topic.native)
        stream = await make_stream(self._connection, topic, self._options) if topic.create else None
        self._routes.add(topic, stream)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        publication = self._routes.publication
        later = any([record.deliver_at is not None for record in records])
        refused = await self._prepare(records)
        if not later and not refused:
            return await self._publisher.send([publication(record) for record in records])
        outcomes: list[Outcome] = [None] * len(records)
        accepted: list[int] = []
        for at, record in enumerate(records):
            if (error := refused.get((record.topic, record.deliver_at is not None))) is not None:
                outcomes[at] = error
            else:
                accepted.append(at)
        sent = await self._publisher.send([publication(records[at]) for at in accepted])
        for at, outcome in zip(accepted, sent, strict=True):
            if records[at].deliver_at is not None and isinstance(outcome, str):
                outcome = Duplicate() if isinstance(outcome, Duplicate) else None
            outcomes[at] = outcome
        return outcomes

    async def _prepare(self, records: Sequence[Record]) -> dict[tuple[str, bool], Exception]:
        """Return the errors that keep records out, by topic and whether the record is delayed."""
        refused: dict[tuple[str, bool], Exception] = {}
        for topic, later in {(record.topic, record.deliver_at is not None) for record in records}:
            try:
                await self._routes.prepare(topic, later=later)
            except Exception as error:
                refused[topic, later] = error
        return refused

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        connection, publisher, options = self._connection, self._publisher, self._options
        if spec.topic.create:
            stream = await make_stream(connection, spec.topic, options)
        else:
            stream = await find_stream(connection, spec.topic)
        if spec.group is None:
            return await open_broadcast(connection, stream, spec, listener)
        if not spec.ordered:
            return await open_group(connection, publisher, stream, spec, options)
        return await open_ordered(
            connection,
            publisher,
            stream,
            spec,
            options=options,
            listener=listener,
            clock=self.clock,
        )

    @classmethod
    def endpoints(cls, url: URL, options: NatsOptions) -> Sequence[Endpoint]:
        return endpoints(url, options)

    def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        return checks.checks(self._connection, self._options, scratch)

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        stream = await self._existing(topic)
        async with aclosing(browse(self._connection, stream, start)) as batches:
            async for batch in batches:
                yield batch

    async def topics(self) -> Sequence[str]:
        return await admin.topic_names(self._connection)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        return await admin.group_names(self._connection, await self._existing(topic))

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        return await admin.describe_topic(self._connection, topic)

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        stream = await self._existing(topic)
        return await admin.describe_group(
            self._connection, self._publisher, stream, topic, native_group
        )

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        await admin.seek(self._connection, await self._existing(topic), native_group, to)

    async def delete_topic(self, topic: TopicSpec) -> None:
        if (stream := await self._find(topic)) is not None:
            await admin.delete_topic(self._connection, stream)

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        if (stream := await self._find(topic)) is not None:
            await admin.delete_group(self._connection, stream, native_group)

    async def purge(self, topic: TopicSpec) -> None:
        await admin.purge_topic(self._connection, await self._existing(topic))

    async def _existing(self, topic: TopicSpec) -> Stream:
        return await find_stream(self._connection, replace(topic, partitions=None))

    async def _find(self, topic: TopicSpec) -> Stream | None:
        try:
            return await self._existing(topic)
        except nats.js.errors.NotFoundError:
            return None

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._publisher.close()
        await self._connection.aclose()


async def _check_server(connection: Connection, options: NatsOptions) -> None:
    """Raise an error that says what the server lacks, before the first publish fails."""
    version: Any = connection.client.connected_server_version
    if (version.major, version.minor) < _MIN_SERVER:
        raise UnsupportedOperation(f"{version!r}: nats-server 2.10 or newer is needed")
    if connection.client.server_info.get("jetstream") or options.domain:
        return
    try:
        await connection.api("INFO")  # in a cluster another server may have it
    except nats.errors.NoRespondersError as error:
        raise ConfigurationError(
            "JetStream is not enabled on this server: start it with --jetstream"
        ) from error
