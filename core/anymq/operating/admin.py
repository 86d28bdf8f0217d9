"""`Admin`: statistics of topics and groups, and their administration."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar, overload

from ..driver.base import Driver
from ..driver.clock import Clock
from ..driver.info import GroupInfo, TopicInfo, worst
from ..driver.specs import Start
from ..names import check_group, is_group, is_topic
from ..publishing.declarations import Declarations
from ..publishing.publisher import Publisher
from ..topic import Topic, as_topic, dead_letter_origin
from .dead_letters import DeadLetters
from .letter import origin_of
from .settlement_log import settlement_log_spec
from .topic_access import Stored, TopicAccess

T = TypeVar("T")


class Admin:
    """The administration of topics and groups: `Broker.admin`.

    Its methods work beside running subscriptions, except where documented otherwise. Each raises
    `NotFound` for a topic or group that does not exist, `UnsupportedOperation` with the reason
    where the backend cannot do it, and the broker's other errors. After 60 s without an answer a
    method raises `ConnectionLost`.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        declarations: Declarations,
        publisher: Publisher,
        group_name: Callable[[str, str], str],
        check_start: Callable[[Start], None],
        translate: Callable[[BaseException, str], BaseException],
        clock: Clock,
        timeout: float,
    ) -> None:
        self._driver = driver
        self._declarations = declarations
        self._access = TopicAccess(driver, declarations, translate)
        self._publisher = publisher
        self._group_name = group_name
        self._check_start = check_start
        self._clock = clock
        self._timeout = timeout

    async def topics(self) -> list[str]:
        """Return the names of all topics on the broker, sorted; dead-letter topics are among them.

        They include topics of other programs, where the broker can list them and their names are
        topic names; `connect(names=…)` gives a topic name to one of another form.
        """
        natives = await self._access.call(self._driver.topics(), "listing topics")
        return sorted(filter(is_topic, map(self._declarations.by_native, natives)))

    async def groups(self, topic: str | Topic[Any]) -> list[str]:
        """Return the names of the topic's groups, sorted.

        They include groups of other programs whose native name is `TOPIC.GROUP`; `connect(names=…)`
        gives a group name to one of another form.
        """
        spec = self._access.spec(topic)
        natives = await self._access.call(
            self._driver.groups(spec), f"listing the groups of {spec.name}"
        )
        prefix = f"{spec.name}."
        names = {self._declarations.by_native(native).removeprefix(prefix) for native in natives}
        return sorted(
            name
            for name in names
            if is_group(name) and self._group_name(spec.name, name) in natives
        )

    @overload
    async def describe(self, topic: str | Topic[Any]) -> TopicInfo: ...

    @overload
    async def describe(self, topic: str | Topic[Any], group: str) -> GroupInfo: ...

    async def describe(
        self, topic: str | Topic[Any], group: str | None = None
    ) -> TopicInfo | GroupInfo:
        """Return the statistics of a topic, or of one of its groups.

        The fields are the same on every backend; None means that this one cannot know.
        """
        spec = self._access.spec(topic)
        if group is None:
            return await self._access.describe(spec)
        found = await self._access.call(
            self._driver.describe_group(spec, self._group_name(spec.name, check_group(group))),
            f"describing the group {group} of {spec.name}",
        )
        poison = found.poison and worst(found.poison)
        return replace(found, topic=spec.name, group=group, poison=poison)

    async def declare(self, topic: str | Topic[Any]) -> None:
        """Create the topic, unless it exists. Publishing and subscribing do so by themselves."""
        target = as_topic(topic)
        self._declarations.learn(target)
        await self._access.call(
            self._declarations.redeclare(target.name), f"declaring {target.name}"
        )

    async def delete(self, topic: str | Topic[Any], group: str | None = None) -> None:
        """Delete a topic with its groups and messages, or one group; nothing happens if absent.

        A topic's dead letters are topics of their own and stay. Raises `StateError` for a group
        with live members.
        """
        spec = self._access.spec(topic)
        if group is not None:
            native = self._group_name(spec.name, check_group(group))
            work = self._driver.delete_group(spec, native)
            return await self._access.call(work, f"deleting the group {group} of {spec.name}")
        for each in (spec, settlement_log_spec(spec)):
            await self._access.call(self._driver.delete_topic(each), f"deleting {each.name}")
        self._declarations.forget(spec.name)

    async def purge(self, topic: str | Topic[Any]) -> None:
        """Delete the topic's messages for every group, also delayed messages and retries."""
        spec = self._access.spec(topic)
        await self._access.call(self._driver.purge(spec), f"purging {spec.name}")
        await self._access.call(
            self._driver.delete_topic(settlement_log_spec(spec)), f"purging {spec.name}"
        )

    async def seek(self, topic: str | Topic[Any], group: str, *, to: Start) -> None:
        """Reset `group` to `to`: `earliest`, `latest`, a datetime, or a position.

        Pending deliveries and retries are discarded, and every message from there on is delivered
        as a first attempt. Raises `StateError` while the group has live members: stop them first.
        """
        spec = self._access.spec(topic)
        self._check_start(to)
        native = self._group_name(spec.name, check_group(group))
        await self._access.call(
            self._driver.seek(spec, native, to), f"seeking the group {group} of {spec.name}"
        )

    async def browse(
        self, topic: str | Topic[Any], *, start: Start = "earliest"
    ) -> AsyncGenerator[Stored, None]:
        """Yield the messages of the topic from `start` to its end as of now; settle nothing.

        Messages of one partition come in order. Delayed messages that are not due are left out.
        """
        if start not in ("earliest", "latest"):
            self._check_start(start)
        async with aclosing(self._access.browse(self._access.spec(topic), start)) as messages:
            async for stored in messages:
                yield stored

    async def all_dead_letters(self, *, stored_in: str | None = None) -> list[DeadLetters]:
        """Return the dead letters of every group that has a dead-letter topic, sorted.

        With `stored_in` they are those of each group whose letters are in that topic, which is read
        to its end.
        """
        if stored_in is None:
            origins = {dead_letter_origin(name) for name in await self.topics()}
        else:
            origins = {origin_of(each.message) async for each in self.browse(stored_in)}
        found = {origin for origin in origins if origin is not None}
        return [
            self.dead_letters(*origin, stored_in=stored_in)
            for origin in sorted(found, key=lambda origin: (origin[0], origin[1] or ""))
        ]

    def dead_letters(
        self, topic: str | Topic[Any], group: str | None, *, stored_in: str | None = None
    ) -> DeadLetters:
        """Return the dead letters of `group` (None: of broadcast) on `topic`.

        `stored_in` is the topic they are in where `DeadLetter(topic=…)` chose one.
        """
        target = as_topic(topic)
        return DeadLetters(
            self._access,
            topic=target.name,
            group=group if group is None else check_group(group),
            stored_in=stored_in,
            publisher=self._publisher,
            clock=self._clock,
            timeout=self._timeout,
        )
