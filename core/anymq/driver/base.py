"""`Driver`: one connection to one broker, the main interface of an adapter.

An adapter moves records to and from a broker, and settles them. It never wraps errors, counts
attempts, encodes payloads or applies middleware, and it never backs off, because the core does that
once for every backend. It may reconnect, and repeat a call within that call's deadline. Exceptions
of the client library propagate unchanged, and `Driver.errors` maps them. It logs at debug level,
and above only events that need an operator.

All methods run on one event loop. The core calls no method of a driver or source after `aclose`,
unless stated otherwise. No method may swallow `CancelledError`. Every method must end within a
bounded time when the server is dead (set the client's own timeouts). The core also gives each
call a deadline, and cancels it on `aclose`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import ErrorTable, UnsupportedOperation
from ..url import URL
from .capabilities import Capabilities
from .clock import Clock
from .records import Outcome, Received, Record
from .source import Reader
from .specs import Binding, Start, SubscribeSpec, TopicSpec

if TYPE_CHECKING:
    from .checks import Check, Endpoint
    from .client_parts import Parts
    from .info import GroupInfo, TopicInfo
    from .listener import Listener


class Driver(ABC):
    """One connection to one broker.

    A driver whose `capabilities.extend` is native has leases of its own. For the others the core
    redelivers records that are neither settled nor extended in time.
    """

    capabilities: ClassVar[Capabilities]
    """The abilities of the backend, with their caveats."""
    errors: ClassVar[ErrorTable]
    """Maps every exception that the client library exports to a class of `anymq.errors`."""
    binding: ClassVar[Binding] = Binding()
    """The header names of this backend."""
    options: ClassVar[type[Any]]
    """A frozen dataclass with a default for every field: the URL's query options, by name. The core
    validates them before `open`."""
    max_batch: ClassVar[int] = 500
    """The most records in one `publish` call."""
    max_batch_bytes: ClassVar[int] = 4 * 1024 * 1024
    """The most bytes of bodies in one `publish` call; a single larger record is passed alone."""
    max_body: ClassVar[float] = math.inf
    """The largest body that the backend can store, in bytes."""
    overlap: ClassVar[int] = 1
    """The most calls of `publish` that run at a time."""
    name_option: ClassVar[str | None] = None
    """The option with the name that the broker shows for this client. Unless the URL sets it, the
    core does: the application, the host, the process and a random part, in A-Z a-z 0-9 . _ -"""
    tls_schemes: ClassVar[frozenset[str]] = frozenset()
    """The URL schemes that encrypt. Credentials over any other are refused off loopback."""
    client_parts: ClassVar[Parts] = MappingProxyType({})
    """The private attributes of the client library that the adapter uses. The core refuses a
    release that lacks one of them."""
    client_loggers: ClassVar[tuple[str, ...]] = ()
    """The client library's loggers. A line that they repeat in an outage is logged every 60 s."""
    grants: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The permission that each step of `operating.trial` needs, in the words of this backend."""
    clock: Clock
    """The clock given to `open`. An adapter that keeps timers itself, instead of the broker, reads
    the time from here, so that tests can advance it."""

    @classmethod
    @abstractmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        """Connect, prove it with one answered request, and return the driver.

        Fails within `timeout` seconds if no host answers or the credentials are refused, and then
        leaves nothing open. Later a lost connection is re-established by the next call that needs
        it, or by the client in the background, retrying indefinitely. The driver keeps `clock`.
        """

    @property
    @abstractmethod
    def native(self) -> Any:
        """The client library's own object, for what anymq does not cover."""

    @property
    def obstacle(self) -> BaseException | None:
        """The reason why the broker accepts no messages now; None if it has given none.

        It becomes the cause of a publish that times out meanwhile.
        """
        return None

    @abstractmethod
    async def ping(self) -> None:
        """Return after one answered round trip; raise if the broker does not answer."""

    @abstractmethod
    async def declare(self, topic: TopicSpec) -> None:
        """Make `topic` ready for `publish` and `subscribe`, durably; keep the spec by its `name`.

        Safe to call again, and from several processes at once. Called before the first record of a
        topic, and again after the broker has reported that the topic does not exist.
        """

    @abstractmethod
    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Store `records`, several topics mixed, and return one outcome for each, in order.

        Return when the broker has confirmed (or refused) every one as durably as it can. Records of
        one topic and key keep their order. Return the error of one record as its outcome; raise
        only an error of all records. The core makes at most `overlap` calls at a time, of which no
        two have a key in common; sources may add calls of their own for copies. The core may stop
        waiting at its deadline, but does not cancel the call.
        """

    @abstractmethod
    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        """Open a subscription: an `OrderedSource` if `spec.ordered`, a `Source` of any other group,
        a `Reader` for broadcast.

        On return the group and its start position exist durably. Messages published from then on
        are delivered to it, even if this process dies at once.
        """

    # For diagnosis.

    @classmethod
    def endpoints(cls, url: URL, options: Any) -> Sequence[Endpoint]:
        """Return the addresses of `url`, with the TLS that `open` would use; none without a server.

        Raises `ConfigurationError` as `open` does, and does no I/O but reading certificates.
        """
        return ()

    async def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        """Yield what the server tells of itself: version, durability, limits, clock.

        The names of the checks are unique. The core itself tries the permissions, with `grants`.
        `scratch` is a topic that does not exist: a check may create it, and then deletes it. It is
        None where operators create topics. Nothing else on the server changes. Each check ends
        within a bounded time, and errors of the server become checks (see `inspect`).
        """
        nothing: tuple[Check, ...] = ()
        for check in nothing:
            yield check

    # For `Broker.admin` and replay. `topic` has been declared, or an operator has created it.

    def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        """Yield the topic's records from `start` to its end as of this call, and stop there.

        Nothing is settled and no group is touched. Records of one partition are yielded in order,
        without delayed records that are not due. Raises if the topic does not exist.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot browse")

    async def topics(self) -> Sequence[str]:
        """Return the native names of the topics on the broker, without auxiliary ones."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot list topics")

    async def groups(self, topic: TopicSpec) -> Sequence[str]:
        """Return the native names of the topic's groups."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot list groups")

    async def describe_topic(self, topic: TopicSpec) -> TopicInfo:
        """Return the topic's statistics. A value is None if the broker does not know it."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot describe")

    async def describe_group(self, topic: TopicSpec, native_group: str) -> GroupInfo:
        """Return the group's statistics; raises `NotFound` if there is none.

        The core fills in `topic` and `group`, and keeps the `MOST_POISON` entries of `poison`
        with the most attempts.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot describe")

    async def seek(self, topic: TopicSpec, native_group: str, to: Start) -> None:
        """Reset the group to `to`, as if it had been created with that start position.

        Discard deliveries in flight, waiting retries and settlements: the group reads the log from
        `to`. Raises `NotFound` if the group does not exist, `StateError` while it has live members.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot seek")

    async def delete_topic(self, topic: TopicSpec) -> None:
        """Delete the topic, its groups, and all their auxiliary objects; no error if absent."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot delete topics")

    async def delete_group(self, topic: TopicSpec, native_group: str) -> None:
        """Delete the group and all its auxiliary objects; no error if absent.

        Raises `StateError` while it has live members.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot delete groups")

    async def purge(self, topic: TopicSpec) -> None:
        """Delete the topic's messages for every group, delayed and waiting ones as well."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot purge")

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection; all sources are closed already. A second call does nothing.

        Release every task and socket, also when the server is dead, and when this is cancelled.
        """
