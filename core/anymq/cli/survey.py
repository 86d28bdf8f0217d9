"""Statistics of topics and groups for several commands, read concurrently, and as JSON values."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from ..broker import Broker
from ..driver.info import GroupInfo, TopicInfo
from ..errors import NotFound, PermanentError
from ..topic import BROADCAST, dead_letter_origin
from .output import duration

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16
"""The most calls to the broker at one time."""
PROPOSAL_SECONDS = 3.0
"""Seconds that the search for a similar name may take: there may be thousands of topics."""

Origins = Mapping[str, Set[str | None]]
"""By topic the groups (None: broadcast) that have a dead-letter topic."""


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


GROUP_COLUMNS = ("GROUP", "LAG", "AGE", "IN FLIGHT", "RETRIES", "MEMBERS", "DEAD")
"""The columns of a table of groups."""


def group_row(group: GroupSurvey) -> list[object]:
    """Return a group as cells of a table with `GROUP_COLUMNS`."""
    info = group.info
    return [
        info.group,
        group.lag,
        duration(info.lag_seconds),
        info.in_flight,
        info.waiting,
        None if info.members is None else len(info.members),
        group.dead_letters,
    ]


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


async def survey_each(
    survey: Callable[[str], Awaitable[R]], topics: Iterable[str], *, warn: Callable[[str], None]
) -> list[R]:
    """Return the surveys of `topics`; those deleted meanwhile are left out.

    So are topics that cannot be described: `warn` is called with the name and the reason.
    """

    async def one(topic: str) -> list[R]:
        try:
            return [await survey(topic)]
        except NotFound:
            return []
        except PermanentError as error:
            warn(f"{topic}: {error}")
            return []

    return [found for each in await concurrently(one, topics) for found in each]


async def describe_topic(broker: Broker, topic: str) -> TopicInfo:
    """Return the statistics of `topic`; raises `NotFound` with a similar name, if there is one."""
    try:
        return await broker.admin.describe(topic)
    except NotFound as error:
        known: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(PROPOSAL_SECONDS):
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


async def check_origin(broker: Broker, topic: str, group: str | None) -> None:
    """Raise `NotFound` if dead letters cannot be of `topic` and `group`, as both do not exist."""
    if group is None or group == BROADCAST:
        await describe_topic(broker, topic)
    else:
        await describe_group(broker, topic, group)


async def survey_group(
    broker: Broker, topic: str, group: str, *, origins: Origins | None = None
) -> GroupSurvey:
    """Return the survey of one group; raises `NotFound`.

    With the `origins` of all dead letters, no absent dead-letter topic is looked for.
    """
    info = await describe_group(broker, topic, group)
    rejected = origins is None or group in {each or BROADCAST for each in origins.get(topic, ())}
    dead = await broker.admin.dead_letters(topic, group).count() if rejected else 0
    return GroupSurvey(info=info, dead_letters=dead)


async def survey_groups(broker: Broker, topic: str, *, origins: Origins) -> list[GroupSurvey]:
    """Return the surveys of a topic's groups; raises `NotFound`."""
    found: list[GroupSurvey] = []
    for name in await broker.admin.groups(topic):
        with suppress(NotFound):  # it was deleted meanwhile
            found.append(await survey_group(broker, topic, name, origins=origins))
    return found


async def survey_topic(
    broker: Broker, topic: str, *, origins: Origins | None = None
) -> TopicSurvey:
    """Return the survey of one topic; raises `NotFound`. `origins` are looked up if not given."""
    info = await describe_topic(broker, topic)
    if origins is None:
        origins = origins_of(await broker.admin.topics())
    groups = await survey_groups(broker, topic, origins=origins)
    dead = sum(group.dead_letters for group in groups)
    present = {group.info.group for group in groups}
    for origin in origins.get(topic, ()):
        if (origin or BROADCAST) not in present:
            dead += await broker.admin.dead_letters(topic, origin).count()
    return TopicSurvey(info=info, groups=tuple(groups), dead_letters=dead)


def origins_of(topics: Iterable[str]) -> Origins:
    """Return for each topic the groups that have a dead-letter topic among `topics`."""
    found: dict[str, set[str | None]] = {}
    for topic, group in filter(None, map(dead_letter_origin, topics)):
        found.setdefault(topic, set()).add(group)
    return found


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that match `pattern`, or contain it if it has no `*`, `?` or `[`."""
    glob = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    return [name for name in names if fnmatchcase(name, glob)]


def without_internal(topics: Collection[str], broker: Broker) -> list[str]:
    """Return the topics of applications: neither dead letters of such a topic, nor replies."""
    known, replies = set(topics), broker.reply_topic

    def internal(name: str) -> bool:
        origin = dead_letter_origin(name)
        return name.startswith("anymq.") or name == replies or bool(origin and origin[0] in known)

    return [name for name in topics if not internal(name)]


def _similar(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
