"""Publishing: `Publisher` sends batches and collects confirmations, `Routes` finds the subjects."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from time import time

import nats.errors
import nats.js.errors

from anymq.driver import Duplicate, Outcome, Record, TopicSpec, UnsupportedOperation, partition_of

from .client.protocol import status
from .client.transport import RawClient
from .connection import Connection, Subscription, Watcher
from .delays import compare_clocks, scheduled
from .errors import NoPubAck, NotPermitted, NotServed, TooLarge, api_error
from .jetstream.schema import EVERYONE, partition_subject
from .messages import Publication, encode_headers
from .topology import Stream, find_stream

_SEQUENCE = re.compile(rb'"seq":\s*(\d+)')
_WRITE_BYTES = 64 * 1024
"""Bytes of one write: the server begins to read while the rest is encoded."""
_MAX_COMMANDS = 512
"""Subjects whose command is cached."""
HEADER_RESERVE_BYTES = 16 * 1024
"""Bytes below the server's `max_payload` that a publish leaves free for the headers that a retry or
a dead letter adds."""


class _Batch:
    """Messages of one call, numbered from `first`, and their outcomes."""

    __slots__ = ("answered", "done", "failed", "first", "messages", "missing", "outcomes")

    def __init__(self, messages: Sequence[Publication], first: int) -> None:
        self.messages = messages
        self.first = first
        self.missing = len(messages)
        self.outcomes: list[Outcome] = [None] * self.missing
        self.answered = bytearray(self.missing)
        self.failed = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, at: int, outcome: str | BaseException) -> None:
        if self.answered[at]:
            return
        self.answered[at] = True
        self.outcomes[at] = outcome
        if not isinstance(outcome, str):
            self.failed = True
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        for at in range(len(self.answered)):
            self.settle(at, error)


class Publisher(Watcher):
    """Publishes messages to streams; the confirmations arrive on an inbox of its own.

    One future serves all confirmations of a call.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reply = ""
        self._prefix_length = 0
        self._count = 0
        self._commands: dict[str, bytes] = {}
        self._batches: list[_Batch] = []
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Subscribe to the inbox."""
        inbox = self._connection.client.new_inbox()
        self._reply = f"{inbox}."
        self._prefix_length = len(self._reply.encode())
        self._subscription = await self._connection.subscribe(f"{inbox}.*", self._confirmed)
        self._connection.watch(self)

    async def send(self, messages: Sequence[Publication]) -> list[Outcome]:
        """Publish `messages`; return for each its stream sequence, or the error that kept it out.

        Ends within the connection's timeout. Raises if nothing could be sent.
        """
        if not messages:
            return []
        client = await self._connection.ready(self._connection.timeout)
        batch = _Batch(messages, self._count)
        self._count += len(messages)
        self._batches.append(batch)
        loop = asyncio.get_running_loop()
        late = loop.call_later(self._connection.timeout, batch.fail, NoPubAck())
        try:
            self._write(client, batch)
            await batch.done
        finally:
            late.cancel()
            self._batches.remove(batch)
        if batch.failed:
            await self._explain(batch)
        return batch.outcomes

    def _write(self, client: RawClient, batch: _Batch) -> None:
        limit, number, size = client.max_payload, batch.first, 0
        soft_limit = limit - min(HEADER_RESERVE_BYTES, limit // 8)
        commands = self._commands
        chunks: list[bytes] = []
        for at, message in enumerate(batch.messages):
            body = message.body
            try:
                block = encode_headers(message)
            except nats.errors.BadHeaderError as error:
                batch.settle(at, error)
                continue
            head = len(block)
            total = head + len(body)
            if total > soft_limit and (total > limit or not message.is_copy):
                batch.settle(at, TooLarge(total, limit, limit - soft_limit))
                continue
            command = commands.get(message.subject) or self._command(message.subject)
            chunks.append(
                b"%b%d %d %d\r\n%b%b\r\n" % (command, number + at, head, total, block, body)
            )
            size += total
            if size > _WRITE_BYTES:
                client.write(b"".join(chunks))
                chunks.clear()
                size = 0
        client.write(b"".join(chunks))

    def _command(self, subject: str) -> bytes:
        """Return the command that publishes to `subject`, up to the number of the message."""
        if len(self._commands) >= _MAX_COMMANDS:
            self._commands.clear()
        command = self._commands[subject] = f"HPUB {subject} {self._reply}".encode()
        return command

    async def _explain(self, batch: _Batch) -> None:
        """Distinguish a missing stream from one without a leader: the server answers neither."""
        unserved: dict[str, list[int]] = {}
        for at, outcome in enumerate(batch.outcomes):
            if isinstance(outcome, nats.js.errors.NoStreamResponseError):
                unserved.setdefault(batch.messages[at].subject, []).append(at)
        for subject, indexes in unserved.items():
            try:
                found = await self._connection.api("STREAM.NAMES", {"subject": subject})
                reason: Exception | None = NotServed(subject) if found.get("streams") else None
            except (nats.errors.Error, OSError) as error:
                reason = error
            if reason is not None:
                for at in indexes:
                    batch.outcomes[at] = reason

    def _confirmed(self, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        number = int(subject[self._prefix_length :])
        for batch in self._batches:
            at = number - batch.first
            if 0 <= at < len(batch.messages):
                batch.settle(at, _outcome(data, block))
                return

    def lost(self, error: Exception) -> None:
        # The confirmations were sent to the lost connection.
        for batch in self._batches:
            batch.fail(error)

    def denied(self, subject: str, error: Exception) -> None:
        for batch in self._batches:
            for at, message in enumerate(batch.messages):
                if message.subject.lower() == subject:
                    batch.settle(at, error)

    def close(self) -> None:
        """Fail all calls that wait for confirmations."""
        self._connection.unwatch(self)
        self.lost(nats.errors.ConnectionClosedError())


def _outcome(data: bytes, block: bytes | None) -> str | BaseException:
    if b'"error"' not in data and (found := _SEQUENCE.search(data)):
        position = found[1].decode()
        return Duplicate(position) if b'"duplicate"' in data else position
    if code := status(block):
        return _status_error(*code)
    try:
        return api_error(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return nats.errors.ProtocolError()


def _status_error(code: int, description: str) -> BaseException:
    if code == 503:
        return nats.js.errors.NoStreamResponseError()
    return nats.js.errors.APIError(code=code, description=description)


class _Route:
    """The subjects of one topic. `stream` is None until it is known."""

    __slots__ = ("_next", "_subjects", "spec", "stream")

    def __init__(self, spec: TopicSpec, stream: Stream | None) -> None:
        self.spec = spec
        self.stream = stream
        count = stream.partitions if stream else spec.partitions or 1
        self._subjects = [partition_subject(spec.native, count, n) for n in range(count)]
        self._next = 0

    def subject(self, key: str | None) -> str:
        """Return the subject for a key; without a key, the next partition's."""
        if len(self._subjects) == 1:
            return self._subjects[0]
        if key is not None:
            return self._subjects[partition_of(key, len(self._subjects))]
        self._next = (self._next + 1) % len(self._subjects)
        return self._subjects[self._next]


class Routes:
    """The declared topics, and the publications that their records become."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._routes: dict[str, _Route] = {}

    def add(self, spec: TopicSpec, stream: Stream | None) -> None:
        """Remember the topic; without `stream`, it is looked up before the first record."""
        self._routes[spec.name] = _Route(spec, stream)

    async def prepare(self, topic: str, *, later: bool) -> None:
        """Look up what `publication` needs; raises the error that keeps records of `topic` out.

        If there is no stream, or the user may not ask for it, the topic has the partitions of its
        spec.
        """
        route = self._routes.get(topic)
        if route is None:
            raise nats.js.errors.NoStreamResponseError
        if route.stream is None:
            try:
                self.add(route.spec, await find_stream(self._connection, route.spec))
            except (nats.js.errors.NotFoundError, NotPermitted):
                if later:
                    raise
        if later:
            await self._check_schedules(self._routes[topic].stream)

    async def _check_schedules(self, stream: Stream | None) -> None:
        if stream is None or not stream.schedules:
            raise UnsupportedOperation(
                "the stream of the topic does not schedule messages: that takes nats-server 2.12 "
                "and a stream made by anymq, or one like it"
            )
        await compare_clocks(self._connection, stream)

    def publication(self, record: Record) -> Publication:
        """Return the message to send for `record`, whose topic has been prepared."""
        route = self._routes[record.topic]
        target = route.subject(record.key)
        due = record.deliver_at
        if due is None or due <= time() or route.stream is None:
            return Publication(
                target,
                record.unique,
                record.body,
                record.own,
                record.common,
                original=record.original,
            )
        return scheduled(self._connection, route.stream, record, due, owner=EVERYONE, target=target)
