"""`Declarations`: the topics of a connection, each declared on first use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..driver.base import Driver
from ..driver.specs import TopicSpec
from ..errors import PublishTimeout, TransientError
from ..native_names import NativeNames
from ..tasks import fault
from ..topic import Topic

RETRY_SECONDS = 0.1
"""Seconds between two attempts to declare a topic for a publish."""


class Declarations:
    """Declares each topic once. `names` maps topics to native names, which are never created."""

    def __init__(
        self,
        driver: Driver,
        *,
        names: NativeNames,
        create: bool,
        translate: Callable[[BaseException, str], BaseException],
    ) -> None:
        self._driver = driver
        self._names = names
        self._create = create
        self._translate = translate
        self._specs: dict[str, TopicSpec] = {}
        self.ready: set[str] = set()
        """The names of the topics that have been declared."""
        self._declaring: dict[str, asyncio.Future[None]] = {}

    def learn(self, topic: Topic[Any]) -> None:
        """Remember how to declare `topic`, unless its name is known with more detail."""
        name = topic.name
        plain = (topic.partitions, topic.retention, topic.retention_bytes) == (None,) * 3
        if name in self._specs and plain:
            return
        self._specs[name] = TopicSpec(
            name=name,
            native=self._names.topic(name),
            create=self._create and name not in self._names,
            partitions=topic.partitions,
            retention=topic.retention.total_seconds() if topic.retention else None,
            retention_bytes=topic.retention_bytes,
        )

    def learn_spec(self, spec: TopicSpec) -> None:
        """Remember a topic that applications cannot name."""
        self._specs.setdefault(spec.name, spec)

    def learn_existing(self, name: str) -> None:
        """Remember a topic that is used if it exists, and never created here."""
        self.learn_spec(TopicSpec(name=name, native=self._names.topic(name), create=False))

    def by_native(self, native: str) -> str:
        """Return the topic whose native name is `native`."""
        return self._names.by_native(native)

    def forget(self, name: str) -> None:
        """Declare the topic again on its next use: it has been deleted."""
        self.ready.discard(name)

    def spec(self, name: str) -> TopicSpec:
        """Return the topic as the driver gets it."""
        if name not in self._specs:
            self.learn(Topic(name))
        return self._specs[name]

    async def declare(self, name: str) -> None:
        """Make the topic ready. Callers of one topic share one call, which is never cancelled."""
        if name in self.ready:
            return
        task = self._declaring.get(name)
        if task is None:
            task = asyncio.ensure_future(self._driver.declare(self.spec(name)))
            self._declaring[name] = task
            task.add_done_callback(lambda done: self._on_declared(name, done))
        await asyncio.shield(task)

    def _on_declared(self, name: str, task: asyncio.Future[None]) -> None:
        del self._declaring[name]
        if not task.cancelled() and task.exception() is None:
            self.ready.add(name)

    async def redeclare(self, name: str) -> None:
        """Declare the topic again, because the broker does not know it."""
        self.ready.discard(name)
        try:
            await self.declare(name)
        except BaseException as raw:
            error = self._translate(fault(raw, "the client library"), f"declare {name}")
            raise error from error.__cause__

    async def declare_within(self, name: str, seconds: float) -> float:
        """Declare the topic for a publish, and return the seconds left of its `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        last: BaseException | None = None
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    try:
                        await self.declare(name)
                        break
                    except BaseException as raw:
                        known = fault(raw, "the client library")
                        last = self._translate(known, f"declare {name}")
                        if not isinstance(last, TransientError):
                            raise last from last.__cause__
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            detail = f"; last error: {last}" if last else ""
            raise PublishTimeout(
                f"publish to {name} timed out: the topic could not be declared; "
                f"nothing was sent{detail}"
            ) from last
        return max(deadline - loop.time(), 0.01)
