"""`anymq group`: groups with their lag, members and partitions; resetting and deleting them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from cyclopts import App, Parameter

from ..broker import Broker
from .common import DEFAULT, Common, Flag
from .failures import UsageError
from .impact import plural, require_yes, spared
from .output import Output, duration
from .seeking import plan_seek
from .survey import (
    GROUP_COLUMNS,
    GroupSurvey,
    group_row,
    matching,
    origins_of,
    survey_each,
    survey_group,
    survey_groups,
    without_internal,
)
from .values import Duration, StartAt
from .watch import show_repeatedly

app = App(name="group", help="List, reset and delete groups.")

EVERY = timedelta(seconds=2)
SHORTEST = timedelta(milliseconds=100)


@app.command
async def ls(
    pattern: str = "*",
    /,
    *,
    all: Flag = False,
    watch: Flag = False,
    every: Duration = EVERY,
    common: Common = DEFAULT,
) -> None:
    """List groups: lag in messages and as an age, deliveries in flight, retries, members.

    `-` is a value that the backend does not report; `3+` is at least 3. JSON: kind `groups`, a list
    of groups as `group show` has them.

    Parameters
    ----------
    pattern
        Only groups of topics that match, such as `orders*`; without `*` or `?`, those that contain
        it.
    all
        Also groups of dead-letter topics.
    watch
        Refresh until Ctrl-C; with `--json` one envelope each time.
    every
        The time between two refreshes.
    """
    pause = _pause(watch, every)
    output = common.output
    async with common.connect() as broker:

        async def read() -> list[GroupSurvey]:
            return await _groups(broker, pattern, all=all, output=output)

        def show_all(groups: list[GroupSurvey]) -> None:
            rows = [[each.info.topic, *group_row(each)] for each in groups]
            data = [each.as_dict() for each in groups]
            output.table("groups", data, ["TOPIC", *GROUP_COLUMNS], rows)

        await show_repeatedly(read, show_all, every=pause, output=output)


@app.command
async def show(
    topic: str,
    group: str,
    /,
    *,
    watch: Flag = False,
    every: Duration = EVERY,
    common: Common = DEFAULT,
) -> None:
    """Show one group: its lag, members, partitions, and messages that keep failing.

    JSON: kind `group`: native, topic, group, ordered, lag, lag_at_least, lag_seconds (age of the
    oldest unsettled message), in_flight, oldest_pending (seconds), waiting (retries that are not
    due), members (name, partitions, in_flight, host), partitions (number, owner, lag), poison
    (position, attempts, member) and dead_letters. null is a value that the backend does not report.

    Parameters
    ----------
    topic
        The topic's name.
    group
        The group's name.
    watch
        Refresh until Ctrl-C; with `--json` one envelope each time.
    every
        The time between two refreshes.
    """
    pause = _pause(watch, every)
    output = common.output
    async with common.connect() as broker:
        await show_repeatedly(
            lambda: survey_group(broker, topic, group),
            lambda found: _show(found, output),
            every=pause,
            output=output,
        )


@app.command
async def seek(
    topic: str,
    group: str,
    /,
    *,
    to: StartAt,
    dry_run: Annotated[Flag, Parameter(name=("--dry-run", "-n"))] = False,
    common: Common = DEFAULT,
) -> None:
    """Reset a group to a position: every message from there on is delivered as a first attempt.

    Deliveries in flight and waiting retries are discarded. The group may have no live members: stop
    them first. JSON: kind `group-seek`: topic, group, to, dry_run, messages (to deliver from there;
    null if more than are counted), and lag, in_flight, waiting and members as they were.

    Parameters
    ----------
    topic
        The topic's name.
    group
        The group's name.
    to
        `start`, `end`, `@TIME` (such as `@-1h` or `@2026-11-28T10:00Z`), or a message's position.
    dry_run
        Only say what would be done.
    """
    async with common.connect() as broker:
        plan = await plan_seek(broker, topic, group, to=to)
        if not dry_run:
            await broker.admin.seek(topic, group, to=to)
    data = plan.as_dict() | {"dry_run": dry_run}
    common.output.result("group-seek", data, plan.text(done=not dry_run))


@app.command
async def delete(topic: str, group: str, /, *, yes: Flag = False, common: Common = DEFAULT) -> None:
    """Delete a group; its dead letters stay. The group may have no live members.

    Without `--yes` it says what the group has not settled, deletes nothing, and exits with 1. JSON:
    kind `group-deleted`, the group as `group show` has it, as it was.

    Parameters
    ----------
    topic
        The topic's name.
    group
        The group's name.
    yes
        Do it.
    """
    async with common.connect() as broker:
        found = await survey_group(broker, topic, group)
        text = _impact(found)
        require_yes(yes, f"deletes {text}", ["group", "delete", topic, group], common)
        await broker.admin.delete(topic, group)
    common.output.result("group-deleted", found.as_dict(), f"deleted {text}")


def _pause(watch: bool, every: timedelta) -> float | None:
    if every < SHORTEST:
        raise UsageError(f"--every is at least {duration(SHORTEST.total_seconds())}")
    return every.total_seconds() if watch else None


async def _groups(broker: Broker, pattern: str, *, all: bool, output: Output) -> list[GroupSurvey]:
    known = await broker.admin.topics()
    origins = origins_of(known)

    async def survey(topic: str) -> list[GroupSurvey]:
        return await survey_groups(broker, topic, origins=origins)

    names = known if all else without_internal(known, broker)
    found = await survey_each(survey, matching(names, pattern), warn=output.warn)
    return [group for groups in found for group in groups]


def _impact(found: GroupSurvey) -> str:
    info = found.info
    least = "at least " if info.lag is None and found.lag_at_least is not None else ""
    text = f"the group {info.group} of {info.topic}: "
    text += f"{least}{plural(found.lag_at_least, 'unsettled message')}"
    if info.waiting:
        text += f", {info.waiting:,} of them waiting for a retry"
    return text + spared(found.dead_letters)


def _show(found: GroupSurvey, output: Output) -> None:
    info = found.info
    if output.as_json:
        output.result("group", found.as_dict())
        return
    facts = (
        ("topic", info.topic),
        ("native name", info.native),
        ("ordered", None if info.ordered is None else "yes" if info.ordered else "no"),
        ("lag", found.lag),
        ("oldest unsettled", duration(info.lag_seconds)),
        ("in flight", info.in_flight),
        ("oldest in flight", duration(info.oldest_pending)),
        ("retries waiting", info.waiting),
        ("members", None if info.members is None else len(info.members)),
        ("dead letters", found.dead_letters),
    )
    output.facts("group", info.group, facts)
    members = [[m.name, _numbers(m.partitions), m.in_flight, m.host] for m in info.members or ()]
    partitions = [[part.number, part.lag, part.owner] for part in info.partitions or ()]
    poison = [[each.position, each.attempts, each.member] for each in info.poison or ()]
    for columns, rows in (
        (["MEMBER", "PARTITIONS", "IN FLIGHT", "HOST"], members),
        (["PARTITION", "LAG", "OWNER"], partitions),
        (["FAILING", "ATTEMPTS", "MEMBER"], poison),
    ):
        if rows:
            output.write("")
            output.table("group", None, columns, rows)


def _numbers(partitions: tuple[int, ...] | None) -> str | None:
    return None if partitions is None else " ".join(map(str, partitions))
