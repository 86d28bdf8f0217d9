"""`Binding`, `TopicSpec` and `SubscribeSpec`: the arguments of a driver's methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

MAX_BYTES = 32 * 1024 * 1024
"""The most bytes of bodies that a subscription holds unsettled, by default."""

Start = str | datetime
"""`"earliest"`, `"latest"`, a position, or an aware datetime.

A position (`Received.position`, an `Outcome`) starts with its record, and in the other partitions
with the first record of the same age or younger. A datetime starts with the first record of that
time or later. The driver raises `ConfigurationError` for any other text.
"""

CONTROL = "anymq-"
"""The prefix of the headers that anymq writes for itself."""

ATTEMPT = "anymq-attempt"
"""The header of a copy with the number of its attempt."""

ONLY_GROUP = "anymq-only-group"
"""The header of a message that was redriven to one group: other groups skip it."""

BROADCAST_ONLY = "(broadcast)"
"""The value of `ONLY_GROUP` on a message redriven to broadcast readers; no group has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Mapping from CloudEvents attributes to this backend's native headers.

    An attribute `id` becomes the header `prefix + "id"`. `content_type` names the header that
    carries the body's media type, or is None where the backend has a native property for it
    (the driver then maps `Record.content_type` and `Received.content_type`). `percent` selects the
    percent-encoding of the CloudEvents NATS and HTTP bindings. `native_key` is True if the backend
    carries the key itself; otherwise the core puts it into the `partitionkey` attribute.
    """

    prefix: str = "ce-"
    """The prefix of attribute headers. Received headers match it in any case."""
    content_type: str | None = "content-type"
    percent: bool = False
    native_key: bool = False
    id: str = field(init=False)
    """The name of the header of the attribute `id`."""
    source: str = field(init=False)
    """The name of the header of the attribute `source`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.prefix + "id")
        object.__setattr__(self, "source", self.prefix + "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic to make ready.

    `native` is the name on the broker: equal to `name`, unless the user mapped the topic to an
    existing one. `create` is False where the operator creates topics (`declare=false`, or a mapped
    name): then the driver only remembers the spec.

    `partitions` is the topic's number of partitions: a record with a key goes to
    `partition_of(key, partitions)`, on every backend. None uses the count of an existing topic,
    and the adapter's default (1, where the broker has none of its own) for a new one. A count
    other than that of the existing topic is a `ConfigurationError` (on a broker where an operator
    may add partitions: one that is larger).

    `retention` is in seconds, `retention_bytes` in bytes of the whole topic; None leaves them to
    the adapter's options and the broker.
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

    `group` is None for broadcast. `native_group` is the group's name on the broker (of a queue,
    durable consumer or consumer group): `f"{topic}.{group}"` unless mapped. `start` applies only
    when the group does not exist yet; a datetime is aware. `create` is False where the operator
    makes groups. `member` is unique to this subscription; it begins with the client's name, and has
    at most 160 characters, of A-Z a-z 0-9 . _ -

    `ack_deadline`, in seconds, is the lease: an unsettled record that is not extended for this
    long is redelivered to another member. A broker without leases redelivers it when its consumer
    has disconnected.

    `prefetch` is the number of records that the core intends to hold unsettled. If the user set
    none, the core's credit may grow beyond it, and the driver must not stop there. Credit starts
    with `first` (0: with `prefetch`), and continues with `limit` of each `receive`. A driver whose
    broker pushes takes no more than that from the other members. `prefetch_bytes` bounds the size
    of all unsettled records. The core counts them on arrival; a driver whose broker accepts such a
    bound requests no more than that at once.

    `ordered` requests an `OrderedSource`: one member at a time reads a partition, from its first
    unsettled record on. A partition moves to another member only when none of its records is in a
    handler. Partitions are spread over the members. The first subscription of a group makes it
    ordered or not; the other kind is a `ConfigurationError`, unless the broker can serve both.

    `position` is for broadcast: None for the first reader of a subscription, then
    `Reader.position` of the earlier one. The new reader starts there and ignores `start`. If the
    records after it are no longer kept, it starts at the oldest there is, and calls
    `Listener.skipped`. It reads a topic that was deleted and recreated from its beginning.
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
    position: object = None
