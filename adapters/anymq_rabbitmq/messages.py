"""Conversion between anymq's records and AMQP messages, and copies of messages byte by byte.

Most records have plain headers, and many headers in common: `_plain_properties` encodes them with
little work, and `LazyReceived` decodes such a message only as far as it is used.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from anymq.driver import ATTEMPT, CONTROL, Published, Received, Record, is_control_header, new_id

from .client import codec
from .client.fetcher import Delivery
from .publisher import Outgoing

TIME = "anymq-time"
"""The header with the time of publishing in milliseconds; the property has seconds only."""
MARKER = "anymq-marker"
REDELIVERIES = "anymq-redeliveries"
"""The header of a copy with the count of deliveries of its original."""
OFFSET = "x-stream-offset"
COUNT = "x-delivery-count"
ACQUIRED = "x-acquired-count"
PREFIX = "cloudEvents:"
"""The prefix of attributes. CloudEvents' binding for AMQP has two spellings: all SDKs read this
one, some read the other one as well."""
_OTHER_PREFIXES = ("cloudEvents_", "ce-")
"""The other spelling, and that of anymq before 0.1.0."""
_ID, _SOURCE = PREFIX + "id", PREFIX + "source"

_ROUTING_HEADERS = ("CC", "BCC")
"""The server routes by these headers, so an application's travel under other names."""
_ESCAPE = "anymq-header-"
_SERVER_HEADERS = ("x-death", "x-first-death-", "x-last-death-", COUNT, ACQUIRED, OFFSET)
"""Prefixes of the headers that the server itself puts on a message."""
_SERVER_HEADERS_BYTES = tuple(name.encode() for name in _SERVER_HEADERS)
_RENAMED_BYTES = tuple(name.encode() for name in (_ESCAPE, *_OTHER_PREFIXES))
_NOT_COPIED = frozenset({b"CC", b"BCC", REDELIVERIES.encode()})
_NO_TABLE = b"\x00\x00\x00\x00"
_DEFAULT_EXCHANGE, _DELAY_EXCHANGES = b"\x00", b"anymq._delay.v1"
"""The exchanges that copies come from: straight to their queue, and out of the delay ladder."""
_PARTITION = re.compile(rb"p(\d{1,6})(?:\.|$)")
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, the last that a datetime can have."""

_TIME_ENTRY = b"\x0a" + TIME.encode() + b"S\x00\x00\x00\x0d%013d"
_TIME_SIZE = len(_TIME_ENTRY % 0)
_TIME_HEAD = (_TIME_ENTRY % 0)[:-13]
_LENGTH = struct.Struct(">I").pack
_FLAGS = codec.HEADERS | codec.DELIVERY_MODE | codec.MESSAGE_ID | codec.TIMESTAMP
_TYPED_FLAGS = _FLAGS | codec.CONTENT_TYPE
_HAS_CONTENT_TYPE = {_FLAGS.to_bytes(2, "big"): False, _TYPED_FLAGS.to_bytes(2, "big"): True}
_CONTROL_BYTES = CONTROL.encode()
_OTHER_SPELLINGS = (b"\x05ce-id", b"cloudEvents_")
"""Parts of messages that anymq did not write, or did before 0.1.0."""


# Publishing.


def outgoing(record: Record, *, exchange: str, routing_key: str) -> Outgoing:
    """Return the message for `record`."""
    original = None if record.original is None else record.original.native
    if isinstance(original, Delivery):
        return Outgoing(exchange, routing_key, _copied(record, original), record.body)
    properties = _plain_properties(record)
    if properties is None:
        properties = _escaped(record)
    return Outgoing(exchange, routing_key, properties, record.body)


def routing_key(record: Record, partition: int | None = None) -> str:
    """Return the record's key, or its topic if it has none or one over 255 bytes.

    In a topic of several partitions the key follows the partition, or is left out.
    """
    key = record.key
    if partition is None:
        return key if key and len(key.encode()) < 256 else record.topic
    prefix = f"p{partition}"
    routed = f"{prefix}.{key}"
    return routed if key and len(routed.encode()) < 256 else prefix


def internal_message(queue: str, body: bytes) -> Outgoing:
    """Return a message of anymq's own for `queue`."""
    properties = codec.encode({}, content_type=None, message_id=new_id(), timestamp=0)
    return Outgoing("", queue, properties, body)


def marker_message(name: str, stream: str) -> Outgoing:
    """Return a marker for `stream` or a queue."""
    properties = codec.encode({MARKER: name}, content_type=None, message_id=name, timestamp=0)
    return Outgoing("", stream, properties, b"")


def _plain_properties(record: Record) -> bytes | None:
    """Encode properties as `codec.encode` does, with the present time.

    Returns None for a record with a header that must be escaped or left out, or with a content type
    or id over 255 bytes.
    """
    shared = record.common.encoded(_plain_entries)
    own = _plain_entries(record.own)
    head = _plain_head(record.content_type)
    name = record.id.encode()
    if shared is None or own is None or head is None or len(name) > 255:
        return None
    entry, stamp = _encoded_time(time.time_ns() // 1_000_000)
    size = len(entry) + len(shared) + len(own)
    return b"".join((head, _LENGTH(size), entry, shared, own, b"\x02%c" % len(name), name, stamp))


def _plain_entries(headers: Mapping[str, str]) -> bytes | None:
    parts: list[bytes] = []
    for name, value in headers.items():
        head = _plain_entry_head(name)
        if head is None:
            return None
        data = value.encode()
        parts += (head, _LENGTH(len(data)), data)
    return b"".join(parts)


@lru_cache(maxsize=512)
def _plain_entry_head(name: str) -> bytes | None:
    is_plain = name not in _ROUTING_HEADERS and not name.startswith(_SERVER_HEADERS)
    return codec.short_text(name) + b"S" if is_plain else None


@lru_cache(maxsize=512)
def _plain_head(content_type: str | None) -> bytes | None:
    if content_type is None:
        return _FLAGS.to_bytes(2, "big")
    if len(content_type.encode()) > 255:
        return None
    return _TYPED_FLAGS.to_bytes(2, "big") + codec.short_text(content_type)


@lru_cache(maxsize=16)
def _encoded_time(milliseconds: int) -> tuple[bytes, bytes]:
    """Return the header with the time, and the property."""
    return _TIME_ENTRY % milliseconds, (milliseconds // 1000).to_bytes(8, "big")


def _escaped(record: Record) -> bytes:
    headers: Mapping[str, str] = record.headers
    headers = {
        _ESCAPE + name if name in _ROUTING_HEADERS else name: value
        for name, value in headers.items()
        if not name.startswith(_SERVER_HEADERS)
    }
    now = time.time_ns() // 1_000_000
    return codec.encode(
        headers,
        content_type=record.content_type,
        message_id=record.id,
        timestamp=now // 1000,
        more=_TIME_ENTRY % now,
    )


# Copies.


def _copied(record: Record, original: Delivery) -> bytes:
    """Return the properties of a copy: the headers of `record`, and all else as it arrived.

    Parts that are equal in both keep their very bytes: headers of any type, and repeated ones. A
    copy does not expire: a dead letter would be lost, and a delay would end early.
    """
    fields = codec.split(original.properties)
    now = time.time_ns() // 1_000_000
    fields[codec.HEADERS] = codec.table(_copied_headers(record, fields.get(codec.HEADERS), now))
    fields[codec.DELIVERY_MODE] = b"\x02"
    fields[codec.TIMESTAMP] = (now // 1000).to_bytes(8, "big")
    if codec.text(fields.get(codec.MESSAGE_ID)) is None and len(record.id.encode()) < 256:
        fields[codec.MESSAGE_ID] = codec.short_text(record.id)
    kind = record.content_type
    if kind != codec.text(fields.get(codec.CONTENT_TYPE)):
        fields.pop(codec.CONTENT_TYPE, None)
        if kind is not None and len(kind.encode()) < 256:
            fields[codec.CONTENT_TYPE] = codec.short_text(kind)
    if record.body != original.body:
        fields.pop(codec.CONTENT_ENCODING, None)
    fields.pop(codec.EXPIRATION, None)
    fields.pop(codec.USER_ID, None)  # The server compares it with this connection's user.
    return codec.join(fields)


def _copied_headers(
    record: Record, table: bytes | None, now: int
) -> list[tuple[bytes, int, bytes]]:
    came: dict[str, list[tuple[bytes, int, bytes]]] = {}
    for entry in codec.entries(table or _NO_TABLE):
        came.setdefault(entry[0].decode("utf-8", "backslashreplace"), []).append(entry)
    texts, headers = codec.headers(table), record.headers
    found = [(TIME.encode(), *codec.long_text(str(now)))]
    for name, value in headers.items():
        if name in _ROUTING_HEADERS:
            found.append(((_ESCAPE + name).encode(), *codec.long_text(value)))
        elif name in came and texts.get(name) == value:
            found += came[name]
        elif not name.startswith(_SERVER_HEADERS):
            found.append((name.encode(), *codec.long_text(value)))
    for name, entries in came.items():
        # Not a header for anymq, but one for the publisher's own consumers.
        kept = is_control_header(name) and not name.startswith((CONTROL, *_SERVER_HEADERS))
        if kept and name not in headers and not name.endswith("datacontenttype"):
            found += entries
    return found


def copy(
    delivery: Delivery, queue: str, *, message_id: str | None = None, count: int | None = None
) -> Outgoing:
    """Return an unchanged copy of `delivery` for `queue` alone.

    It carries the count of earlier deliveries: `count`, by default the server's. `message_id` is
    for a message without an id of its own.
    """
    fields = codec.split(delivery.properties)
    table = fields.get(codec.HEADERS, _NO_TABLE)
    copied = is_copy(delivery)
    if count is None:
        count = redeliveries_of(
            codec.headers(table), redelivered=delivery.redelivered, copied=copied
        )
    if message_id is not None and codec.text(fields.get(codec.MESSAGE_ID)) is None:
        fields[codec.MESSAGE_ID] = codec.short_text(message_id)
    more = {REDELIVERIES: str(count)} if count else {}
    dropped = _NOT_COPIED if copied else _NOT_COPIED | {ATTEMPT.encode()}
    return Outgoing("", queue, _copy_properties(fields, dropped, more), delivery.body)


def forward(
    delivery: Delivery, exchange: str, routing_key: str, *, entering: str | None = None
) -> Outgoing:
    """Return an unchanged copy of `delivery` for another exchange and routing key.

    `entering` is for a delayed message that enters its topic now: the header of this name is
    dropped, and the time of publishing is the present.
    """
    fields = codec.split(delivery.properties)
    if entering is None:
        properties = _copy_properties(fields, _NOT_COPIED, {})
    else:
        now = time.time_ns() // 1_000_000
        fields[codec.TIMESTAMP] = (now // 1000).to_bytes(8, "big")
        dropped = _NOT_COPIED | {entering.encode(), TIME.encode()}
        properties = _copy_properties(fields, dropped, {TIME: str(now)})
    return Outgoing(exchange, routing_key, properties, delivery.body)


def _copy_properties(
    fields: dict[int, bytes], dropped: frozenset[bytes], more: Mapping[str, str]
) -> bytes:
    """Encode the properties of a copy: without the server's headers, further routes, and a user
    name, which the server compares with this connection's."""
    fields.pop(codec.USER_ID, None)
    table = [
        entry
        for entry in codec.entries(fields.get(codec.HEADERS, _NO_TABLE))
        if entry[0] not in dropped and not entry[0].startswith(_SERVER_HEADERS_BYTES)
    ]
    table += [(name.encode(), *codec.long_text(value)) for name, value in more.items()]
    fields[codec.HEADERS] = codec.table(table)
    fields[codec.DELIVERY_MODE] = b"\x02"
    return codec.join(fields)


# Receiving.


class LazyReceived(Received):
    """The first delivery of a message that anymq published to all groups.

    `__getattr__` decodes an attribute at its first use.
    """

    __slots__ = ("_table",)

    def __init__(self, delivery: Delivery, table: int, position: str, partition: int) -> None:
        """`table` is where the headers begin in the properties."""
        self.body = delivery.body
        self.position = position
        self.native = delivery
        self.key = None
        self.redeliveries = 0
        self.partition = partition
        self.not_before = None
        self._table = table

    @property
    def fresh(self) -> bool:
        return self.redeliveries == 0

    def __getattr__(self, name: str) -> Any:
        decode = _DECODERS.get(name)
        if decode is None:
            raise AttributeError(name)
        value = decode(self.native.properties, self._table)
        setattr(self, name, value)
        return value


def lazy_received(delivery: Delivery, partition: int = 0) -> LazyReceived | None:
    """Return the record of a first delivery that anymq published to all groups, otherwise None.

    Its properties are those of `_plain_properties`, in that order, with the time as first header.
    """
    properties = delivery.properties
    typed = _HAS_CONTENT_TYPE.get(properties[:2])
    if typed is None or delivery.redelivered:
        return None
    table = 3 + properties[2] if typed else 2
    begin = table + 4 + _TIME_SIZE
    end = table + 4 + int.from_bytes(properties[table : table + 4], "big")
    if (
        begin > end
        or not properties.startswith(_TIME_HEAD, table + 4)
        or not properties[begin - 13 : begin].isdigit()
        or properties.find(_CONTROL_BYTES, begin) >= 0
        or any([properties.find(other, begin) >= 0 for other in _OTHER_SPELLINGS])
    ):
        return None
    name = properties[end + 2 : end + 2 + properties[end + 1]]
    if not name:
        return None
    return LazyReceived(delivery, table, name.decode("utf-8", "backslashreplace"), partition)


def _lazy_headers(properties: bytes, table: int) -> Mapping[str, str]:
    begin = table + 4 + _TIME_SIZE
    end = table + 4 + int.from_bytes(properties[table : table + 4], "big")
    # The last digits of the time stand where the table's length would; `headers` skips that.
    return codec.headers(properties[begin - 4 : end])


def _lazy_time(properties: bytes, table: int) -> float:
    end = table + 4 + _TIME_SIZE
    return int(properties[end - 13 : end]) / 1000


def _lazy_content_type(properties: bytes, table: int) -> str | None:
    return codec.text(properties[2:table]) if table > 2 else None


_DECODERS: dict[str, Callable[[bytes, int], Any]] = {
    "headers": _lazy_headers,
    "time": _lazy_time,
    "content_type": _lazy_content_type,
}


def received(
    delivery: Delivery,
    *,
    token: Any,
    position: str | None = None,
    partition: int = 0,
    name_for: Callable[[Delivery], str] | None = None,
) -> Received | None:
    """Return the record of `delivery`; None for a message without any id, unless `name_for` gives
    it one.

    `position` is the message's id by default, as its publisher set it, because RabbitMQ gives
    messages in a queue no name.
    """
    if position is None and (lazy := lazy_received(delivery, partition)) is not None:
        lazy.token = token
        return lazy
    fields = codec.split(delivery.properties)
    headers = _headers(fields.get(codec.HEADERS))
    name = position or codec.text(fields.get(codec.MESSAGE_ID)) or headers.get(_ID)
    if name is None:
        if name_for is None:
            return None
        name = name_for(delivery)
    copied = is_copy(delivery)
    # A copy out of the log, or one that was given an id, is still as it was published.
    kind = Received if copied and ATTEMPT in headers else Published
    return kind(
        delivery.body,
        headers,
        position=name,
        token=token,
        native=delivery,
        content_type=codec.text(fields.get(codec.CONTENT_TYPE)),
        time=_time(headers.pop(TIME, None), fields.get(codec.TIMESTAMP)),
        redeliveries=redeliveries_of(headers, redelivered=delivery.redelivered, copied=copied),
        partition=partition,
    )


def received_from_log(delivery: Delivery) -> Received:
    """Return the record of a message of a log: its position is its offset."""
    record = received(
        delivery,
        token=None,
        position=str(offset(delivery)),
        partition=routed_partition(delivery) or 0,
    )
    assert record is not None
    return record


def routed_partition(delivery: Delivery) -> int | None:
    """Return the partition that the routing key names; None for another publisher's key."""
    found = _PARTITION.match(delivery.routing_key[1:])
    return int(found[1]) if found else None


def is_copy(delivery: Delivery) -> bool:
    """Whether it was sent to its queue alone, as anymq's copies are, and not to a topic."""
    exchange = delivery.exchange
    return exchange == _DEFAULT_EXCHANGE or exchange.startswith(_DELAY_EXCHANGES, 1)


def was_redelivered(record: Received) -> bool:
    """Whether the queue has delivered this very message before."""
    delivery: Delivery = record.native
    return bool(delivery.redelivered)


def header(delivery: Delivery, name: str) -> str | None:
    """Return one header of `delivery`, as text."""
    return codec.headers(codec.split(delivery.properties).get(codec.HEADERS)).get(name)


def message_id(delivery: Delivery) -> str | None:
    """Return the position that `received` gives to a message of a queue."""
    fields = codec.split(delivery.properties)
    return codec.text(fields.get(codec.MESSAGE_ID)) or _headers(fields.get(codec.HEADERS)).get(_ID)


def event_id(delivery: Delivery) -> tuple[str, str] | None:
    """Return the source and id of a CloudEvent, which are unique together."""
    headers = _headers(codec.split(delivery.properties).get(codec.HEADERS))
    name = headers.get(_ID)
    return (headers.get(_SOURCE, ""), name) if name else None


def fingerprint(delivery: Delivery) -> str:
    """Return a name for a message without an id: the same each time, and for equal messages."""
    properties = _copy_properties(codec.split(delivery.properties), _NOT_COPIED, {})
    return hashlib.sha256(properties + delivery.body).hexdigest()[:32]


def published_at(delivery: Delivery) -> tuple[float | None, float]:
    """Return the time of publishing, and its resolution; in seconds."""
    fields = codec.split(delivery.properties)
    exact = codec.headers(fields.get(codec.HEADERS)).get(TIME)
    return _time(exact, fields.get(codec.TIMESTAMP)), 0.001 if exact else 1.0


def offset(delivery: Delivery) -> int:
    """Return the offset of `delivery` in the stream that it was read from."""
    return int(header(delivery, OFFSET) or "")


def marker(delivery: Delivery) -> str | None:
    """Return the name of the marker that `delivery` is; None if it is a message.

    Markers are sent to the stream itself, so a message published to a topic never is one.
    """
    if MARKER.encode() not in delivery.properties or delivery.exchange != _DEFAULT_EXCHANGE:
        return None
    return header(delivery, MARKER)


def earlier_deliveries(delivery: Delivery, headers: Mapping[str, str]) -> int:
    """Return the count of deliveries of the message that this one is a copy of."""
    return (_number(headers.get(REDELIVERIES)) or 0) if is_copy(delivery) else 0


def redeliveries_of(headers: Mapping[str, str], *, redelivered: bool, copied: bool) -> int:
    """Return the count of earlier deliveries, of a copy together with its original's."""
    earlier = (_number(headers.get(REDELIVERIES)) or 0) if copied else 0
    if not redelivered:
        return earlier
    count = _number(headers.get(COUNT))
    if count is None:
        # Quorum queues count; since 4.3 failures only, and deliveries in `ACQUIRED`. Classic queues
        # only tell that the message was delivered before.
        count = 0 if ACQUIRED in headers else 1
    return earlier + count


def _headers(table: bytes | None) -> dict[str, str]:
    headers = codec.headers(table)
    if table is None or not any([part in table for part in _RENAMED_BYTES]):
        return headers
    for spelling in (_ESCAPE, *_OTHER_PREFIXES):
        for name in [name for name in headers if name.startswith(spelling)]:
            value, meant = headers.pop(name), name.removeprefix(spelling)
            if spelling != _ESCAPE:
                headers.setdefault(PREFIX + meant, value)
            elif meant in _ROUTING_HEADERS:
                headers[meant] = value
    return headers


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


def _time(milliseconds: str | None, property: bytes | None) -> float | None:
    if milliseconds is not None and milliseconds.isdecimal() and len(milliseconds) == 13:
        return int(milliseconds) / 1000
    return _seconds(int.from_bytes(property, "big")) if property else None


def _seconds(stamp: int) -> float | None:
    # Some publishers write milliseconds or microseconds.
    while stamp > _LAST_SECOND:
        stamp //= 1000
    return float(stamp)
