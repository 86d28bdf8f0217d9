"""`Record` and `Received`: a message to store at a broker, and one received from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from .specs import ATTEMPT, ONLY_GROUP

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_DIGITS = 9

T = TypeVar("T")


class SharedHeaders(dict[str, str]):
    """Headers that many records have in common. They never change."""

    __slots__ = ("_forms",)

    _forms: dict[Callable[[Mapping[str, str]], Any], Any]

    def encoded(self, encode: Callable[[Mapping[str, str]], T]) -> T:
        """Return `encode(self)`, computed once for each `encode`: a function of a module."""
        try:
            form: T = self._forms[encode]
        except AttributeError:
            self._forms = {}
        except KeyError:
            pass
        else:
            return form
        form = self._forms[encode] = encode(self)
        return form


NO_SHARED_HEADERS = SharedHeaders()


class Record:
    """A message on its way to the broker.

    `id` is the logical id. `unique` is the broker-level id for deduplication (`Nats-Msg-Id` and the
    like), in plain ASCII. It is equal for repeated attempts at the same publish, and for messages
    that one source publishes with one id; it is different for every copy. Send it where the broker
    deduplicates; never read it back.

    `headers` are final: names carry the binding's prefix, values are text, and nothing needs
    escaping beyond the transport's own rules. They are `common` and `own` together, which have no
    name in common. Most records of a process have the same `common` object, so a driver encodes it
    once (`SharedHeaders.encoded`).

    `deliver_at`, in seconds since the epoch, delays the record: the broker stores it durably at
    once, and gives it to groups and readers at that time, never earlier. Its outcome is None then.

    `original` is the received message that the record is a copy of (a retry, a dead letter, a
    redrive). A driver takes from it what text cannot express (no body at all, a key or a header
    that is not text, a header with two values), as far as it is unchanged in the copy.
    """

    __slots__ = (
        "body",
        "common",
        "content_type",
        "deliver_at",
        "id",
        "key",
        "original",
        "own",
        "topic",
        "unique",
    )

    def __init__(
        self,
        topic: str,
        id: str,
        unique: str,
        body: bytes,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        common: SharedHeaders = NO_SHARED_HEADERS,
        content_type: str | None = None,
        deliver_at: float | None = None,
        original: Received | None = None,
    ) -> None:
        self.topic = topic
        self.id = id
        self.unique = unique
        self.body = body
        self.key = key
        self.own: dict[str, str] = {} if headers is None else headers
        self.common = common
        self.content_type = content_type
        self.deliver_at = deliver_at
        self.original = original

    def __repr__(self) -> str:
        return f"<Record {self.unique} to {self.topic}>"

    @property
    def headers(self) -> dict[str, str]:
        """All headers."""
        return {**self.common, **self.own} if self.common else self.own

    def with_headers(self, more: Mapping[str, str]) -> Record:
        """Return a copy that has `more` headers."""
        return Record(
            topic=self.topic,
            id=self.id,
            unique=self.unique,
            body=self.body,
            key=self.key,
            headers={**self.own, **more},
            common=self.common,
            content_type=self.content_type,
            deliver_at=self.deliver_at,
            original=self.original,
        )


class Duplicate(str):
    """Outcome of a record that was not stored, because the broker has one with the same `unique`.

    Its text is the position of that one, empty if unknown.
    """

    __slots__ = ()


Outcome = str | BaseException | None
"""Result of publishing one record.

The exception if it was not stored; a `Duplicate` if the broker had it already; otherwise its
position, or None if the broker reports none (always for a delayed record).
"""


class Due(NamedTuple):
    """Due time of a failed record: the earliest moment of its next attempt.

    `at` is wall-clock time, in seconds since the epoch, because another host may own the record by
    then. `delay`, in seconds, is the whole wait. It bounds the rest of the wait, so a clock that
    was set back, or is behind, adds at most that. A clock that is ahead ends the wait early by as
    much.
    """

    at: float
    delay: float

    def left(self, now: float) -> float:
        """Return the seconds of the wait that are left at the wall-clock time `now`."""
        return max(0.0, min(self.delay, self.at - now))


class Received:
    """A received record, with the token that settles it.

    `headers` are as on the wire, with text values (bytes that are not UTF-8 are decoded with
    `backslashreplace`); it may be a lazy mapping. `key` is None unless `Binding.native_key`.
    `position` identifies the record within the topic permanently, in the broker's notation; it
    becomes the id of a message that carries none. `time` is the broker's timestamp, in seconds
    since the epoch. `native` is the client library's object.

    `redeliveries` is the broker's count of earlier deliveries of this copy to this group: 0 the
    first time, and always where the broker cannot count. The attempt is the copy's header (1
    without one) plus this.

    `partition` is the partition that an ordered source read it from. `not_before` is the `Nack.due`
    of the last `OrderedSource.keep` of this record by any member; None without one. `token`
    belongs to the source.
    """

    __slots__ = (
        "body",
        "content_type",
        "headers",
        "key",
        "native",
        "not_before",
        "partition",
        "position",
        "redeliveries",
        "time",
        "token",
    )

    def __init__(
        self,
        body: bytes,
        headers: Mapping[str, str],
        *,
        position: str,
        token: Any,
        native: Any = None,
        key: str | None = None,
        content_type: str | None = None,
        time: float | None = None,
        redeliveries: int = 0,
        partition: int = 0,
        not_before: Due | None = None,
    ) -> None:
        self.body = body
        self.headers = headers
        self.position = position
        self.token = token
        self.native = native
        self.key = key
        self.content_type = content_type
        self.time = time
        self.redeliveries = redeliveries
        self.partition = partition
        self.not_before = not_before

    def header(self, name: str) -> str | None:
        """Return one header. Override it if the driver can find one without parsing all."""
        return self.headers.get(name)

    @property
    def published(self) -> bool:
        """Whether it was read where publishers write: not a copy that a `nack` or `release` made.

        Any publisher may write any header there, so the core ignores the headers that only copies
        have (`ATTEMPT`). False where a driver cannot tell the two apart.
        """
        return False

    @property
    def fresh(self) -> bool:
        """Whether this is the first delivery of an ordinary publish.

        False for redeliveries, retry copies, and messages redriven to one group. Checked for every
        message; override it if the driver can tell without parsing headers.
        """
        headers = self.headers
        return (
            self.redeliveries == 0
            and headers.get(ATTEMPT) is None
            and headers.get(ONLY_GROUP) is None
        )


class Published(Received):
    """A record as it is stored in its topic, where any publisher may have written it."""

    __slots__ = ()

    @property
    def published(self) -> bool:
        return True


@dataclass(slots=True)
class Nack:
    """A record to redeliver to its group: after a failure, or uncounted (`Source.release`).

    It must not be delivered before `delay` seconds have passed, and its next delivery must show
    `attempt`. A driver whose broker counts deliveries may leave the counting to it when
    `native_attempt == attempt`: the number that the next delivery would show by the broker's count
    alone. Otherwise it settles `received` by publishing `copy`, whose headers already have
    `attempt`; the copy goes to this group only, never to the whole topic. For a `release` the
    core passes `delay` 0 and the attempt unchanged. `due` is for `OrderedSource.keep`: the end of
    the delay, None without one.
    """

    received: Received
    delay: float
    attempt: int
    native_attempt: int
    copy: Record
    due: Due | None = None

    @property
    def redeliveries(self) -> int:
        """The count of earlier deliveries with which the next one shows `attempt`."""
        return _redeliveries(self.received, self.attempt)


@dataclass(slots=True)
class Begun:
    """A record whose handler starts: if it is not settled, its next delivery shows `attempt`."""

    received: Received
    attempt: int

    @property
    def redeliveries(self) -> int:
        """The count of earlier deliveries with which the next one shows `attempt`."""
        return _redeliveries(self.received, self.attempt)


@dataclass(slots=True)
class Rejected:
    """A record that is never delivered to its group again, and its dead letter."""

    received: Received
    letter: Record


def attempt_of(received: Received) -> int:
    """Return the 1-based number of this delivery: the copy's header plus the broker's count."""
    header = None if received.published else received.headers.get(ATTEMPT)
    return (1 if header is None else count_of(header, 1)) + received.redeliveries


def _redeliveries(received: Received, attempt: int) -> int:
    return max(0, attempt - attempt_of(received) + received.redeliveries)


def count_of(text: str, otherwise: int) -> int:
    """Return the number in a header; `otherwise` if it is none, or longer than 9 digits."""
    if len(text) > _DIGITS or not (text.isascii() and text.isdecimal()):
        return otherwise
    return int(text) or otherwise
