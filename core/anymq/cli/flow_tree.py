"""`Step`: a message of a flow with its failures, and the tree of the steps by cause."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..message import Message
from ..operating.letter import Letter, letter_of, origin_of
from ..wire.dead_letter_headers import history_of
from .flow_search import Found

Key = tuple[str, str | None, str]
"""The identity of a message in a topic: topic, source and id."""

OPEN, REDRIVEN, SETTLED = "open", "redriven", "redriven or dropped"
"""The states of a dead letter. A redriven one whose copy is not found may have been dropped."""

_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass
class Failure:
    """A dead letter of a message, and its state."""

    letter: Letter
    state: str = SETTLED


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A message that a group has begun more than once and not settled."""

    group: str
    attempts: int
    member: str | None


@dataclass(kw_only=True)
class Step:
    """A message in its topic, with all that is stored of it."""

    message: Message
    topic: str
    size: int
    positions: list[tuple[int, str]] = field(default_factory=list)
    """Partition and position of each copy; none if only dead letters are left."""
    failures: list[Failure] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    redriven: set[str] = field(default_factory=set)
    """The times of the failures after which a copy was redriven."""
    depth: int = 0

    @property
    def order(self) -> tuple[datetime, str, str]:
        """The key by which steps of one cause are sorted: by time, if there is one."""
        return self.message.time or _EARLIEST, self.topic, self.message.id


def steps_of(found: Iterable[Found]) -> list[Step]:
    """Return the messages among `found`, each with its copies and its dead letters."""
    steps: dict[Key, Step] = {}
    for each in found:
        message = each.message
        topic, group = origin_of(message) or (message.topic, None)
        step = steps.setdefault(
            (topic, message.source, message.id), Step(message=message, topic=topic, size=each.size)
        )
        if topic != message.topic:
            letter = letter_of(message, position=each.position, topic=topic, group=group)
            step.failures.append(Failure(letter))
            continue
        if not step.positions:
            step.message, step.size = message, each.size
        step.positions.append((each.partition, each.position))
        step.redriven.update(past.get("failed_at", "") for past in history_of(message.headers))
    for step in steps.values():
        step.positions.sort(key=lambda place: (place[0], len(place[1]), place[1]))
        step.failures.sort(key=lambda failure: failure.letter.failed_at or _EARLIEST)
    return list(steps.values())


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with their depth in the tree: each before those that it caused.

    Of several messages with the id of a cause, the earliest counts. Messages that cause each other
    in a circle, which only foreign messages do, begin with the earliest.
    """
    ordered = sorted(steps, key=lambda step: step.order)
    by_id: dict[str, Step] = {}
    for step in ordered:
        by_id.setdefault(step.message.id, step)
    effects: dict[int, list[Step]] = {}
    roots: list[Step] = []
    for step in ordered:
        cause = by_id.get(step.message.causation_id or "")
        if cause is None or cause is step:
            roots.append(step)
        else:
            effects.setdefault(id(cause), []).append(step)
    found: list[Step] = []
    reached: set[int] = set()
    # Those that are not below a root are in a circle, or below one.
    for root in [*roots, *ordered]:
        found.extend(_below(root, effects, reached))
    return found


def _below(root: Step, effects: dict[int, list[Step]], reached: set[int]) -> Iterator[Step]:
    """Yield `root` and all below it that was not reached yet."""
    waiting = [(root, 0)]
    while waiting:
        step, depth = waiting.pop()
        if id(step) in reached:
            continue
        reached.add(id(step))
        step.depth = depth
        yield step
        waiting += [(each, depth + 1) for each in reversed(effects.get(id(step), []))]
