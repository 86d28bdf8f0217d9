"""What became of the failures of a flow: dead letters that are still open, and pending retries."""

from __future__ import annotations

from collections.abc import Sequence

from ..broker import Broker
from ..errors import PermanentError, UnsupportedOperation
from .flow_tree import OPEN, REDRIVEN, Failure, Pending, Step
from .survey import concurrently

Log = tuple[str, str | None, str]
"""The dead letters of a group in one topic: the topic they are from, the group, the topic."""


async def add_states(broker: Broker, steps: Sequence[Step]) -> None:
    """Set the state of each dead letter."""
    logs: dict[Log, list[Failure]] = {}
    for step in steps:
        for failure in step.failures:
            letter = failure.letter
            if letter.failed_at is not None and letter.failed_at.isoformat() in step.redriven:
                failure.state = REDRIVEN
            log = letter.topic, letter.group, letter.message.topic
            logs.setdefault(log, []).append(failure)

    async def look(log: Log) -> None:
        topic, group, stored_in = log
        failures = logs[log]
        wanted = {failure.letter.position for failure in failures}
        letters = broker.admin.dead_letters(topic, group, stored_in=stored_in)
        found = await letters.list(where=lambda letter: letter.position in wanted)
        still = {letter.position for letter in found}
        for failure in failures:
            if failure.letter.position in still:
                failure.state = OPEN

    await concurrently(look, logs)


async def add_pending(broker: Broker, steps: Sequence[Step]) -> None:
    """Note at each message the groups that have begun it more than once and not settled it.

    A backend that does not report these leaves them out.
    """
    topics: dict[str, dict[str, Step]] = {}
    for step in steps:
        for _, position in step.positions:
            topics.setdefault(step.topic, {})[position] = step

    async def look(topic: str) -> None:
        stored = topics[topic]
        try:
            for group in await broker.admin.groups(topic):
                for each in (await broker.admin.describe(topic, group)).poison or ():
                    if (step := stored.get(each.position)) is not None:
                        found = Pending(group=group, attempts=each.attempts, member=each.member)
                        step.pending.append(found)
        except (PermanentError, UnsupportedOperation):
            return  # Groups are not reported, or one was deleted meanwhile.

    await concurrently(look, topics)
