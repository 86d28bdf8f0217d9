"""Records as entries of a stream, and entries as received records.

Headers are plain fields, and the body is the field `data`. Entries of other programs are read as
they are: without a `data` field and CloudEvents attributes, the body is a JSON object of all
fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anymq.driver import (
    ATTEMPT,
    CONTROL,
    ONLY_GROUP,
    Published,
    Received,
    Record,
    is_control_header,
)

from .client.codec import bulk

RETRY = -1
"""The index of a group's retry stream; the streams of a topic have the partition's number."""
POSITION = b"anymq-position"
REDELIVERED = b"anymq-redelivered"
_DATA = b"data"
_JSON = "application/json"
_MAX_DECODED_NAMES = 1000
_MAX_PACKED_NAMES = 512


class _DecodedNames(dict[bytes, str]):
    """Field names as text. Most entries have the same few names."""

    def __missing__(self, name: bytes) -> str:
        text = _text(name)
        if len(self) < _MAX_DECODED_NAMES:
            self[name] = text
        return text


class _PackedNames(dict[str, str]):
    """Field names as packed text, up to where the length of the value follows."""

    def __missing__(self, name: str) -> str:
        head = f"${len(name.encode())}\r\n{name}\r\n$"
        if len(self) < _MAX_PACKED_NAMES:
            self[name] = head
        return head


_decoded_names = _DecodedNames()
_packed_names = _PackedNames()


class Token:
    """One delivery: the stream in which its entry is pending, and the time when it was taken.

    `index` is the stream's (`RETRY` or the partition). `copying` is True while the server is being
    asked to store a copy elsewhere. `starts` is the number of handlers known to have started with
    this entry, for an entry that another consumer left pending; else None. `earlier` is the same
    number for the entries that this one is a copy of.
    """

    __slots__ = ("copying", "earlier", "id", "index", "position", "starts", "taken")

    def __init__(self, id: bytes, index: int, taken: float) -> None:
        self.id = id
        self.index = index
        self.position = id
        self.copying = False
        self.taken = taken
        self.starts: int | None = None
        self.earlier = 0


def fields(record: Record) -> list[bytes]:
    """Return names and values in turn; for a copy the original bytes, repeated names included."""
    flat: list[bytes] = []
    headers, original = record.headers, record.original
    if not isinstance(original, Entry | Decoded):
        for name, value in headers.items():
            flat += (name.encode(), value.encode())
        flat += (_DATA, record.body)
        return flat
    received_fields: dict[str, list[bytes]] = {}
    names = iter(original.flat)
    for raw in zip(names, names, strict=True):
        received_fields.setdefault(_decoded_names[raw[0]], []).extend(raw)
    for name, value in headers.items():
        found = received_fields.get(name)
        same = found is not None and _text(found[-1]) == value
        flat += found if found is not None and same else (name.encode(), value.encode())
    for name, found in received_fields.items():
        # A field that is no header for anymq may still matter to the publisher's own consumers.
        lost = name not in headers and is_control_header(name) and not name.startswith(CONTROL)
        if lost and name.lower() not in ("data", "content-type"):
            flat += found
    flat += (_DATA, record.body)
    return flat


def copy_fields(record: Record, token: Token) -> list[bytes]:
    """Return the fields of a copy, with the position of the original."""
    return [POSITION, token.position, *fields(record)]


def packed(record: Record) -> tuple[int, bytes, bytes]:
    """Return the number of names and values of `record`, and all but its body packed.

    Shared headers come first, packed once for many records, then all other fields. The body and
    the end of a line are to follow.
    """
    if record.original is not None:
        flat = fields(record)[:-1]
        return len(flat) + 1, b"", b"%b$%d\r\n" % (bulk(flat), len(record.body))
    count, shared = record.common.encoded(_packed_headers)
    own = record.own
    names = _packed_names
    texts = [f"{names[name]}{len(value)}\r\n{value}\r\n" for name, value in own.items()]
    texts.append(f"$4\r\ndata\r\n${len(record.body)}\r\n")
    text = "".join(texts)
    data = text.encode() if text.isascii() else _packed_bytes(record)
    return count + 2 * len(own) + 2, shared, data


def _packed_bytes(record: Record) -> bytes:
    return b"%b$4\r\ndata\r\n$%d\r\n" % (_packed_headers(record.own)[1], len(record.body))


def _packed_headers(headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the number of names and values of `headers`, and all of them packed."""
    flat = [part.encode() for pair in headers.items() for part in pair]
    return len(flat), bulk(flat)


class StreamRef:
    """The stream that entries were read from: a partition, or a group's retry stream.

    `prefix` is the beginning of its positions.
    """

    __slots__ = ("index", "name", "partition", "prefix")

    def __init__(self, key: bytes, index: int, prefix: bytes) -> None:
        self.name = key.decode()
        self.index = index
        self.partition = max(0, index)
        self.prefix = prefix


class Decoded(Received):
    """An entry decoded at once: another program's, or a copy in a group's retry stream."""

    __slots__ = ("flat", "stream")

    flat: Sequence[bytes]
    stream: StreamRef

    @property
    def published(self) -> bool:
        return self.stream.index != RETRY


class Entry(Published):
    """An entry of a topic's stream, decoded by attribute on first use (`_LAZY`)."""

    __slots__ = ("flat", "id", "stream")

    def __init__(
        self,
        stream: StreamRef,
        id: bytes,
        flat: list[bytes],
        token: Token | None,
        redeliveries: int,
    ) -> None:
        self.stream = stream
        self.id = id
        self.flat = flat
        self.body = flat[-1]
        self.token = token
        self.partition = stream.partition
        self.redeliveries = redeliveries
        self.key = self.content_type = self.not_before = None

    def __getattr__(self, name: str) -> Any:
        decode = _LAZY.get(name)
        if decode is None:
            raise AttributeError(name)
        value = decode(self)
        setattr(self, name, value)
        return value

    @property
    def fresh(self) -> bool:
        return self.redeliveries == 0 and _NOT_FRESH.isdisjoint(self.flat[::2])

    def header(self, name: str) -> str | None:
        flat, wanted = self.flat, name.encode()
        if wanted == _DATA or flat.count(wanted) != 1 or (at := flat.index(wanted)) % 2:
            return self.headers.get(name)  # Absent, repeated, or equal to a value.
        return flat[at + 1].decode("utf-8", "backslashreplace")


def _entry_headers(entry: Entry) -> Mapping[str, str]:
    names = iter(entry.flat)
    return {
        _decoded_names[name]: value.decode("utf-8", "backslashreplace")
        for name, value in zip(names, names, strict=True)
        if name != _DATA
    }


def _entry_position(entry: Entry) -> str:
    return _text(entry.stream.prefix + entry.id)


def _entry_native(entry: Entry) -> tuple[str, str]:
    return entry.stream.name, _text(entry.id)


def _entry_time(entry: Entry) -> float | None:
    return time_of(entry.position)


_LAZY: dict[str, Callable[[Entry], Any]] = {
    "headers": _entry_headers,
    "position": _entry_position,
    "native": _entry_native,
    "time": _entry_time,
}
_NOT_FRESH = frozenset({ATTEMPT.encode(), ONLY_GROUP.encode()})


def received(stream: StreamRef, entry: Any, token: Token | None, redeliveries: int) -> Received:
    """Return `entry` as a record: an id, and a list of names and values in turn."""
    id, flat = entry
    if stream.index != RETRY and len(flat) > 1 and flat[-2] == _DATA:
        if token is not None and stream.prefix:
            token.position = stream.prefix + id
        return Entry(stream, id, flat, token, redeliveries)
    return _decoded(stream, id, flat, token, redeliveries)


def _decoded(
    stream: StreamRef, id: bytes, flat: Sequence[bytes], token: Token | None, redeliveries: int
) -> Received:
    names = iter(flat)
    content = dict(zip(names, names, strict=True))
    position: bytes = stream.prefix + id if stream.prefix else id
    if token is not None:
        if stream.index == RETRY:
            position = content.pop(POSITION, id)
            token.earlier = _count(content.pop(REDELIVERED, b"0"))
            redeliveries += token.earlier
        token.position = position
    body: bytes | None = content.pop(_DATA, None)
    headers = {
        _decoded_names[name]: value.decode("utf-8", "backslashreplace")
        for name, value in content.items()
    }
    if body is None:
        body = b""
        if "ce-id" not in headers:
            body = json.dumps(headers, ensure_ascii=False).encode()
            headers["content-type"] = _JSON
    text = _text(position)
    native = text if position is id else _text(id)
    decoded = Decoded(
        body,
        headers,
        position=text,
        token=token,
        native=(stream.name, native),
        time=time_of(text),
        redeliveries=redeliveries,
        partition=stream.partition,
    )
    decoded.flat, decoded.stream = flat, stream
    return decoded


def time_of(position: str) -> float | None:
    """Return when the entry at `position` was stored, in seconds since the epoch."""
    milliseconds = position.rpartition(":")[2].partition("-")[0]
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _count(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) < 10 else 0
