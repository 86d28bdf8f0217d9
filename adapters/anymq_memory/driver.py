"""The memory driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from anymq.driver import (
    URL,
    Binding,
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

from . import admin
from .capabilities import CAPABILITIES
from .errors import ERRORS
from .options import MemoryOptions
from .ordered import MemoryLog
from .source import BroadcastSource, GroupSource, received
from .space import Space
from .space.group import Group
from .space.log import Log

_PAGE = 500


class MemoryDriver(Driver):
    """One broker's use of a `Space`."""

    capabilities = CAPABILITIES
    errors = ERRORS
    binding = Binding(native_key=True)
    options = MemoryOptions

    def __init__(self, space: Space, clock: Clock) -> None:
        self.clock = clock
        self._space = space
        self._names: dict[str, str] = {}
        self._closed = False

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        name = url.hosts[0][0] if url.hosts else ""
        return cls(Space.join(name + url.path.rstrip("/")), clock)

    @property
    def native(self) -> Space:
        """The shared state; for looking at it in tests."""
        return self._space

    async def ping(self) -> None:
        self._check_open()

    async def declare(self, topic: TopicSpec) -> None:
        self._check_open()
        self._names[topic.name] = topic.native
        if topic.create:
            log = self._space.logs.get(topic.native)
            if log is None:
                log = self._space.logs[topic.native] = Log(self.clock, topic.partitions or 1)
            log.settings(topic)

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        self._check_open()
        if len({record.topic for record in records}) != 1:
            return [outcome for record in records for outcome in self.append([record])]
        return self.append(records)

    def append(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Store records of one topic, at least one."""
        topic = records[0].topic
        log = self._space.logs.get(self._names.get(topic, topic))
        if log is None:
            return [NotFound(f"the topic {topic} does not exist")] * len(records)
        return log.extend(records)

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        self._check_open()
        log = self._log(spec.topic)
        if spec.group is None:
            return BroadcastSource(self, log, spec, listener)
        group = log.groups.get(spec.native_group)
        if group is None:
            if not spec.create:
                raise NotFound(f"the group {spec.native_group} does not exist")
            group = _begin(log, spec)
        if group.ordered is not spec.ordered:
            raise ConfigurationError(
                f"the group {spec.native_group} is {'' if group.ordered else 'not '}ordered"
            )
        if not group.ordered:
            return GroupSource(self, log, group, spec)
        source = LeasedSource(
            MemoryLog(log, group, self.clock, member=spec.member), spec, listener, self.clock
        )
        await source.start()
        return source

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        log = self._log(topic)
        found = log.after(log.behind(start), len(log.records))
        for place in range(0, len(found), _PAGE):
            yield [received(stored) for stored in found[place : place + _PAGE]]

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
            return admin.group_info(topic, log, group, self.clock)
        states = await ordered.state(MemoryLog(log, group, self.clock), clock=self.clock)
        return admin.ordered_info(topic, log, group, states, self.clock.now())

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        log = self._log(topic)
        group = self._group(log, native_group)
        group.check_idle()
        if group.ordered:
            await ordered.seek(MemoryLog(log, group, self.clock), to, clock=self.clock)
        else:
            group.begin(log.behind(to), log.first)

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

    def _log(self, topic: TopicSpec) -> Log:
        self._check_open()
        log = self._space.logs.get(topic.native)
        if log is None:
            raise NotFound(f"the topic {topic.name} does not exist")
        return log

    def _group(self, log: Log, native_group: str) -> Group:
        group = log.groups.get(native_group)
        if group is None:
            raise NotFound(f"the group {native_group} does not exist")
        return group


def _begin(log: Log, spec: SubscribeSpec) -> Group:
    group = Group(spec.native_group, spec.ordered)
    group.begin(log.behind(spec.start), log.first)
    log.groups[spec.native_group] = group
    return group
