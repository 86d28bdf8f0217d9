"""What an adapter implements: `Driver` and `Source`. The only module an adapter author must read.

An adapter moves records and settles them. It never retries, sleeps to back off, wraps errors,
counts attempts, encodes payloads, knows middleware, or logs above debug level: the core does,
once, for all backends. Errors of the client library leave a driver as they are; `Driver.errors`
says what they mean.

All methods run on one event loop. The core never calls a method of a driver or source after its
`aclose()` has been called, unless said otherwise below. No method may swallow `CancelledError`.
Every method must end by itself within a bounded time when the server is dead (set the client's
own timeouts); the core additionally gives each call a deadline, and on `aclose()` cancels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from .capabilities import Capabilities
from .clock import REAL, Clock
from .credit import MAX_BYTES
from .errors import ErrorTable, UnsupportedOperation
from .message import NO_HEADERS
from .url import URL

if TYPE_CHECKING:
    from .client_parts import Parts
    from .info import GroupInfo, TopicInfo

Start = str | datetime
"""`"earliest"`, `"latest"`, a position, or an aware datetime.

A position (`Received.position`, an `Outcome`) begins with the record there, and in the other
partitions with what is as old as that record or younger. A datetime begins with the first record
of that time or later. A text that is none of these is a `ConfigurationError` of the driver's.
"""

CONTROL = "anymq-"
"""What the names of the engine's own headers begin with."""
ATTEMPT = "anymq-attempt"
"""The header of a copy that says which attempt it is."""
ONLY_GROUP = "anymq-only-group"
"""On a message that was put back for one group: the others skip it."""
BROADCAST_ONLY = "(broadcast)"
"""The value of `ONLY_GROUP` on a message put back for broadcast readers; no group can be called so.
"""

Revoke = Callable[[frozenset[int], bool], Coroutine[Any, Any, None]]
"""See `SubscribeSpec.revoke`."""


Skipped = Callable[[str, str], None]
"""See `SubscribeSpec.skipped`."""

Dropped = Callable[[Sequence["Received"]], None]
"""See `SubscribeSpec.dropped`."""

Unreadable = Callable[[Sequence["Received"], str], None]
"""See `SubscribeSpec.unreadable`."""


async def _nothing_to_revoke(partitions: frozenset[int], gone: bool) -> None:
    """What a spec that no engine made calls."""


def _nothing_dropped(records: Sequence[Received]) -> None:
    """What a spec that no engine made calls."""


def _nothing_unreadable(records: Sequence[Received], reason: str) -> None:
    """What a spec that no engine made calls."""


def _nothing_skipped(after: str, before: str) -> None:
    """What a spec that no engine made calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """How CloudEvents attributes are named on this backend.

    An attribute `id` becomes the header `prefix + "id"`. `content_type` names the header that
    carries the body's media type, or is None where the backend has a native property for it
    (the driver then maps `Record.content_type` and `Received.content_type`). `percent` asks for
    the percent-encoding of the CloudEvents NATS and HTTP bindings. `native_key` says the backend
    carries the key itself; otherwise the core puts it into the `partitionkey` attribute.
    """

    prefix: str = "ce-"
    """A reader of messages takes it in any case."""
    content_type: str | None = "content-type"
    percent: bool = False
    native_key: bool = False
    id: str = field(init=False)
    """The name of the header of the attribute `id`."""
    source: str = field(init=False)
    """The same of `source`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.prefix + "id")
        object.__setattr__(self, "source", self.prefix + "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic to make ready.

    `native` is the name on the broker: equal to `name`, unless the user mapped the topic to
    something that exists already. `create` is False where the operator creates topics
    (`declare=false`, or a mapped name): then the driver only remembers the spec. `partitions` is
    how many lanes of order the topic has: a record with a key goes to
    `partitions.partition_of(key, count)`, on every backend. None takes the count of a topic that
    exists, and the adapter's default (1, where the broker has none of its own) for one that
    does not; a count other than that of the existing topic is a `ConfigurationError` (on a broker
    where an operator may add partitions: one that is larger). `retention`
    is in seconds, `retention_bytes` in bytes of the whole topic; None leaves them to the
    adapter's options and the broker.
    """

    name: str
    native: str
    create: bool = True
    partitions: int | None = None
    retention: float | None = None
    retention_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeSpec:
    """A subscription to open.

    `group` is None for broadcast. `native_group` is the name the broker shall know the group by:
    `f"{topic}.{group}"` unless mapped (queue, durable consumer, consumer group). `start` applies
    only when the group does not exist yet. `ack_deadline`, in seconds, is the lease: an unsettled
    record that is not extended for this long goes to another member (where the broker has no
    leases, when its consumer is gone). `prefetch` is how many records the core means to hold
    unsettled at a time; without one of the user's, its credit may grow beyond that, and the driver
    must not stop there. It begins with `first` (0: with `prefetch`), and `limit` of `receive` says
    how it goes on: a driver whose broker pushes takes no more than that from the other members.
    `prefetch_bytes` is how large all of them may be together: the core counts them when they have
    come, and a driver asks for no more than that at once where its broker can be told.
    `member` is unique to this subscription.

    `ordered` asks for the order of partitions: each is read by one member of the group at a time,
    from its first unsettled record on, and handed to another member only when nothing of it is
    in a handler any more. Partitions are spread over the members. A group is ordered or not from
    its first subscription on; asking for the other is a `ConfigurationError`, unless the broker can
    serve both. `ordered.OrderedSource` does all that on a broker that has only logs and
    compare-and-set. `revoke` is for the sources that do it themselves: await it before giving up
    partitions (`gone=False`: it returns when their handlers have come to an end and the rest has
    been dropped, within `ack_deadline`), and when they have been lost (`gone=True`: handlers are
    cancelled).

    `place` is for broadcast: None for the first source of a subscription, then what `Source.place`
    of an earlier one said. The new source begins there, whatever `start` says. If what follows is
    no longer kept, a reader goes on with the oldest there is and calls `skipped`, once, with the
    positions before and after the gap: of the last record it has read, and of the first there is
    (empty if there is none). The core logs it. A topic that was deleted and made anew since is read
    from its beginning.

    `dropped` is for sources that can tell: call it with records that were acked (or whose copy or
    letter was stored) and of which the broker has not heard, as their assignment or channel had
    gone. The core acks them at once, should they be delivered to this subscription again; too many
    do no harm.

    `unreadable` is for what a source cannot give to a handler: call it, within `receive`, with such
    records and the reason. The core rejects them: each becomes a letter, and is settled.
    """

    topic: TopicSpec
    group: str | None
    native_group: str
    start: Start
    ack_deadline: float
    prefetch: int
    member: str
    first: int = 0
    prefetch_bytes: int = MAX_BYTES
    create: bool = True
    ordered: bool = False
    revoke: Revoke = _nothing_to_revoke
    place: object = None
    skipped: Skipped = _nothing_skipped
    dropped: Dropped = _nothing_dropped
    unreadable: Unreadable = _nothing_unreadable


class Record:
    """A message on its way to the broker.

    `headers` are final: names carry the binding's prefix, values are text, nothing needs
    escaping beyond what the transport itself asks for. `id` is the logical id. `unique` is the
    broker-level id for deduplication (`Nats-Msg-Id` and the like): equal for repeated attempts at
    the same publish, and for what the same source publishes with the same id; different for
    every copy. It is plain ASCII. Send it where the broker deduplicates; never
    read it back. `deliver_at`, seconds since the epoch, keeps the record from every group and
    reader until then: it is stored durably at once, and enters the topic when it is due, never
    earlier. Its outcome is None then.

    `headers` is `common` and `own` together. Most records that a process publishes have the very
    same `common` object, which is never changed: a driver in a hurry keeps its encoded form, by
    identity, and encodes only the record's `own` headers, whose names are others.

    `original` is there where the record is a copy of a message that came from a broker (a retry, a
    dead letter, a redrive): what text cannot say (no body at all, a key or a header that is not
    text, a header that came twice) a driver takes from it, for all that is still the same in both.
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
        common: Mapping[str, str] = NO_HEADERS,
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
    """The outcome of a record that is not stored, because one with the same `unique` is there.

    Its text is the position of that one, empty if unknown.
    """

    __slots__ = ()


Outcome = str | BaseException | None
"""The fate of one record: the error that kept it out, or its position as text, None if unknown;
a `Duplicate` where the broker had it already."""


class Due(NamedTuple):
    """When a record that failed may be handed to a handler again.

    `at` is wall-clock time, in seconds since the epoch: another host may own the record by then.
    `delay`, in seconds, is the whole wait that was asked for, and bounds what is left of it, so a
    clock that was set back, or is behind, adds at most that. A clock that is ahead ends the wait
    early by as much.
    """

    at: float
    delay: float

    def left(self, now: float) -> float:
        """Return how many seconds of the wait are left at the wall-clock time `now`."""
        return max(0.0, min(self.delay, self.at - now))


class Received:
    """A message as it came from the broker, with what settles it.

    `headers` as on the wire, values as text (bytes that are not UTF-8 decoded with
    `backslashreplace`); it may be a lazy mapping. `key` is None unless `Binding.native_key`.
    `position` names the record within the topic for ever, in the broker's words: it becomes the id
    of a message that carries none. `time` is the broker's own timestamp, seconds since the epoch.
    `redeliveries` is the broker's count of earlier deliveries of this very copy to this group (0
    the first time; 0 always where the broker cannot count): the attempt is the copy's header (1
    without one) plus this. `partition` is where an ordered source read it, and
    `not_before` the `Nack.due` of the last `Source.keep` of this record, whichever member called
    it; None without one. `token` belongs to the source.
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
        """Return one header; a driver that finds it without reading the others answers itself."""
        return self.headers.get(name)

    @property
    def published(self) -> bool:
        """Whether it comes from where publishers write, and is no copy that a `nack` or `release`
        put back for its group alone.

        Any publisher may have written any header there, so the engine does not believe those that
        only copies have (`ATTEMPT`). False where a driver cannot tell the two apart.
        """
        return False

    @property
    def fresh(self) -> bool:
        """Whether this is a first delivery of what was published for all groups.

        Asked of every message: a driver that sees it faster than by its headers answers itself.
        """
        headers = self.headers
        return (
            self.redeliveries == 0
            and headers.get(ATTEMPT) is None
            and headers.get(ONLY_GROUP) is None
        )


class Published(Received):
    """A message as it stands in its topic, where any publisher may have written it."""

    __slots__ = ()

    @property
    def published(self) -> bool:
        return True


@dataclass(slots=True)
class Nack:
    """A record that failed and shall come back to its group.

    It must not be delivered before `delay` seconds have passed, and its next delivery must show
    `attempt`. A driver whose broker counts natively may leave the counting to it when
    `native_attempt == attempt` (the number the next delivery would show by the broker's count
    alone). Otherwise it settles `received` by putting back `copy`, whose headers already say
    `attempt`; the copy goes to this group only, never to the whole topic. For a `release` the
    core passes `delay` 0 and the attempt unchanged. `due` is for `Source.keep`: the end of the
    delay, None without one.
    """

    received: Received
    delay: float
    attempt: int
    native_attempt: int
    copy: Record
    due: Due | None = None


@dataclass(slots=True)
class Begun:
    """A record whose handler begins: if it is not settled, its next delivery shows `attempt`."""

    received: Received
    attempt: int


@dataclass(slots=True)
class Rejected:
    """A record that shall never be delivered to its group again, and its dead letter."""

    received: Received
    letter: Record


class SourceLost(Exception):
    """Raised by `Source.receive` when this source can never deliver again; the core opens another.

    For example: the channel was closed, the assignment is gone for good, the queue was deleted.
    Chain the client's error as the cause.
    """


class Source(ABC):
    """One live subscription of one member.

    For `group=None` the core uses only `receive`, `place` and `aclose`: a broadcast reader has
    nothing to settle. It remembers its place itself: after a reconnect, and after a `receive` that
    raised or was cancelled, it goes on behind the last record that a `receive` has returned. When
    the core opens another source instead, that one begins at the same place.

    Settlement calls may overlap each other and `receive`. Each takes records in any order and
    any mix, also ones already settled or lost: a token whose lease, channel or assignment has
    gone is dropped silently and never applied to someone else's delivery. A settlement that
    raises may be repeated by the core with the same records, so it must be safe to repeat: a
    duplicate is possible, a loss is not. Whatever has to be copied is copied, confirmed by the
    broker, and only then is the original settled.
    """

    @abstractmethod
    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """Return up to `limit` records, waiting at most `wait` seconds (≤ 2) for the first.

        Return early with what is there rather than wait to fill up; return an empty sequence when
        `wait` has passed. Called by one task, again and again while there is credit; also with
        `limit=0` now and then while there is none (every 2 s at most): keep the session alive
        then, and return nothing. Records are returned in the broker's order. While the source is in
        use, the core cancels a read only when it is half a minute late: then it gives the
        source up as well, as a cancelled read may lose what it had taken.

        An error leaves the source usable: the core waits and calls again, and the driver
        reconnects then. Raise `SourceLost` where only a new source can help.
        """

    @property
    def place(self) -> object:
        """Where a broadcast reader is: behind all that `receive` has returned so far.

        In every partition, also in those of which nothing has been read: a reader that began at
        the end of a topic goes on from there. The core keeps it, and gives it back as
        `SubscribeSpec.place` to the source that replaces this one. It does not look inside, so it
        may be anything that later reads do not change. Asked when the source is new, after each
        `receive` that returned something, and when it has raised `SourceLost`. The groups' sources
        leave it None.
        """
        return None

    stall: float = 30.0
    """After how many seconds without a delivery, while there is credit, `undelivered` is asked."""

    async def undelivered(self) -> object:
        """Return what should be on its way to this member; None if nothing is, or it is not known.

        The watchdog's: it opens another source when two answers are equal, at least `stall` seconds
        apart, and nothing was delivered in between. So the answer says how far the group has come,
        and leaves out what another member has to deliver and what is not due. For sources to which
        the broker or the client library pushes; the default is for those that ask the broker in
        each `receive`, which cannot go silent.
        """
        return None

    silence: float | None = None
    """For how many seconds the broker leaves to a silent process what it has.

    For sources that hang on a connection or a session of a client that keeps itself alive in this
    process's event loop. When the loop has stood still for longer, the core hands out nothing more
    of this source and opens another one. None where deliveries have leases of their own: there
    `SubscribeSpec.ack_deadline` says it.
    """

    def certain_until(self) -> float:
        """Return until when all records that were handed out are certainly this member's.

        A monotonic time; asked of ordered sources without `silence`, each time it has passed.
        """
        return math.inf

    def owns(self, record: Received) -> bool:
        """Whether `record` is still this member's to hand to a handler; of ordered sources only."""
        return True

    def may_be_again(self, record: Received) -> bool:
        """Whether `record` may have been delivered to this group before.

        Asked of one whose position, source, id and time are those of a message that was finished
        here when its lease had gone. Override it where a position is not one message's for ever.
        """
        return True

    @abstractmethod
    async def ack(self, records: Sequence[Received]) -> None:
        """These are done. Return once the broker has been told, or will be soon by itself.

        A source may gather acks (Kafka's commits its offsets some moments later): then a crash
        repeats what was not sent, and closing sends it.
        """

    @abstractmethod
    async def nack(self, nacks: Sequence[Nack]) -> None:
        """These failed and come back, see `Nack`. Return once that is durable."""

    @abstractmethod
    async def release(self, nacks: Sequence[Nack]) -> None:
        """Give these back at once, uncounted: not an attempt (shutdown, pause, cancellation).

        Each item says the attempt to show, which is the one it already has.
        """

    async def reject(self, rejected: Sequence[Rejected], driver: Driver) -> None:
        """Store each letter durably, then settle its record. Return once both are done.

        The default publishes the letters, then acks what was confirmed, and raises the first
        failure. Override it where the broker does both atomically.
        """
        outcomes = await driver.publish([item.letter for item in rejected])
        confirmed = [
            item.received
            for item, outcome in zip(rejected, outcomes, strict=True)
            if not isinstance(outcome, BaseException)
        ]
        if confirmed:
            await self.ack(confirmed)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def extend(self, records: Sequence[Received]) -> None:  # noqa: B027
        """These are still being worked on: their leases begin anew.

        Called every third of `ack_deadline` for everything unsettled, in handlers or buffered. Must
        not take back a record that another member already has. The default does nothing: right
        where the broker keeps a record for as long as its consumer lives.
        """

    counts_starts: bool = False
    """Whether it counts the starts of handlers: then `known_attempt` and `begin` are implemented.

    A broker counts what it has sent to a consumer. When a process dies, all that it had fetched is
    delivered again with a higher count, though most of it was in no handler.
    """

    def known_attempt(self, record: Received) -> int | None:
        """Return the attempt of a record that another consumer had and never settled.

        The last one that `begin` made durable, or else what it would be without that delivery.
        None for all other records: their attempt is their header plus `redeliveries`.
        """
        return None

    async def begin(self, begun: Sequence[Begun]) -> None:  # noqa: B027
        """Make durable that the handlers of these begin; the records stay unsettled and ours.

        Awaited before the handler of what has a `known_attempt`; of all others the core tells only
        those that have been in a handler for some time, many at once. What is no longer ours is
        dropped. A settlement ends what is noted here.
        """

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        """As `extend`, while this source's event loop stands still: in another thread and loop.

        So it must not use what belongs to the source's own loop; a connection of its own, opened
        and closed here, will do. Return whether the leases have begun anew. The default returns
        False, and is not asked again: right where a lease hangs on the one connection.
        """
        return False

    async def keep(self, nacks: Sequence[Nack]) -> None:  # noqa: B027
        """These failed and stay with this member: ordered sources only.

        On an ordered source the core calls neither `nack` nor `release`: a record that failed holds
        up its key, and is tried again here, after `delay`. Make durable that its next delivery by
        the broker, to the member that owns the partition then, shows `attempt`, and `due` as
        `Received.not_before`: the core waits for the rest of the delay before it hands the record
        out. The record stays unsettled and ours. Of two calls the later one counts. The default
        does nothing: a crash then forgets attempts and delays.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Leave. What is unsettled goes to other members as soon as the broker can manage it.

        The core has flushed or given up all settlements. Must release every task and socket even
        when the server is dead, and when cancelled on the way. Calling it twice is harmless.
        """


class Driver(ABC):
    """One connection to one broker.

    `options` is a frozen dataclass with a default for every field: the URL's query options, by
    name, validated by the core before `open`. `errors` maps every exception the client library
    exports to anymq's classes. `binding` names the wire headers. `max_batch` and `max_batch_bytes`
    bound one `publish` call; a single larger record still comes, alone, up to `max_body` bytes.
    `overlap` is how many calls of `publish` may be under way at a time.
    `tls_schemes` are those of its URL schemes that encrypt: credentials over any other are refused
    off loopback. `client_parts` lists the private attributes of the client library that the adapter
    uses: the core refuses a release that lacks one of them. `client_loggers` names the loggers of
    the client library: what these repeat in an outage is logged once a minute. A driver whose
    `capabilities.extend` is native has leases of its own; for the others the core gives back what
    is neither settled nor extended in time.
    """

    capabilities: ClassVar[Capabilities]
    errors: ClassVar[ErrorTable]
    binding: ClassVar[Binding] = Binding()
    options: ClassVar[type[Any]]
    max_batch: ClassVar[int] = 500
    overlap: ClassVar[int] = 1
    max_batch_bytes: ClassVar[int] = 4 * 1024 * 1024
    max_body: ClassVar[float] = math.inf
    tls_schemes: ClassVar[frozenset[str]] = frozenset()
    client_parts: ClassVar[Parts] = MappingProxyType({})
    client_loggers: ClassVar[tuple[str, ...]] = ()
    clock: Clock = REAL
    """The engine's clock, set by the core after `open`; an adapter whose timers are its own (not
    the broker's) takes the time from here, so that tests can move it."""

    @classmethod
    @abstractmethod
    async def open(cls, url: URL, options: Any, *, timeout: float) -> Self:
        """Connect, prove it with one answered request, and return the driver.

        Fails within `timeout` seconds if no host answers or the credentials are refused; leaves
        nothing open then. Afterwards a lost connection is re-established by the next call that
        needs it (or by the client in the background), for ever.
        """

    @property
    @abstractmethod
    def native(self) -> Any:
        """The client library's own object, for what anymq does not cover."""

    @property
    def obstacle(self) -> BaseException | None:
        """Why the broker takes no messages now, where it has said so: what a publish that times out
        meanwhile gives as its cause."""
        return None

    @abstractmethod
    async def ping(self) -> None:
        """Return after one answered round trip; raise if the broker does not answer."""

    @abstractmethod
    async def declare(self, topic: TopicSpec) -> None:
        """Make `topic` ready for `publish` and `subscribe`, durably; remember it by `topic.name`.

        Safe to call again, and from several processes at once. Called before the first record of a
        topic, and again after the broker said that the topic does not exist.
        """

    @abstractmethod
    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Store `records`, several topics mixed, and return one outcome for each, in order.

        Return when the broker has confirmed (or refused) every one as durably as it can. Records of
        one topic and key keep their order. An error of one record is returned in its place; raise
        only when the fate of all is the same. The core makes at most `overlap` calls at a time, of
        which no two have a key in common; sources may add calls of their own for copies. The core
        may stop waiting (its deadline), but does not cancel the call.
        """

    @abstractmethod
    async def subscribe(self, spec: SubscribeSpec) -> Source:
        """Open a subscription. On return the group exists durably at its place: what is published
        from now on will be delivered to it, even if this process dies at once."""

    # Looking and operating: what `Broker.admin` and replay stand on. `topic` has been declared,
    # or is one that the operator made.

    def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        """Yield what the topic holds from `start` to its end as of this call, and stop there.

        Nothing is settled and no group is touched. Records of one partition come in order. Delayed
        records that are not due are not part of it. Raises if the topic does not exist.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot browse")

    async def topics(self) -> Sequence[str]:
        """Return the native names of the topics on the broker, without auxiliary ones."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot list topics")

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        """Return the native names of the topic's groups."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot list groups")

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        """Return what the broker knows of the topic; None for what it does not. Never a guess."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot describe")

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        """Return what the broker knows of the group; raises `NotFound` if there is none."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot describe")

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        """Let the group begin anew at `to`, as if it had been made with that start.

        What was in flight, waiting for a retry, or done is forgotten: the log decides. Raises
        `NotFound` without such a group and `StateError` while it has live members.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot seek")

    async def delete_topic(self, topic: TopicSpec) -> None:
        """Delete the topic, its groups, and everything auxiliary to them; no error if absent."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot delete topics")

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        """Delete the group and everything auxiliary to it; no error if absent.

        Raises `StateError` while it has live members.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot delete groups")

    async def purge(self, topic: TopicSpec) -> None:
        """Delete the topic's messages, for every group; also those that are delayed or waiting."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot purge")

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection. All sources are closed already. Must release every task and socket
        also when the server is dead, and when cancelled on the way. Calling it twice is
        harmless.
        """
