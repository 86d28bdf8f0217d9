"""`anymq check`: one line and an exit code, for cron, probes and monitoring."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated

from cyclopts import App

from ..broker import Broker
from ..errors import BrokerError, NotFound
from ..topic import BROADCAST
from .common import DEFAULT, Common
from .failures import EXIT_UNKNOWN, CommandError
from .findings import Finding, Limits, Status, Threshold, run_check, threshold_of
from .impact import plural
from .output import duration
from .survey import (
    GroupSurvey,
    check_origin,
    concurrently,
    describe_group,
    describe_topic,
    origins_of,
    without_internal,
)
from .values import Duration, converter

app = App(name="check", help="One line and an exit code: 0 OK, 1 warning, 2 critical, 3 unknown.")

Limit = Annotated[Threshold, converter(threshold_of)]
"""A threshold: a number of messages, or an age such as `5m`."""
TIMEOUT = timedelta(seconds=10)


@app.command
async def connection(
    *,
    warn: Duration | None = None,
    crit: Duration | None = None,
    timeout: Duration = TIMEOUT,
    common: Common = DEFAULT,
) -> int:
    """Check that the broker can be reached and answers; critical if not.

    Exit codes: 0 OK, 1 warning, 2 critical, 3 unknown, also for wrong usage. JSON: kind `check`:
    check, status, text, measures and exit.

    Parameters
    ----------
    warn
        A warning if connecting and one answer take this long, such as `1s`.
    crit
        Critical if they take this long.
    timeout
        Critical without an answer within this time.
    """
    limits = Limits.of(warn, crit)

    async def work() -> Finding:
        began = time.monotonic()
        try:
            async with common.connect() as broker:
                await broker.ping()
                took = time.monotonic() - began
                return limits.finding("seconds", took, f"{broker.url} answered in {took:.3f} s")
        except BrokerError as error:
            return Finding(Status.CRITICAL, str(error))

    late = Status.CRITICAL
    return await run_check("connection", work, timeout=timeout, late=late, output=common.output)


@app.command
async def lag(
    topic: str | None = None,
    group: str | None = None,
    /,
    *,
    warn: Limit | None = None,
    crit: Limit | None = None,
    timeout: Duration = TIMEOUT,
    common: Common = DEFAULT,
) -> int:
    """Check the lag of a group, of all groups of a topic, or of all groups.

    A threshold is a number of unsettled messages, such as `1000`, or the age of the oldest of them,
    such as `5m`. One of `--warn` and `--crit` is required. Unknown if the broker cannot be reached,
    there is no such topic or group, or the backend does not report that lag.

    Exit codes: 0 OK, 1 warning, 2 critical, 3 unknown, also for wrong usage. JSON: kind `check`:
    check, status, text, measures and exit.

    Parameters
    ----------
    topic
        The topic's name; without it all topics.
    group
        The group's name; without it all groups of the topic.
    warn
        A warning from this lag on.
    crit
        Critical from this lag on.
    timeout
        Unknown without an answer within this time.
    """
    limits = Limits.of(warn, crit)
    if not limits.given:
        raise CommandError("give --warn or --crit, such as --warn 1000", code=EXIT_UNKNOWN)

    async def work() -> Finding:
        async with common.connect() as broker:
            groups = await _groups(broker, topic, group)
            found = await concurrently(lambda each: _lag(broker, *each, limits), groups)
        worst = Finding.worst(found)
        return Finding(worst.status, worst.text, worst.measures if len(groups) == 1 else ())

    return await run_check("lag", work, timeout=timeout, output=common.output)


@app.command
async def dlq(
    topic: str | None = None,
    group: str | None = None,
    /,
    *,
    warn: int | None = None,
    crit: int | None = None,
    timeout: Duration = TIMEOUT,
    common: Common = DEFAULT,
) -> int:
    """Check the number of dead letters of a group, of a topic, or of all topics.

    Without `--warn` and `--crit`, one dead letter is a warning. Unknown if the broker cannot be
    reached, or there is no such topic or group.

    Exit codes: 0 OK, 1 warning, 2 critical, 3 unknown, also for wrong usage. JSON: kind `check`:
    check, status, text, measures and exit.

    Parameters
    ----------
    topic
        The topic's name; without it all topics.
    group
        The group's name, `broadcast` for subscriptions without one; without it all groups.
    warn
        A warning from so many letters on.
    crit
        Critical from so many letters on.
    timeout
        Unknown without an answer within this time.
    """
    limits = Limits.of(1 if warn is None and crit is None else warn, crit)

    async def work() -> Finding:
        async with common.connect() as broker:
            counts = await _letters(broker, topic, group)
        total = sum(counts.values())
        most = sorted(((n, name) for name, n in counts.items() if n), reverse=True)[:3]
        where = ", ".join(f"{name}: {n:,}" for n, name in most)
        text = plural(total, "dead letter") + (f" ({where})" if where else "")
        return limits.finding("letters", total, text)

    return await run_check("dlq", work, timeout=timeout, output=common.output)


async def _groups(broker: Broker, topic: str | None, group: str | None) -> list[tuple[str, str]]:
    """Return the groups to check, by topic and name; raises `NotFound`."""
    if topic is not None and group is not None:
        return [(topic, group)]
    if topic is not None:
        await describe_topic(broker, topic)
        topics = [topic]
    else:
        topics = without_internal(await broker.admin.topics(), broker)
    names = await concurrently(broker.admin.groups, topics)
    found = [(of, name) for of, groups in zip(topics, names, strict=True) for name in groups]
    if not found:
        raise NotFound(f"topic {topic!r} has no group" if topic else "there is no group")
    return found


async def _lag(broker: Broker, topic: str, group: str, limits: Limits) -> Finding:
    survey = GroupSurvey(info=await describe_group(broker, topic, group), dead_letters=0)
    name = f"{group} of {topic}"
    if limits.age:
        age = survey.info.lag_seconds
        if age is None:
            return Finding(Status.UNKNOWN, f"{name}: this broker does not report the age")
        return limits.finding("age", age, f"{name}: the oldest is {duration(age)} old")
    least = survey.lag_at_least
    if least is None:
        return Finding(Status.UNKNOWN, f"{name}: this broker does not report the lag")
    about = "" if survey.info.lag is not None else "at least "
    return limits.finding("lag", least, f"{name}: {about}{plural(least, 'unsettled message')}")


async def _letters(broker: Broker, topic: str | None, group: str | None) -> dict[str, int]:
    """Return the number of letters by group and topic; raises `NotFound`."""
    if topic is not None and group is not None:
        pairs = [(topic, None if group == BROADCAST else group)]
    else:
        origins = origins_of(await broker.admin.topics())
        chosen = origins if topic is None else {topic: origins.get(topic, frozenset())}
        pairs = [(of, each) for of, groups in chosen.items() for each in sorted(groups, key=str)]
    counts = await concurrently(lambda pair: broker.admin.dead_letters(*pair).count(), pairs)
    if topic is not None and not any(counts):
        await check_origin(broker, topic, group)
    names = [f"{each or BROADCAST} of {of}" for of, each in pairs]
    return dict(zip(names, counts, strict=True))
