"""Records as entries of a stream, and back.

Headers are plain fields, the body is the field `data`. Entries of other programs are taken as they
are: without a `data` field and without CloudEvents attributes the body is a JSON object of all
fields.
"""

from __future__ import annotations

import json
from typing import Any

from anymq.driver import Received, Record

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
    """A delivery: where its entry is pending, and whether the core has seen it."""

    __slots__ = ("id", "position", "retry", "shown")

    def __init__(self, id: bytes, position: bytes, *, retry: bool) -> None:
        self.id = id
        self.position = position
        self.retry = retry
        self.shown = False


def fields(record: Record) -> list[bytes]:
    """Return names and values in turn."""
    flat: list[bytes] = []
    for name, value in record.headers.items():
        flat += (name.encode(), value.encode())
    flat += (_DATA, record.body)
    return flat


def copy_fields(record: Record, token: Token) -> list[bytes]:
    """Return the fields of a copy, which remembers the position of the original."""
    return [POSITION, token.position, *fields(record)]


def received(stream: str, entry: Any, token: Token | None, redeliveries: int) -> Received:
    """Return the message in `entry`, an id and a list of names and values in turn."""
    id, flat = entry
    names = iter(flat)
    content = dict(zip(names, names, strict=True))
    position: bytes = id
    if token is not None and token.retry:
        token.position = position = content.pop(POSITION, id)
        redeliveries += _count(content.pop(REDELIVERED, b"0"))
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
    return Received(
        body,
        headers,
        position=text,
        token=token,
        native=(stream, native),
        time=_seconds(text),
        redeliveries=redeliveries,
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _count(value: bytes) -> int:
    return int(value) if value.isdigit() else 0


def _seconds(position: str) -> float | None:
    milliseconds = position.partition("-")[0]
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else None
