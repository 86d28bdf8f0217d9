"""`anymq trace`: the messages of one flow, as a tree by cause."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from ..broker import Broker
from ..driver.specs import Start
from ..operating.message_values import attributes_of, body_of
from ..topic import dead_letter_topic
from .common import DEFAULT, Common, Flag
from .failures import CommandError, UsageError
from .flow_failures import add_pending, add_states
from .flow_search import FlowSearch
from .flow_text import lines_of, marks_for
from .flow_tree import OPEN, Failure, Step, in_order, steps_of
from .impact import plural
from .output import Output
from .survey import describe_topic
from .values import converter, since_of


async def trace(
    id: str,
    /,
    *,
    topic: Annotated[list[str] | None, Parameter(name=("--topic", "-t"), negative="")] = None,
    since: Annotated[datetime | None, converter(since_of)] = None,
    max: int = 1000,
    body: Flag = False,
    common: Common = DEFAULT,
) -> None:
    """Show what belongs to one flow: every message of a correlation id, as a tree by cause.

    If ID is a message's id, the tree is that message and what it caused, however far. Below a
    message stand its dead letters, and the groups that have begun it more than once. Topics are
    read to their ends without settling anything. The exit code is 1 if nothing is found.

    Parameters
    ----------
    id
        A correlation id or a message id.
    topic
        A topic to read, with its dead letters, instead of all; repeatable.
    since
        Read messages from then on, such as 1h or @2026-11-28T10:00.
    max
        Stop after this number of stored messages.
    body
        Show the bodies, too.
    """
    if max < 1:
        raise UsageError("--max must be at least 1")
    output = common.output
    named = topic or []
    async with common.connect() as broker:
        topics = await _topics(broker, named)
        bar = output.progress("reading messages", total=None)
        with bar:
            search = FlowSearch(
                id,
                most=max,
                bodies=body,
                progress=lambda count: bar.advance(bar.task_ids[0], count),
            )
            start: Start = since or "earliest"
            await search.run(broker, topics, start=start, required=named)
        steps = in_order(steps_of(search.found))
        await add_states(broker, steps)
        await add_pending(broker, steps)
    where = f"read {plural(search.read, 'message')} of {plural(len(search.topics), 'topic')}"
    for name, reason in search.unread.items():
        output.warn(f"{name} is left out: {reason}")
    if not steps:
        raise CommandError(
            f"no message has the id or the correlation id {id!r} ({where})",
            hint="a message is found for as long as its topic keeps it; --since reads less",
        )
    _write(output, search, steps, since=since, body=body)
    output.note(f"{_summary(steps)}; {where}")
    flow = steps[0].message.correlation_id
    if flow not in (None, id) and all(step.message.correlation_id != id for step in steps):
        output.note(f"it is part of the flow {flow}: trace that id for all of it")
    if not search.complete:
        output.warn(f"stopped after {plural(max, 'stored message')}: --max takes more")


def _write(
    output: Output,
    search: FlowSearch,
    steps: Sequence[Step],
    *,
    since: datetime | None,
    body: bool,
) -> None:
    if not output.as_json:
        for line in lines_of(steps, bodies=body, marks=marks_for(sys.stdout.encoding)):
            output.write(line)
        return
    data = {
        "id": search.id,
        "since": since,
        "complete": search.complete and not search.unread,
        "read": search.read,
        "topics": len(search.topics),
        "unread": [{"topic": name, "error": text} for name, text in search.unread.items()],
        "messages": [_as_dict(step, body=body) for step in steps],
    }
    output.result("trace", data)


async def _topics(broker: Broker, named: Sequence[str]) -> list[str]:
    """Return the topics to read: all, or those `named` and the dead-letter topics of each."""
    if not named:
        return await broker.admin.topics()
    names = list(named)
    for topic in named:
        await describe_topic(broker, topic)
        groups = await broker.admin.groups(topic)
        names += [dead_letter_topic(topic, group) for group in (*groups, None)]
    return names


def _summary(steps: Sequence[Step]) -> str:
    counts = [plural(len(steps), "message")]
    failures = [failure for step in steps for failure in step.failures]
    if failures:
        still = sum(failure.state == OPEN for failure in failures)
        counts.append(f"{plural(len(failures), 'dead letter')} ({still} open)")
    if pending := sum(len(step.pending) for step in steps):
        counts.append(plural(pending, "unsettled attempt"))
    return ", ".join(counts)


def _as_dict(step: Step, *, body: bool) -> dict[str, Any]:
    """Return a message as JSON values; a body that is not text is in `body_base64`."""
    message = step.message
    data: dict[str, Any] = {
        "depth": step.depth,
        "topic": step.topic,
        **attributes_of(message),
        "size": step.size,
        "stored": [
            {"partition": partition, "position": position} for partition, position in step.positions
        ],
        "dead_letters": [_failure_as_dict(failure) for failure in step.failures],
        "pending": [asdict(each) for each in step.pending],
    }
    return data | body_of(message) if body else data


def _failure_as_dict(failure: Failure) -> dict[str, Any]:
    letter = failure.letter
    return {
        "group": letter.group,
        "stored_in": letter.message.topic,
        "position": letter.position,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "error_type": letter.error_type,
        "error_message": letter.error_message,
        "failed_at": letter.failed_at,
        "state": failure.state,
    }
