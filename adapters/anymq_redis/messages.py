"""Records as entries of a stream, and back.

Headers are plain fields, the body is the field `data`. Entries of other programs are taken as they
are: without a `data` field and without CloudEvents attributes the body is a JSON object of all
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

from .positions import time_of

RETRY = -1
"""The group's own stream; the topic's go by the numbers of their partitions."""
POSITION = b"anymq-position"
REDELIVERED = b"anymq-redelivered"
_DATA = b"data"
_JSON = "application/json"
_MOST_NAMES = 1000


class _Names(dict[bytes, str]):
    """Field names as text: the same few come again and again."""

    def __missing__(self, name: bytes) -> str:
        text = _text(name)
        if len(self) < _MOST_NAMES:
            self[name] = text
        return text


_names = _Names()


class Token:
    """A delivery: in which stream its entry is pending, and since when.

    `leaving` while the server is being told to put a copy of it elsewhere. `starts`, where another
    consumer has left it pending: how many handlers are known to have begun with this entry.
    `earlier` is how many had with those that it is a copy of.
    """

    __slots__ = ("earlier", "id", "leaving", "position", "starts", "taken", "which")

    def __init__(self, id: bytes, which: int, taken: float) -> None:
        self.id = id
        self.which = which
        self.position = id
        self.leaving = False
        self.taken = taken
        self.starts: int | None = None
        self.earlier = 0


def fields(record: Record) -> list[bytes]:
    """Return names and values in turn; of a copy the very bytes, and as often as they came."""
    flat: list[bytes] = []
    headers, original = record.headers, record.original
    if not isinstance(original, Entry | Decoded):
        for name, value in headers.items():
            flat += (name.encode(), value.encode())
        flat += (_DATA, record.body)
        return flat
    came: dict[str, list[bytes]] = {}
    names = iter(original.flat)
    for raw in zip(names, names, strict=True):
        came.setdefault(_names[raw[0]], []).extend(raw)
    for name, value in headers.items():
        found = came.get(name)
        same = found is not None and _text(found[-1]) == value
        flat += found if found is not None and same else (name.encode(), value.encode())
    for name, found in came.items():
        # What is no header for anymq, though a field for the publisher's own consumers.
        lost = name not in headers and is_control_header(name) and not name.startswith(CONTROL)
        if lost and name.lower() not in ("data", "content-type"):
            flat += found
    flat += (_DATA, record.body)
    return flat


def copy_fields(record: Record, token: Token) -> list[bytes]:
    """Return the fields of a copy, which remembers the position of the original."""
    return [POSITION, token.position, *fields(record)]


class Place:
    """A stream that entries are read from: a partition, or a group's own with its copies."""

    __slots__ = ("name", "partition", "prefix", "which")

    def __init__(self, stream: bytes, which: int, prefix: bytes) -> None:
        self.name = stream.decode()
        self.which = which
        self.partition = max(0, which)
        self.prefix = prefix


class Decoded(Received):
    """A message that was decoded at once: another program's, or a copy in a group's own stream."""

    __slots__ = ("flat", "place")

    flat: Sequence[bytes]
    place: Place

    @property
    def published(self) -> bool:
        return self.place.which != RETRY


class Entry(Published):
    """A message as it stands in a topic's stream: decoded where it is asked for.

    What is not there is made by `__getattr__` at the first look.
    """

    __slots__ = ("flat", "id", "place")

    def __init__(
        self, place: Place, id: bytes, flat: list[bytes], token: Token | None, redeliveries: int
    ) -> None:
        self.place = place
        self.id = id
        self.flat = flat
        self.body = flat[-1]
        self.token = token
        self.partition = place.partition
        self.redeliveries = redeliveries
        self.key = self.content_type = self.not_before = None

    def __getattr__(self, name: str) -> Any:
        make = _LATE.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self)
        setattr(self, name, value)
        return value

    @property
    def fresh(self) -> bool:
        return self.redeliveries == 0 and _CONTROL.isdisjoint(self.flat[::2])

    def header(self, name: str) -> str | None:
        flat, wanted = self.flat, name.encode()
        if wanted == _DATA or flat.count(wanted) != 1 or (place := flat.index(wanted)) % 2:
            return self.headers.get(name)  # There is none; or it is a value as well.
        return flat[place + 1].decode("utf-8", "backslashreplace")


def _entry_headers(entry: Entry) -> Mapping[str, str]:
    names = iter(entry.flat)
    headers = {
        _names[name]: value.decode("utf-8", "backslashreplace")
        for name, value in zip(names, names, strict=True)
        if name != _DATA
    }
    return headers


def _entry_position(entry: Entry) -> str:
    return _text(entry.place.prefix + entry.id)


def _entry_native(entry: Entry) -> tuple[str, str]:
    return entry.place.name, _text(entry.id)


def _entry_time(entry: Entry) -> float | None:
    return time_of(entry.position)


_LATE: dict[str, Callable[[Entry], Any]] = {
    "headers": _entry_headers,
    "position": _entry_position,
    "native": _entry_native,
    "time": _entry_time,
}
_CONTROL = frozenset({ATTEMPT.encode(), ONLY_GROUP.encode()})


def received(place: Place, entry: Any, token: Token | None, redeliveries: int) -> Received:
    """Return the message in `entry`, an id and a list of names and values in turn."""
    id, flat = entry
    if place.which != RETRY and len(flat) > 1 and flat[-2] == _DATA:
        if token is not None and place.prefix:
            token.position = place.prefix + id
        return Entry(place, id, flat, token, redeliveries)
    return _decoded(place, id, flat, token, redeliveries)


def _decoded(
    place: Place, id: bytes, flat: Sequence[bytes], token: Token | None, redeliveries: int
) -> Received:
    names = iter(flat)
    content = dict(zip(names, names, strict=True))
    position: bytes = place.prefix + id if place.prefix else id
    if token is not None:
        if place.which == RETRY:
            position = content.pop(POSITION, id)
            token.earlier = _count(content.pop(REDELIVERED, b"0"))
            redeliveries += token.earlier
        token.position = position
    body: bytes | None = content.pop(_DATA, None)
    headers = {
        _names[name]: value.decode("utf-8", "backslashreplace") for name, value in content.items()
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
        native=(place.name, native),
        time=time_of(text),
        redeliveries=redeliveries,
        partition=place.partition,
    )
    decoded.flat, decoded.place = flat, place
    return decoded


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _count(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) < 10 else 0
