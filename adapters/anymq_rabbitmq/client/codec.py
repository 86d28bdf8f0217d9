"""Codec of the AMQP 0-9-1 frames on the hot paths: publishes, acknowledgements, deliveries.

The client library's general codec costs most of the time of a publish and of a delivery. It also
breaks the connection when it cannot decode a message: for example one with a header name that is
not UTF-8, or a timestamp in microseconds. The server redelivers that message to the next
connection, which breaks as well. This codec reads such a message like any other, and copies it
byte by byte.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

METHOD, HEADER, BODY = 1, 2, 3
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
CANCEL = b"\x00\x3c\x00\x1e"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"
CLOSE = b"\x00\x0a\x00\x32"
BLOCKED = b"\x00\x0a\x00\x3c"
UNBLOCKED = b"\x00\x0a\x00\x3d"

# The flags of the properties, which are encoded in this order.
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
PRIORITY, CORRELATION_ID, REPLY_TO, EXPIRATION = 0x0800, 0x0400, 0x0200, 0x0100
MESSAGE_ID, TIMESTAMP, TYPE, USER_ID = 0x0080, 0x0040, 0x0020, 0x0010
APP_ID, CLUSTER_ID = 0x0008, 0x0004
_FIXED_SIZES = {DELIVERY_MODE: 1, PRIORITY: 1, TIMESTAMP: 8}
_FLAGS = (
    CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO,
    EXPIRATION, MESSAGE_ID, TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID,
)  # fmt: skip

_TEXT = ord("S")
_DEEPEST_NESTING = 16
_MOST_CACHED_NAMES = 1000
_NUMBERS: dict[int, struct.Struct] = {
    ord(kind): struct.Struct(layout)
    for kind, layout in {
        "b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "L": ">q",
        "f": ">f", "d": ">d",
    }.items()
}  # fmt: skip
_VALUE_SIZES = {kind: number.size for kind, number in _NUMBERS.items()}
_VALUE_SIZES |= {ord("t"): 1, ord("D"): 5, ord("T"): 8, ord("V"): 0}

FRAME = struct.Struct(">BHI")
CONTENT = struct.Struct(">BHIHHQ")
"""A frame's head, and the start of a content header: class, weight, size of the body."""
_BETWEEN = struct.Struct(">BBHI")
_ACKNOWLEDGE = struct.Struct(">BHI4sQBB")


def short_text(text: str) -> bytes:
    """Encode a short string: at most 255 bytes of UTF-8."""
    data = text.encode()
    return len(data).to_bytes(1, "big") + data


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Encode one frame."""
    return b"".join((FRAME.pack(kind, channel, len(payload)), payload, b"\xce"))


class HeadersTooLarge(Exception):
    """The properties do not fit into a frame: the server would close the connection."""


def publish(
    channel: int, exchange: str, routing_key: str, properties: bytes, body: bytes, *, frame_max: int
) -> bytes:
    """Encode the frames of a mandatory basic.publish; `properties` as `encode` returns them."""
    size = len(body)
    room = frame_max - 8
    header = 12 + len(properties)
    if header > room:
        raise HeadersTooLarge
    head = CONTENT.pack(HEADER, channel, header, 60, 0, size)
    method = _publish(channel, exchange, routing_key)
    if 0 < size <= room:
        between = _BETWEEN.pack(0xCE, BODY, channel, size)
        return b"".join((method, head, properties, between, body, b"\xce"))
    parts = [method, head, properties, b"\xce"]
    parts += (frame(BODY, channel, body[at : at + room]) for at in range(0, size, room))
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _publish(channel: int, exchange: str, routing_key: str) -> bytes:
    method = b"".join(
        (b"\x00\x3c\x00\x28\x00\x00", short_text(exchange), short_text(routing_key), b"\x01")
    )
    return frame(METHOD, channel, method)


def acknowledge(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Encode the frame of a basic.ack."""
    return _ACKNOWLEDGE.pack(METHOD, channel, 13, ACK, tag, multiple, 0xCE)


def requeue(channel: int, tag: int) -> bytes:
    """Encode the frame of a basic.nack that returns one delivery to its queue."""
    return _ACKNOWLEDGE.pack(METHOD, channel, 13, NACK, tag, 2, 0xCE)


def close_channel(channel: int) -> bytes:
    """Encode the frame of a channel.close."""
    return frame(
        METHOD, channel, b"\x00\x14\x00\x28\x00\xc8" + short_text("") + b"\x00\x00\x00\x00"
    )


def encode(
    headers: Mapping[str, str],
    *,
    content_type: str | None,
    message_id: str,
    timestamp: int,
    more: bytes = b"",
) -> bytes:
    """Encode the properties of a persistent message whose headers are all text.

    `more` are further headers, already encoded.
    """
    table = bytearray(more)
    for name, value in headers.items():
        key, data = name.encode(), value.encode()
        table += b"%c%bS%b%b" % (len(key), key, len(data).to_bytes(4, "big"), data)
    flags = HEADERS | DELIVERY_MODE | MESSAGE_ID | TIMESTAMP
    kind = b""
    if content_type is not None and len(content_type.encode()) < 256:
        flags |= CONTENT_TYPE
        kind = short_text(content_type)
    # An id too long for the property is in its header, where anymq reads it.
    property_id = message_id if len(message_id.encode()) < 256 else ""
    return b"".join(
        (
            flags.to_bytes(2, "big"),
            kind,
            len(table).to_bytes(4, "big"),
            table,
            b"\x02",
            short_text(property_id),
            timestamp.to_bytes(8, "big"),
        )
    )


def split(properties: bytes) -> dict[int, bytes]:
    """Return the properties by flag, each still encoded."""
    flags = int.from_bytes(properties[:2], "big")
    at = 2
    if flags & 1:  # Further words of flags have no meaning.
        while properties[at + 1] & 1:
            at += 2
        at += 2
    fields: dict[int, bytes] = {}
    for flag in _FLAGS:
        if not flags & flag:
            continue
        if flag == HEADERS:
            size = 4 + int.from_bytes(properties[at : at + 4], "big")
        else:
            size = _FIXED_SIZES.get(flag) or 1 + properties[at]
        fields[flag] = properties[at : at + size]
        at += size
    return fields


def join(fields: Mapping[int, bytes]) -> bytes:
    """Encode properties; the inverse of `split`."""
    present = [flag for flag in _FLAGS if flag in fields]
    return sum(present).to_bytes(2, "big") + b"".join(fields[flag] for flag in present)


def text(field: bytes | None) -> str | None:
    """Decode a short string, whatever its bytes; None for none and for an empty one."""
    return field[1:].decode("utf-8", "backslashreplace") if field and len(field) > 1 else None


def entries(table: bytes) -> Iterable[tuple[bytes, int, bytes]]:
    """Yield the `(name, kind, value)` entries of a table, each value still encoded."""
    at, end = 4, len(table)
    while at < end:
        start = at + 1
        at = start + table[at]
        name = table[start:at]
        kind = table[at]
        size = _VALUE_SIZES.get(kind)
        if size is None:
            size = 4 + int.from_bytes(table[at + 1 : at + 5], "big")
        at += 1 + size
        yield name, kind, table[at - size : at]


def table(items: Iterable[tuple[bytes, int, bytes]]) -> bytes:
    """Encode a table; the inverse of `entries`."""
    data = b"".join(b"%c%b%c%b" % (len(name), name, kind, value) for name, kind, value in items)
    return len(data).to_bytes(4, "big") + data


def long_text(value: str) -> tuple[int, bytes]:
    """Return the kind and the encoded value of a text in a table."""
    data = value.encode()
    return _TEXT, len(data).to_bytes(4, "big") + data


def headers(field: bytes | None) -> dict[str, str]:
    """Decode the headers, each value as text."""
    found: dict[str, str] = {}
    if field is None:
        return found
    names = _names
    at, end = 4, len(field)
    while at < end:
        start = at + 1
        at = start + field[at]
        name = names[field[start:at]]
        kind = field[at]
        if kind == _TEXT:
            start = at + 5
            at = start + int.from_bytes(field[at + 1 : start], "big")
            found[name] = field[start:at].decode("utf-8", "backslashreplace")
        else:
            size = _VALUE_SIZES.get(kind)
            if size is None:
                size = 4 + int.from_bytes(field[at + 1 : at + 5], "big")
            start = at + 1
            at = start + size
            found[name] = _as_text(_value(kind, field[start:at]))
    return found


class _NameCache(dict[bytes, str]):
    """Cache of decoded header names, of which the same few recur."""

    def __missing__(self, name: bytes) -> str:
        text = name.decode("utf-8", "backslashreplace")
        if len(self) < _MOST_CACHED_NAMES:
            self[name] = text
        return text


_names = _NameCache()


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(kind: int, data: bytes, depth: int = 0) -> Any:
    if number := _NUMBERS.get(kind):
        return number.unpack(data)[0]
    match chr(kind):
        case "t":
            return data != b"\x00"
        case "T":
            return _moment(int.from_bytes(data, "big"))
        case "D":
            return str(int.from_bytes(data[1:], "big", signed=True) / 10 ** data[0])
        case "F" | "A" if depth == _DEEPEST_NESTING:
            return "..."
        case "F":
            return {
                name.decode("utf-8", "backslashreplace"): _value(inner, value, depth + 1)
                for name, inner, value in entries(data)
            }
        case "A":
            return [_value(inner, value, depth + 1) for inner, value in _items(data)]
        case "V":
            return None
        case _:
            return data[4:].decode("utf-8", "backslashreplace")


def _items(array: bytes) -> Iterable[tuple[int, bytes]]:
    at, end = 4, len(array)
    while at < end:
        kind = array[at]
        size = _VALUE_SIZES.get(kind)
        if size is None:
            size = 4 + int.from_bytes(array[at + 1 : at + 5], "big")
        at += 1 + size
        yield kind, array[at - size : at]


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(seconds)
