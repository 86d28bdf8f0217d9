"""The dead letters that a command is about: which groups, which letters, and how many of a kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from cyclopts import Group, Parameter

from ..broker import Broker
from ..driver.clock import aware
from ..errors import NotFound
from ..operating.dead_letters import DeadLetters
from ..operating.letter import Letter
from ..operating.letter_filter import LetterFilter
from ..topic import BROADCAST
from .failures import UsageError
from .output import Output
from .survey import check_origin, describe_topic
from .values import converter, since_of

Since = Annotated[datetime, converter(since_of)]
TopicName = Annotated[str | None, Parameter(help="As --topic.")]
GroupName = Annotated[str | None, Parameter(help="As --group.")]
Repeated = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]

REASON_CHARACTERS = 80
"""The most characters of a reason in a table."""


@Parameter(name="*", group=Group("Which dead letters", sort_key=50))
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where letters are looked for: everywhere, unless a topic or a group is given."""

    topic: Annotated[str | None, Parameter(name=("--topic", "-t"))] = None
    """Letters of messages of this topic."""
    group: Annotated[str | None, Parameter(name=("--group", "-g"))] = None
    """Letters of this group; `broadcast` for those of broadcast subscriptions."""
    stored_in: Annotated[str | None, Parameter(name="--stored-in")] = None
    """Letters in this topic, where `DeadLetter(topic=…)` chose one."""

    def __post_init__(self) -> None:
        # What an unset variable of a shell leaves would select everything.
        for name, value in vars(self).items():
            if value == "" or (isinstance(value, tuple) and "" in value and name != "key"):
                raise UsageError(f"--{name.replace('_', '-')} is empty")

    async def find(self, broker: Broker) -> list[DeadLetters]:
        """Return the dead letters of the groups there; raises `NotFound` for an unknown name."""
        if self.stored_in is not None:
            await describe_topic(broker, self.stored_in)
        found = await broker.admin.all_dead_letters(stored_in=self.stored_in)
        chosen = [each for each in found if self._includes(*each.origin)]
        if not chosen and self.topic is not None and self.stored_in is None:
            await check_origin(broker, self.topic, self.group)
        return chosen

    def at(self, topic: str | None, group: str | None) -> Self:
        """Return this with the topic and the group that arguments without an option name."""
        for name, argument, option in (("topic", topic, self.topic), ("group", group, self.group)):
            if argument is not None and option is not None:
                raise UsageError(f"the {name} is given twice: {argument} and --{name} {option}")
        return replace(
            self,
            topic=self.topic if topic is None else topic,
            group=self.group if group is None else group,
        )

    def arguments(self) -> list[str]:
        """Return the options as they are typed."""
        options = {"--topic": self.topic, "--group": self.group, "--stored-in": self.stored_in}
        return [part for name, value in options.items() if value for part in (name, value)]

    def _includes(self, topic: str, group: str | None) -> bool:
        return self.topic in (None, topic) and self.group in (None, group or BROADCAST)


ANYWHERE = Place()


@Parameter(name="*", group=Group("Which dead letters", sort_key=50))
@dataclass(frozen=True, kw_only=True)
class Selection(Place):
    """The letters that a command is about: all, unless an option is given; all options must hold.

    An option that is repeated accepts any of its values.
    """

    reason: str | None = None
    """Letters whose reason contains this; with `*` for any text it is the whole reason."""
    error_type: Annotated[str | None, Parameter(name="--error-type")] = None
    """Letters of this exception, such as ValueError, shop.errors.BankDown or `shop.*`."""
    since: Since | None = None
    """Letters that failed since this time, or within this duration, such as 1h."""
    id: Annotated[Repeated, Parameter(name="--id")] = ()
    """The letter with this message id or position; may be repeated."""
    key: Annotated[Repeated, Parameter(name="--key")] = ()
    """Letters with this message key; may be repeated."""

    @property
    def where(self) -> LetterFilter:
        """The condition on letters."""
        return LetterFilter(
            reason=self.reason,
            error_type=self.error_type,
            since=self.since,
            ids=frozenset(self.id),
            keys=frozenset(self.key),
        )

    def arguments(self) -> list[str]:
        """Return the options as they are typed."""
        since = None if self.since is None else self.since.isoformat()
        options = [("--reason", self.reason), ("--error-type", self.error_type), ("--since", since)]
        options += [("--id", value) for value in self.id] + [("--key", value) for value in self.key]
        return super().arguments() + [
            f"{name}={value}" for name, value in options if value is not None
        ]


ALL = Selection()


async def select(
    sources: Sequence[DeadLetters], where: LetterFilter
) -> AsyncGenerator[tuple[DeadLetters, Letter], None]:
    """Yield the letters that `where` accepts, with the dead letters they belong to."""
    for source in sources:
        async for letter in source:
            if where(letter):
                yield source, letter


async def letters_with(broker: Broker, id: str, place: Place) -> list[tuple[DeadLetters, Letter]]:
    """Return the letters with this message id or position; raises `NotFound` if there is none."""
    sources = await place.find(broker)
    found = [each async for each in select(sources, LetterFilter(ids=(id,)))]
    if not found:
        raise NotFound(f"there is no dead letter {id!r}")
    return found


@dataclass
class Kind:
    """The number of letters with one topic, group, error type and reason."""

    stored_in: str
    topic: str
    group: str | None
    error_type: str | None
    reason: str | None
    letters: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def add(self, letter: Letter) -> None:
        """Count `letter`."""
        self.letters += 1
        if letter.failed_at is not None:
            failed = aware(letter.failed_at)
            self.oldest = min(self.oldest or failed, failed)
            self.newest = max(self.newest or failed, failed)


@dataclass
class Tally:
    """Letters counted by topic, group, error type and reason."""

    kinds: dict[tuple[str | None, ...], Kind] = field(default_factory=dict)
    total: int = 0

    def add(self, letter: Letter) -> None:
        """Count `letter`."""
        what = (
            letter.message.topic,
            letter.topic,
            letter.group,
            letter.error_type,
            letter.reason,
        )
        self.kinds.setdefault(what, Kind(*what)).add(letter)
        self.total += 1

    def as_list(self) -> list[dict[str, Any]]:
        """Return the kinds as JSON values, the most frequent first."""
        return [vars(kind) for kind in self._sorted()]

    def write(self, output: Output) -> None:
        """Write the kinds as a table, the most frequent first."""
        columns = ["LETTERS", "TOPIC", "GROUP", "LAST FAILED", "ERROR TYPE", "REASON"]
        rows = [
            [
                kind.letters,
                kind.topic,
                kind.group or BROADCAST,
                when(kind.newest),
                kind.error_type,
                cut(kind.reason),
            ]
            for kind in self._sorted()
        ]
        output.table("dead-letters", None, columns, rows)

    def _sorted(self) -> list[Kind]:
        return sorted(self.kinds.values(), key=lambda kind: (-kind.letters, kind.topic))


def cut(text: str | None) -> str | None:
    """Return `text`, shortened for a table."""
    if text is None or len(text) <= REASON_CHARACTERS:
        return text
    return f"{text[: REASON_CHARACTERS - 1]}…"


def when(time: datetime | None) -> str | None:
    """Return `time` in UTC, to the second."""
    if time is None:
        return None
    found = aware(time)
    try:
        return f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    except OverflowError:  # at the end of the calendar, where any program may put it
        return found.isoformat()
