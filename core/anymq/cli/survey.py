"""Statistics of topics and groups for several commands, read concurrently, and as JSON values."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ..broker import Broker
from ..driver.info import GroupInfo, TopicInfo
from ..errors import NotFound
from ..topic import dead_letter_topic

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16
"""The most calls to the broker at one time."""


@dataclass(frozen=True, kw_only=True)
class GroupSurvey:
    """A group and the number of its dead letters."""

    info: GroupInfo
    dead_letters: int

    @property
    def lag_at_least(self) -> int | None:
        """The lag, or the part of it that the backend knows: messages not yet delivered."""
        if self.info.lag is not None:
            return self.info.lag
        known = [part.lag for part in self.info.partitions or () if part.lag is not None]
        return sum(known) if known else None

    @property
    def lag(self) -> int | str | None:
        """The lag as a cell of a table; `3+` if it is at least 3."""
        least = self.lag_at_least
        return least if self.info.lag is not None or least is None else f"{least}+"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        data = asdict(self.info)
        for part in data["partitions"] or ():
            del part["first"], part["last"], part["messages"]
        return data | {"lag_at_least": self.lag_at_least, "dead_letters": self.dead_letters}


@dataclass(frozen=True, kw_only=True)
class TopicSurvey:
    """A topic, its groups, and the number of all its dead letters."""

    info: TopicInfo
    groups: tuple[GroupSurvey, ...]
    dead_letters: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        data = asdict(self.info)
        for part in data["partitions"]:
            del part["owner"], part["lag"]
        groups = [group.as_dict() for group in self.groups]
        return data | {"dead_letters": self.dead_letters, "groups": groups}


async def concurrently(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """Return the results of `work` for `items`, in order, with `AT_ONCE` of them at one time.

    The first error ends the others.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> R:
        async with turns:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(item)) for item in items]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in running]


async def describe_topic(broker: Broker, topic: str) -> TopicInfo:
    """Return the statistics of `topic`; raises `NotFound` with a similar name, if there is one."""
    try:
        return await broker.admin.describe(topic)
    except NotFound as error:
        known = await broker.admin.topics()
        raise NotFound(f"there is no topic {topic!r}{_similar(topic, known)}") from error


async def describe_group(broker: Broker, topic: str, group: str) -> GroupInfo:
    """Return the statistics of a group; raises `NotFound` with a similar name, if there is one."""
    try:
        return await broker.admin.describe(topic, group)
    except NotFound as error:
        await describe_topic(broker, topic)
        known = await broker.admin.groups(topic)
        similar = _similar(group, known)
        raise NotFound(f"topic {topic!r} has no group {group!r}{similar}") from error


async def survey_group(
    broker: Broker, topic: str, group: str, *, known: Collection[str] | None = None
) -> GroupSurvey:
    """Return the survey of one group; raises `NotFound`.

    `known` are the names of all topics: with them no absent dead-letter topic is looked for.
    """
    info = await describe_group(broker, topic, group)
    dead = await count_letters(broker, topic, group, known=known)
    return GroupSurvey(info=info, dead_letters=dead)


async def survey_topic(
    broker: Broker, topic: str, *, known: Collection[str] | None = None
) -> TopicSurvey:
    """Return the survey of one topic; raises `NotFound`. `known` is as in `survey_group`."""
    info = await describe_topic(broker, topic)
    groups = []
    for name in await broker.admin.groups(topic):
        try:
            groups.append(await survey_group(broker, topic, name, known=known))
        except NotFound:
            continue  # it was deleted meanwhile
    dead = sum(group.dead_letters for group in groups)
    if "broadcast" not in {group.info.group for group in groups}:
        dead += await count_letters(broker, topic, None, known=known)
    return TopicSurvey(info=info, groups=tuple(groups), dead_letters=dead)


async def count_letters(
    broker: Broker, topic: str, group: str | None, *, known: Collection[str] | None = None
) -> int:
    """Return the number of dead letters of a group, in its own dead-letter topic."""
    if known is not None and dead_letter_topic(topic, group) not in known:
        return 0
    return await broker.admin.dead_letters(topic, group).count()


def _similar(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
