"""`MemoryDriver`: one broker's use of a `Space`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Self

from anymq.driver import (
    URL,
    Binding,
    Check,
    Clock,
    Closed,
    ConfigurationError,
    Driver,
    GroupInfo,
    LeasedSource,
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
    ordered,
)

from . import admin, checks
from .broadcast import MemoryBroadcast
from .capabilities import CAPABILITIES
from .errors import ERRORS
from .messages import received
from .options import MemoryOptions
from .ordered import MemoryPartitions
from .source import MemorySource
from .space import Space
from .space.group import Group
from .space.log import TopicLog

_PAGE_RECORDS = 500


class MemoryDriver(Driver):
    """The memory backend; see the package for its guarantees."""

    capabilities = CAPABILITIES
    errors = ERRORS
    binding = Binding(native_key=True)
    options = MemoryOptions

    def __init__(self, space: Space, clock: Clock) -> None:
        self.clock = clock
        self._space = space
        self._natives: dict[str, str] = {}
        self._closed = False

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        name = url.hosts[0][0] if url.hosts else ""
        return cls(Space.join(name + url.path.rstrip("/")), clock)

    @property
    def native(self) -> Space:
        """The shared state, for tests to inspect."""
        return self._space

    async def ping(self) -> None:
        self._check_open()

    async def declare(self, topic: TopicSpec) -> None:
        self._check_open()
        self._natives[topic.name] = topic.native
        if topic.create:
            log = self._space.logs.get(topic.native)
            if log is None:
                log = TopicLog(self.clock, topic.partitions or 1)
                self._space.logs[topic.native] = log
            log.configure(topic)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        self._check_open()
        if len({record.topic for record in records}) != 1:
            return [outcome for record in records for outcome in self._append([record])]
        return self._append(records)

    def _append(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Store one or more records, all of one topic."""
        topic = records[0].topic
        log = self._space.logs.get(self._natives.get(topic, topic))
        if log is None:
            return [NotFound(f"the topic {topic} does not exist")] * len(records)
        return log.append(records)

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        self._check_open()
        log = self._log(spec.topic)
        if spec.group is None:
            return MemoryBroadcast(log, spec, listener, self.clock)
        group = log.groups.get(spec.native_group)
        if group is None:
            if not spec.create:
                raise NotFound(f"the group {spec.native_group} does not exist")
            group = _make_group(log, spec)
        if group.ordered is not spec.ordered:
            raise ConfigurationError(
                f"the group {spec.native_group} is {'' if group.ordered else 'not '}ordered"
            )
        if not group.ordered:
            return MemorySource(log, group, spec, clock=self.clock, append=self._append)
        partitions = MemoryPartitions(log, group, self.clock, member=spec.member)
        source = LeasedSource(partitions, spec, listener, self.clock)
        await source.start()
        return source

    def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        self._check_open()
        return checks.checks()

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        log = self._log(topic)
        found = log.after(log.sequence_before(start), len(log.records))
        for index in range(0, len(found), _PAGE_RECORDS):
            yield [received(stored) for stored in found[index : index + _PAGE_RECORDS]]

    async def topics(self) -> Sequence[str]:
        self._check_open()
        return sorted(self._space.logs)

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        return sorted(self._log(topic).groups)

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        return admin.topic_info(topic, self._log(topic))

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        log = self._log(topic)
        group = self._group(log, native_group)
        if not group.ordered:
            return admin.group_info(log, group, self.clock)
        states = await ordered.state(MemoryPartitions(log, group, self.clock), clock=self.clock)
        return admin.ordered_info(topic, log, group, states, self.clock.now())

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        log = self._log(topic)
        group = self._group(log, native_group)
        group.check_idle()
        if group.ordered:
            await ordered.seek(MemoryPartitions(log, group, self.clock), to, clock=self.clock)
        else:
            group.reset(log.cursor_at(to))

    async def delete_topic(self, topic: TopicSpec) -> None:
        self._check_open()
        log = self._space.logs.pop(topic.native, None)
        if log is not None:
            log.delete()

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        self._check_open()
        log = self._space.logs.get(topic.native)
        group = log.groups.get(native_group) if log else None
        if log is not None and group is not None:
            group.check_idle()
            group.delete()
            del log.groups[native_group]

    async def purge(self, topic: TopicSpec) -> None:
        self._log(topic).purge()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._space.leave()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the memory broker is closed")

    def _log(self, topic: TopicSpec) -> TopicLog:
        self._check_open()
        log = self._space.logs.get(topic.native)
        if log is None:
            raise NotFound(f"the topic {topic.name} does not exist")
        return log

    def _group(self, log: TopicLog, native_group: str) -> Group:
        group = log.groups.get(native_group)
        if group is None:
            raise NotFound(f"the group {native_group} does not exist")
        return group


def _make_group(log: TopicLog, spec: SubscribeSpec) -> Group:
    group = Group(spec.native_group, spec.ordered)
    group.reset(log.cursor_at(spec.start))
    log.groups[spec.native_group] = group
    return group
