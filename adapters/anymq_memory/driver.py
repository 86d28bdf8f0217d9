"""The memory driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from anymq.driver import Binding, Driver, Outcome, Record, Source, SubscribeSpec, TopicSpec
from anymq.errors import Closed, NotFound
from anymq.url import URL

from .capabilities import CAPABILITIES
from .errors import ERRORS
from .options import MemoryOptions
from .source import BroadcastSource, GroupSource
from .space import Group, Log, Space


class MemoryDriver(Driver):
    """One broker's use of a `Space`."""

    capabilities = CAPABILITIES
    errors = ERRORS
    binding = Binding(native_key=True)
    options = MemoryOptions

    def __init__(self, space: Space) -> None:
        self._space = space
        self._names: dict[str, str] = {}
        self._closed = False

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float) -> Self:
        name = url.hosts[0][0] if url.hosts else ""
        return cls(Space.join(name + url.path.rstrip("/")))

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
            self._space.logs.setdefault(topic.native, Log())

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        self._check_open()
        return [self.append(record) for record in records]

    def append(self, record: Record) -> Outcome:
        """Store one record; also what `reject` uses for its letters."""
        log = self._space.logs.get(self._names.get(record.topic, record.topic))
        if log is None:
            return NotFound(f"the topic {record.topic} does not exist")
        return str(log.append(record, self.clock.now()))

    async def subscribe(self, spec: SubscribeSpec) -> Source:
        self._check_open()
        log = self._space.logs.get(spec.topic.native)
        if log is None:
            raise NotFound(f"the topic {spec.topic.name} does not exist")
        start = 0 if spec.start == "earliest" else len(log.records)
        if spec.group is None:
            return BroadcastSource(self, log, start)
        group = log.groups.get(spec.native_group)
        if group is None:
            if not spec.create:
                raise NotFound(f"the group {spec.native_group} does not exist")
            group = log.groups[spec.native_group] = Group(start)
        return GroupSource(self, log, group, spec)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._space.leave()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the memory broker is closed")
