"""Which subject a record goes to: of which partition, now or later."""

from __future__ import annotations

from time import time

import nats.js.errors

from anymq.driver import Record, TopicSpec, UnsupportedOperation, partition_of

from .connection import Link
from .delays import compare_clocks, scheduled
from .errors import NotPermitted
from .jetstream.schema import EVERYONE, partition_subject
from .outgoing import Outgoing
from .topology import Stream, find_stream


class _Route:
    """A topic as a publisher sees it. `stream` is None while it has not been looked for."""

    __slots__ = ("_next", "_subjects", "spec", "stream")

    def __init__(self, spec: TopicSpec, stream: Stream | None) -> None:
        self.spec = spec
        self.stream = stream
        count = stream.partitions if stream else spec.partitions or 1
        self._subjects = [partition_subject(spec.native, count, n) for n in range(count)]
        self._next = 0

    def subject(self, key: str | None) -> str:
        """Return the subject for a key; without one the partitions take turns."""
        if len(self._subjects) == 1:
            return self._subjects[0]
        if key is not None:
            return self._subjects[partition_of(key, len(self._subjects))]
        self._next = (self._next + 1) % len(self._subjects)
        return self._subjects[self._next]


class Routes:
    """The topics that have been declared."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._routes: dict[str, _Route] = {}

    def learn(self, spec: TopicSpec, stream: Stream | None) -> None:
        """Remember where records of `spec.name` go; without `stream` it is looked for later."""
        self._routes[spec.name] = _Route(spec, stream)

    async def prepare(self, topic: str, *, later: bool) -> None:
        """Find out what `outgoing` needs to know; raises what keeps records of `topic` out.

        While there is no stream, and for a user who may not ask, the topic has the partitions that
        its spec says.
        """
        route = self._routes.get(topic)
        if route is None:
            raise nats.js.errors.NoStreamResponseError
        if route.stream is None:
            try:
                self.learn(route.spec, await find_stream(self._link, route.spec))
            except (nats.js.errors.NotFoundError, NotPermitted):
                if later:
                    raise
        if later:
            await self._can_wait(self._routes[topic].stream)

    async def _can_wait(self, stream: Stream | None) -> None:
        if stream is None or not stream.schedules:
            raise UnsupportedOperation(
                "the stream of the topic does not schedule messages: that takes nats-server 2.12 "
                "and a stream made by anymq, or one like it"
            )
        await compare_clocks(self._link, stream)

    def outgoing(self, record: Record) -> Outgoing:
        """Return what to send for `record`, whose topic has been prepared."""
        route = self._routes[record.topic]
        target = route.subject(record.key)
        due = record.deliver_at
        if due is None or due <= time() or route.stream is None:
            return Outgoing(
                target,
                record.unique,
                record.body,
                record.own,
                record.common,
                original=record.original,
            )
        return scheduled(self._link, route.stream, record, due, owner=EVERYONE, target=target)
