"""`Admin`: look at topics and groups, and operate them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

from ..driver.base import Driver
from ..driver.clock import Clock
from ..driver.info import GroupInfo, TopicInfo
from ..driver.specs import Start, TopicSpec
from ..errors import ConnectionLost, UnsupportedOperation
from ..message import Message
from ..names import check_group, is_topic
from ..publishing.declarations import Topics
from ..publishing.publisher import Publisher
from ..tasks import fault
from ..topic import Topic, as_topic
from ..wire.cloudevents import decode
from .dead_letters import DeadLetters, settled_spec

T = TypeVar("T")

PATIENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message as its topic holds it."""

    position: str
    partition: int
    message: Message


class Admin:
    """What `Broker.admin` is. All of it works beside running subscriptions, unless it says not.

    Every method raises `NotFound` for a topic or group that does not exist, `UnsupportedOperation`
    with the reason where the backend cannot do it, and what the broker says otherwise. None
    of them hangs: they fail with `ConnectionLost` after a minute without an answer.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        topics: Topics,
        publisher: Publisher,
        group_name: Callable[[str, str], str],
        check_start: Callable[[Start], None],
        translate: Callable[[BaseException, str], BaseException],
        clock: Clock,
        timeout: float,
    ) -> None:
        self._driver = driver
        self._topics = topics
        self._publisher = publisher
        self._group_name = group_name
        self._check_start = check_start
        self._translate = translate
        self._clock = clock
        self._timeout = timeout

    async def topics(self) -> list[str]:
        """Return the names of all topics on the broker, sorted; dead-letter topics are among them.

        Also those that others made, where the broker can list them and their names are topic names;
        `connect(names=…)` gives a name to one of another form.
        """
        natives = await self._call(self._driver.topics(), "listing topics")
        return sorted(filter(is_topic, map(self._topics.by_native, natives)))

    async def groups(self, topic: str | Topic[Any]) -> list[str]:
        """Return the names of the topic's groups, sorted."""
        spec = self._spec(topic)
        natives = await self._call(self._driver.groups(spec), f"listing the groups of {spec.name}")
        prefix = f"{spec.name}."
        return sorted(name.removeprefix(prefix) for name in natives)

    @overload
    async def describe(self, topic: str | Topic[Any]) -> TopicInfo: ...

    @overload
    async def describe(self, topic: str | Topic[Any], group: str) -> GroupInfo: ...

    async def describe(
        self, topic: str | Topic[Any], group: str | None = None
    ) -> TopicInfo | GroupInfo:
        """Return what the broker knows of a topic, or of one of its groups.

        The fields are the same on every backend; None means that this one cannot know.
        """
        spec = self._spec(topic)
        if group is None:
            known = await self._call(self._driver.describe_topic(spec), f"describing {spec.name}")
            return replace(known, name=spec.name)
        found = await self._call(
            self._driver.describe_group(spec, self._group_name(spec.name, check_group(group))),
            f"describing the group {group} of {spec.name}",
        )
        return replace(found, topic=spec.name, group=group)

    async def declare(self, topic: str | Topic[Any]) -> None:
        """Make the topic, unless it exists; publishing and subscribing do so by themselves."""
        target = as_topic(topic)
        self._topics.learn(target)
        await self._call(self._topics.redeclare(target.name), f"declaring {target.name}")

    async def delete(self, topic: str | Topic[Any], group: str | None = None) -> None:
        """Delete a topic with its groups and messages, or one group; nothing happens if absent.

        A topic's dead letters are topics of their own and stay. Raises `StateError` for a group
        with live members.
        """
        spec = self._spec(topic)
        if group is not None:
            native = self._group_name(spec.name, check_group(group))
            work = self._driver.delete_group(spec, native)
            return await self._call(work, f"deleting the group {group} of {spec.name}")
        for each in (spec, settled_spec(spec)):
            await self._call(self._driver.delete_topic(each), f"deleting {each.name}")
        self._topics.forget(spec.name)

    async def purge(self, topic: str | Topic[Any]) -> None:
        """Delete the topic's messages for every group, the delayed and the waiting ones too."""
        spec = self._spec(topic)
        await self._call(self._driver.purge(spec), f"purging {spec.name}")
        await self._call(self._driver.delete_topic(settled_spec(spec)), f"purging {spec.name}")

    async def seek(self, topic: str | Topic[Any], group: str, *, to: Start) -> None:
        """Let `group` begin anew at `to`: `earliest`, `latest`, a datetime, or a position.

        What was in flight or waiting for a retry is forgotten; what `to` and the topic's log say is
        delivered again, as first attempts. Raises `StateError` while the group has live members:
        stop them first.
        """
        spec = self._spec(topic)
        self._check_start(to)
        native = self._group_name(spec.name, check_group(group))
        await self._call(
            self._driver.seek(spec, native, to), f"seeking the group {group} of {spec.name}"
        )

    async def browse(
        self, topic: str | Topic[Any], *, start: Start = "earliest"
    ) -> AsyncIterator[Stored]:
        """Yield what the topic holds from `start` to its end as of now, and settle nothing.

        Messages of one partition come in order. What is delayed and not due is not there yet.
        """
        if start not in ("earliest", "latest"):
            self._check_start(start)
        async for stored in self._browse(self._spec(topic), start):
            yield stored

    async def browse_settled(self, stored_in: str) -> AsyncIterator[Stored]:
        """For `DeadLetters`: what has been noted of the letters in the topic `stored_in`."""
        async for stored in self._browse(settled_spec(self._spec(stored_in)), "earliest"):
            yield stored

    async def declare_settled(self, stored_in: str) -> None:
        """For `DeadLetters`: make that log of notes."""
        spec = settled_spec(self._spec(stored_in))
        self._topics.learn_spec(spec)
        await self._call(self._topics.declare(spec.name), f"declaring {spec.name}")

    async def _browse(self, spec: TopicSpec, start: Start) -> AsyncIterator[Stored]:
        batches = self._driver.browse(spec, start)
        try:
            while True:
                records = await self._call(anext(batches, None), f"browsing {spec.name}")
                if records is None:
                    return
                for received in records:
                    message = decode(received, self._driver.binding, spec.name)
                    yield Stored(
                        position=received.position, partition=received.partition, message=message
                    )
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await self._call(close(), f"browsing {spec.name}")

    def dead_letters(
        self, topic: str | Topic[Any], group: str | None, *, stored_in: str | None = None
    ) -> DeadLetters:
        """Return the dead letters of `group` (None: of broadcast) on `topic`.

        `stored_in` is the topic they are in where `DeadLetter(topic=…)` chose one.
        """
        target = as_topic(topic)
        return DeadLetters(
            self,
            topic=target.name,
            group=group if group is None else check_group(group),
            stored_in=stored_in,
            publisher=self._publisher,
            topics=self._topics,
            binding=self._driver.binding,
            clock=self._clock,
            timeout=self._timeout,
        )

    def _spec(self, topic: str | Topic[Any]) -> TopicSpec:
        target = as_topic(topic)
        self._topics.learn(target)
        return self._topics.spec(target.name)

    async def _call(self, work: Awaitable[T], doing: str) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                return await work
        except TimeoutError as late:
            raise ConnectionLost(f"{doing} did not end in time") from late
        except UnsupportedOperation:
            raise
        except BaseException as raw:
            error = self._translate(fault(raw, "the client library"), doing)
            if error is raw:
                raise
            raise error from raw
