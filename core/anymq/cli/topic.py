"""`anymq topic`: topics with their groups, lag and dead letters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from ..broker import Broker
from ..errors import NotFound
from ..topic import Topic
from .common import DEFAULT, Common, Flag
from .impact import plural, require_yes, spared
from .output import Output, duration, size
from .survey import (
    GROUP_COLUMNS,
    GroupSurvey,
    TopicSurvey,
    describe_topic,
    group_row,
    matching,
    origins_of,
    survey_each,
    survey_topic,
    without_internal,
)
from .values import Duration, Size

app = App(name="topic", help="List, create and delete topics.")


@app.command
async def ls(pattern: str = "*", /, *, all: Flag = False, common: Common = DEFAULT) -> None:
    """List topics: messages, retention, dead letters, and the lag of each group.

    `-` is a value that the backend does not report; `3+` is at least 3. JSON: kind `topics`, a list
    of topics as `topic show` has them.

    Parameters
    ----------
    pattern
        Only topics that match, such as `orders*`; without `*` or `?`, those that contain it.
    all
        Also dead-letter topics, their settlement logs, and the topics of replies.
    """
    async with common.connect() as broker:
        topics = await _topics(broker, pattern, all=all, output=common.output)
    rows = [
        [
            each.info.name,
            each.info.messages,
            size(each.info.bytes),
            each.info.delayed,
            _retention(each),
            each.dead_letters,
            "  ".join(f"{group.info.group}:{_lag(group)}" for group in each.groups),
        ]
        for each in topics
    ]
    columns = ["TOPIC", "MESSAGES", "BYTES", "DELAYED", "RETENTION", "DEAD", "GROUPS:LAG"]
    common.output.table("topics", [each.as_dict() for each in topics], columns, rows)


@app.command
async def show(topic: str, /, *, common: Common = DEFAULT) -> None:
    """Show one topic: its partitions and its groups.

    JSON: kind `topic`: name, native, messages, bytes, oldest, delayed, retention (seconds),
    retention_bytes, partitions, dead_letters, and groups as `group show` has them.

    Parameters
    ----------
    topic
        The topic's name.
    """
    async with common.connect() as broker:
        found = await survey_topic(broker, topic)
    output = common.output
    if output.as_json:
        output.result("topic", found.as_dict())
        return
    output.facts("topic", found.info.name, _facts(found))
    output.write("")
    partitions = [
        [part.number, part.messages, part.first, part.last] for part in found.info.partitions
    ]
    output.table("topic", None, ["PARTITION", "MESSAGES", "FIRST", "LAST"], partitions)
    if found.groups:
        output.write("")
        output.table("topic", None, GROUP_COLUMNS, [group_row(group) for group in found.groups])


@app.command
async def create(
    topic: str,
    /,
    *,
    partitions: int | None = None,
    retention: Duration | None = None,
    retention_bytes: Annotated[Size | None, Parameter(name="--retention-bytes")] = None,
    common: Common = DEFAULT,
) -> None:
    """Create a topic. Publishing and subscribing do so by themselves, with the default settings.

    A topic that exists stays as it is; more partitions than it has are an error. JSON: kind
    `topic-created`: name, partitions, and created, which is false if it existed.

    Parameters
    ----------
    topic
        The topic's name.
    partitions
        The number of partitions, which the members of an ordered group share.
    retention
        How long a message is kept, such as 7d.
    retention_bytes
        The size of retained messages, such as 1GB.
    """
    target = Topic(
        topic, partitions=partitions, retention=retention, retention_bytes=retention_bytes
    )
    async with common.connect() as broker:
        created = not await _exists(broker, topic)
        await broker.admin.declare(target)
        info = await describe_topic(broker, topic)
    has = plural(len(info.partitions), "partition")
    text = f"created {topic} with {has}" if created else f"{topic} exists already, with {has}"
    data = {"name": topic, "partitions": len(info.partitions), "created": created}
    common.output.result("topic-created", data, text)


@app.command
async def delete(topic: str, /, *, yes: Flag = False, common: Common = DEFAULT) -> None:
    """Delete a topic with its messages and groups; its dead letters stay.

    Without `--yes` it says how much that is, deletes nothing, and exits with 1. JSON: kind
    `topic-deleted`: name, and messages, delayed, groups, retries, members and dead_letters as they
    were.

    Parameters
    ----------
    topic
        The topic's name.
    yes
        Do it.
    """
    await _destroy(topic, "delete", yes=yes, common=common)


@app.command
async def purge(topic: str, /, *, yes: Flag = False, common: Common = DEFAULT) -> None:
    """Delete the messages of a topic for every group, also delayed ones and retries.

    Without `--yes` it says how much that is, deletes nothing, and exits with 1. JSON: kind
    `topic-purged`, as for `delete`.

    Parameters
    ----------
    topic
        The topic's name.
    yes
        Do it.
    """
    await _destroy(topic, "purge", yes=yes, common=common)


async def _destroy(
    topic: str, verb: Literal["delete", "purge"], *, yes: bool, common: Common
) -> None:
    """Delete or purge `topic`, and write what that was; raises `CommandError` without `yes`."""
    async with common.connect() as broker:
        impact = await _impact_of(broker, topic, count=not yes)
        text = f"{impact}{spared(impact.dead_letters)}"
        require_yes(yes, f"{verb}s {text}", ["topic", verb, topic], common)
        await (broker.admin.delete if verb == "delete" else broker.admin.purge)(topic)
    common.output.result(f"topic-{verb}d", impact.as_dict(), f"{verb}d {text}")


@dataclass(frozen=True, kw_only=True)
class Impact:
    """What a destructive command destroys; None is unknown. Dead letters are not among it."""

    name: str
    messages: int | None
    delayed: int | None
    groups: tuple[str, ...]
    retries: int | None
    members: int | None
    dead_letters: int

    def __str__(self) -> str:
        parts = [plural(self.messages, "message")]
        if self.delayed:
            parts.append(plural(self.delayed, "delayed message"))
        if self.retries:
            parts.append(f"{self.retries:,} waiting for a retry")
        parts.append(plural(len(self.groups), "group"))
        text = f"{self.name}: {', '.join(parts)}"
        if self.groups:
            live = "possibly live members" if self.members is None else None
            text += f" with {live or plural(self.members, 'live member')}"
        return text

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"groups": list(self.groups)}


async def _impact_of(broker: Broker, topic: str, *, count: bool) -> Impact:
    """Return the impact. With `count`, messages that the backend does not count are read."""
    found = await survey_topic(broker, topic)
    messages = found.info.messages
    if messages is None and count:
        messages = 0
        async for _ in broker.admin.browse(topic):
            messages += 1
    infos = [group.info for group in found.groups]
    return Impact(
        name=topic,
        messages=messages,
        delayed=found.info.delayed,
        groups=tuple(info.group for info in infos),
        retries=_sum(info.waiting for info in infos),
        members=_sum(None if info.members is None else len(info.members) for info in infos),
        dead_letters=found.dead_letters,
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    """Return the sum, or None if one of the numbers is unknown."""
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


async def _topics(broker: Broker, pattern: str, *, all: bool, output: Output) -> list[TopicSurvey]:
    known = await broker.admin.topics()
    origins = origins_of(known)
    names = known if all else without_internal(known, broker)
    if all:
        letters = [
            broker.admin.dead_letters(topic, group)
            for topic, groups in origins.items()
            for group in groups
        ]
        names = sorted([*names, *(each.settlement_log for each in letters)])

    async def survey(name: str) -> TopicSurvey:
        return await survey_topic(broker, name, origins=origins)

    # Not found is also a log that nothing was noted in.
    return await survey_each(survey, matching(names, pattern), warn=output.warn)


async def _exists(broker: Broker, topic: str) -> bool:
    try:
        await broker.admin.describe(topic)
    except NotFound:
        return False
    return True


def _facts(found: TopicSurvey) -> list[tuple[str, object]]:
    info = found.info
    oldest = info.oldest.astimezone(UTC) if info.oldest else None
    return [
        ("native name", info.native),
        ("messages", info.messages),
        ("bytes", size(info.bytes)),
        ("oldest", oldest and f"{oldest:%Y-%m-%dT%H:%M:%SZ}"),
        ("delayed", info.delayed),
        ("retention", _retention(found)),
        ("dead letters", found.dead_letters),
    ]


def _retention(found: TopicSurvey) -> str | None:
    bounds = [duration(found.info.retention), size(found.info.retention_bytes)]
    return ", ".join(bound for bound in bounds if bound is not None) or None


def _lag(group: GroupSurvey) -> str:
    return "-" if group.lag is None else str(group.lag)
