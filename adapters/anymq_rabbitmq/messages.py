"""Between anymq's records and AMQP messages."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from anymq.driver import ATTEMPT, CONTROL, Published, Received, Record, is_control_header, new_id

from . import wire
from .arrived import arrived
from .consumer import Delivery
from .encoding import TIME, TIME_ENTRY, Encoder
from .publisher import Outgoing

MARKER = "anymq-marker"
_PARTITION = re.compile(rb"p(\d{1,6})(?:\.|$)")
REDELIVERIES = "anymq-redeliveries"
OFFSET = "x-stream-offset"
COUNT = "x-delivery-count"
ACQUIRED = "x-acquired-count"

# The server routes by these two headers: an application's are kept apart from them.
_ROUTES = ("CC", "BCC")
_ESCAPE = "anymq-header-"
_ESCAPE_BYTES = _ESCAPE.encode()
# What the server itself has put on a message, or will.
_BROKER = (
    "x-death",
    "x-first-death-",
    "x-last-death-",
    COUNT,
    ACQUIRED,
    OFFSET,
)
_BROKER_BYTES = tuple(name.encode() for name in _BROKER)
_NOT_COPIED = frozenset({b"CC", b"BCC", REDELIVERIES.encode()})
# Where copies come from: straight to their queue, and out of the ladder of delays.
_DIRECT, _LADDER = b"\x00", b"anymq._delay.v1"
PREFIX = "cloudEvents:"
"""Before the names of attributes. CloudEvents' binding for AMQP has two spellings: all SDKs read
this one, some the other one as well."""
# The other one, and that of anymq before 0.1.0.
_SPELLINGS = ("cloudEvents_", "ce-")
_SPELLINGS_BYTES = tuple(name.encode() for name in _SPELLINGS)
_ID, _SOURCE = PREFIX + "id", PREFIX + "source"


def outgoing(record: Record, *, exchange: str, routing_key: str) -> Outgoing:
    """The message for `record`."""
    original = None if record.original is None else record.original.native
    if isinstance(original, Delivery):
        return Outgoing(exchange, routing_key, _copied(record, original), record.body)
    properties = _encoder.properties(record)
    if properties is None:
        properties = _escaped(record)
    return Outgoing(exchange, routing_key, properties, record.body)


def _is_plain(name: str) -> bool:
    return name not in _ROUTES and not name.startswith(_BROKER)


def _escaped(record: Record) -> bytes:
    headers: Mapping[str, str] = record.headers
    headers = {
        _ESCAPE + name if name in _ROUTES else name: value
        for name, value in headers.items()
        if not name.startswith(_BROKER)
    }
    now = time.time_ns() // 1_000_000
    return wire.encode(
        headers,
        content_type=record.content_type,
        message_id=record.id,
        timestamp=now // 1000,
        # The property has seconds only.
        more=TIME_ENTRY % now,
    )


def _copied(record: Record, original: Delivery) -> bytes:
    """The properties of a copy: the headers of `record`, and all else as it came.

    Of what is the same in both, the very bytes; headers of any type, and as often as they came. A
    copy does not expire: a letter would be lost, and a delay come early.
    """
    fields = wire.split(original.properties)
    now = time.time_ns() // 1_000_000
    fields[wire.HEADERS] = wire.table(_copied_headers(record, fields.get(wire.HEADERS), now))
    fields[wire.DELIVERY_MODE] = b"\x02"
    fields[wire.TIMESTAMP] = (now // 1000).to_bytes(8, "big")
    if wire.text(fields.get(wire.MESSAGE_ID)) is None and len(record.id.encode()) < 256:
        fields[wire.MESSAGE_ID] = wire.short(record.id)
    kind = record.content_type
    if kind != wire.text(fields.get(wire.CONTENT_TYPE)):
        fields.pop(wire.CONTENT_TYPE, None)
        if kind is not None and len(kind.encode()) < 256:
            fields[wire.CONTENT_TYPE] = wire.short(kind)
    if record.body != original.body:
        fields.pop(wire.CONTENT_ENCODING, None)
    fields.pop(wire.EXPIRATION, None)
    fields.pop(wire.USER_ID, None)  # The server would compare it with ours.
    return wire.join(fields)


def _copied_headers(
    record: Record, table: bytes | None, now: int
) -> list[tuple[bytes, int, bytes]]:
    came: dict[str, list[tuple[bytes, int, bytes]]] = {}
    for entry in wire.entries(table or b"\x00\x00\x00\x00"):
        came.setdefault(entry[0].decode("utf-8", "backslashreplace"), []).append(entry)
    texts, headers = wire.headers(table), record.headers
    found = [(TIME.encode(), *wire.long(str(now)))]
    for name, value in headers.items():
        if name in _ROUTES:
            found.append(((_ESCAPE + name).encode(), *wire.long(value)))
        elif name in came and texts.get(name) == value:
            found += came[name]
        elif not name.startswith(_BROKER):
            found.append((name.encode(), *wire.long(value)))
    for name, entries in came.items():
        # What is no header for anymq, though one for the publisher's own consumers.
        kept = is_control_header(name) and not name.startswith((CONTROL, *_BROKER))
        if kept and name not in headers and not name.endswith("datacontenttype"):
            found += entries
    return found


_encoder = Encoder(_is_plain)


def routing_key(record: Record, partition: int | None = None) -> str:
    """The key, or the topic where there is none or it is too long to be one.

    In a topic with several partitions it comes behind the partition, or is left out.
    """
    key = record.key
    if partition is None:
        return key if key and len(key.encode()) < 256 else record.topic
    lane = f"p{partition}"
    routed = f"{lane}.{key}"
    return routed if key and len(routed.encode()) < 256 else lane


def partition(delivery: Delivery) -> int | None:
    """Which partition the routing key names; None if it is another publisher's."""
    found = _PARTITION.match(delivery.routing_key[1:])
    return int(found[1]) if found else None


def received(
    delivery: Delivery,
    *,
    token: Any,
    position: str | None = None,
    partition: int = 0,
    nameless: Callable[[Delivery], str] | None = None,
) -> Received | None:
    """The record of `delivery`; None for a message that nothing identifies, unless `nameless`
    has a name for it.

    Without `position` it is the message's id, as its publisher set it: RabbitMQ gives messages in
    a queue no name of their own.
    """
    if position is None and (quick := arrived(delivery, partition)) is not None:
        quick.token = token
        return quick
    fields = wire.split(delivery.properties)
    headers = _headers(fields.get(wire.HEADERS))
    name = position or wire.text(fields.get(wire.MESSAGE_ID)) or headers.get(_ID)
    if name is None:
        if nameless is None:
            return None
        name = nameless(delivery)
    copied = is_copy(delivery)
    # What was copied out of the log, or given a name, is still as it was published.
    kind = Received if copied and ATTEMPT in headers else Published
    return kind(
        delivery.body,
        headers,
        position=name,
        token=token,
        native=delivery,
        content_type=wire.text(fields.get(wire.CONTENT_TYPE)),
        time=_time(headers.pop(TIME, None), fields.get(wire.TIMESTAMP)),
        redeliveries=_redeliveries(headers, redelivered=delivery.redelivered, copied=copied),
        partition=partition,
    )


def is_copy(delivery: Delivery) -> bool:
    """Whether it was sent to its queue alone, as anymq's copies are, and not to a topic."""
    exchange = delivery.exchange
    return exchange == _DIRECT or exchange.startswith(_LADDER, 1)


def came_before(record: Received) -> bool:
    """Whether the queue has delivered this very copy before."""
    delivery: Delivery = record.native
    return bool(delivery.redelivered)


def header(delivery: Delivery, name: str) -> str | None:
    """One header of `delivery`, as text."""
    return wire.headers(wire.split(delivery.properties).get(wire.HEADERS)).get(name)


def identity(delivery: Delivery) -> str | None:
    """What `received` takes for the position of a message in a queue."""
    fields = wire.split(delivery.properties)
    return wire.text(fields.get(wire.MESSAGE_ID)) or _headers(fields.get(wire.HEADERS)).get(_ID)


def fingerprint(delivery: Delivery) -> str:
    """A name for a message that bears none: the same each time, and for each one like it."""
    properties = _properties(wire.split(delivery.properties), _NOT_COPIED, {})
    return hashlib.sha256(properties + delivery.body).hexdigest()[:32]


def stamp(delivery: Delivery) -> tuple[float | None, float]:
    """When the message was published, and how exactly that is known; in seconds."""
    fields = wire.split(delivery.properties)
    exact = wire.headers(fields.get(wire.HEADERS)).get(TIME)
    return _time(exact, fields.get(wire.TIMESTAMP)), 0.001 if exact else 1.0


def offset(delivery: Delivery) -> int:
    """The place of `delivery` in the log it was read from."""
    return int(header(delivery, OFFSET) or "")


def marker(delivery: Delivery) -> str | None:
    """The name of the marker that `delivery` is; None if it is a message.

    A marker is sent to the stream itself: what was published to a topic is none.
    """
    if MARKER.encode() not in delivery.properties or delivery.exchange != _DIRECT:
        return None
    return header(delivery, MARKER)


def message_to(queue: str, body: bytes) -> Outgoing:
    """A message of anymq's own for `queue`."""
    properties = wire.encode({}, content_type=None, message_id=new_id(), timestamp=0)
    return Outgoing("", queue, properties, body)


def event_id(delivery: Delivery) -> tuple[str, str] | None:
    """What names a CloudEvent everywhere: its source and its id."""
    headers = _headers(wire.split(delivery.properties).get(wire.HEADERS))
    name = headers.get(_ID)
    return (headers.get(_SOURCE, ""), name) if name else None


def mark(name: str, queue: str) -> Outgoing:
    """A marker for the log `queue`."""
    properties = wire.encode({MARKER: name}, content_type=None, message_id=name, timestamp=0)
    return Outgoing("", queue, properties, b"")


def earlier(delivery: Delivery, headers: Mapping[str, str]) -> int:
    """How many deliveries there were of what a message is a copy of."""
    return (_number(headers.get(REDELIVERIES)) or 0) if is_copy(delivery) else 0


def copy(
    delivery: Delivery, queue: str, *, message_id: str | None = None, count: int | None = None
) -> Outgoing:
    """The message of `delivery` once more, for `queue` only, as it was.

    The count of deliveries goes with it; that of the server, unless `count` says another.
    `message_id` is for a message that nothing identifies.
    """
    fields = wire.split(delivery.properties)
    table = fields.get(wire.HEADERS, b"\x00\x00\x00\x00")
    copied = is_copy(delivery)
    if count is None:
        count = _redeliveries(wire.headers(table), redelivered=delivery.redelivered, copied=copied)
    if message_id is not None and wire.text(fields.get(wire.MESSAGE_ID)) is None:
        fields[wire.MESSAGE_ID] = wire.short(message_id)
    more = {REDELIVERIES: str(count)} if count else {}
    dropped = _NOT_COPIED if copied else _NOT_COPIED | {ATTEMPT.encode()}
    return Outgoing("", queue, _properties(fields, dropped, more), delivery.body)


def forward(
    delivery: Delivery, exchange: str, routing_key: str, *, entering: str | None = None
) -> Outgoing:
    """The message of `delivery` once more, by another way, as it was.

    `entering` is for one that enters its topic only now: it loses the header of this name, and its
    time is the present.
    """
    fields = wire.split(delivery.properties)
    if entering is None:
        properties = _properties(fields, _NOT_COPIED, {})
    else:
        now = time.time_ns() // 1_000_000
        fields[wire.TIMESTAMP] = (now // 1000).to_bytes(8, "big")
        dropped = _NOT_COPIED | {entering.encode(), TIME.encode()}
        properties = _properties(fields, dropped, {TIME: str(now)})
    return Outgoing(exchange, routing_key, properties, delivery.body)


def _properties(
    fields: dict[int, bytes], dropped: frozenset[bytes], more: Mapping[str, str]
) -> bytes:
    """The properties of a copy: without what the server added, routes to other queues, and a user
    name, which it would compare with ours."""
    fields.pop(wire.USER_ID, None)
    table = [
        entry
        for entry in wire.entries(fields.get(wire.HEADERS, b"\x00\x00\x00\x00"))
        if entry[0] not in dropped and not entry[0].startswith(_BROKER_BYTES)
    ]
    table += [(name.encode(), *wire.long(value)) for name, value in more.items()]
    fields[wire.HEADERS] = wire.table(table)
    fields[wire.DELIVERY_MODE] = b"\x02"
    return wire.join(fields)


def _headers(table: bytes | None) -> dict[str, str]:
    headers = wire.headers(table)
    if table is None or not any([part in table for part in (_ESCAPE_BYTES, *_SPELLINGS_BYTES)]):
        return headers
    for spelling in (_ESCAPE, *_SPELLINGS):
        for name in [name for name in headers if name.startswith(spelling)]:
            value, meant = headers.pop(name), name.removeprefix(spelling)
            if spelling != _ESCAPE:
                headers.setdefault(PREFIX + meant, value)
            elif meant in _ROUTES:
                headers[meant] = value
    return headers


def _redeliveries(headers: Mapping[str, str], *, redelivered: bool, copied: bool) -> int:
    earlier = (_number(headers.get(REDELIVERIES)) or 0) if copied else 0
    if not redelivered:
        return earlier
    count = _number(headers.get(COUNT))
    if count is None:
        # Quorum queues count: since 4.3 only failures, beside what was delivered. Classic ones only
        # tell that the message was delivered before.
        count = 0 if ACQUIRED in headers else 1
    return earlier + count


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


def _time(milliseconds: str | None, property: bytes | None) -> float | None:
    if milliseconds is not None and milliseconds.isdecimal() and len(milliseconds) == 13:
        return int(milliseconds) / 1000
    return _seconds(int.from_bytes(property, "big")) if property else None


def _seconds(stamp: int) -> float | None:
    # Some publishers write milliseconds, or worse. The year 9999 is the last one that there is.
    while stamp > 253_402_300_799:
        stamp //= 1000
    return float(stamp)
