"""`RecordBatch`: records of one partition, encoded as they are stored (message format 2).

Takes the place of aiokafka's `BatchBuilder` in `send_batch()`, which wants every header as a pair:
what records have in common is encoded once here, not once a record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from anymq.driver import Record

from ..messages import written_headers, written_key, written_value
from ..varint import SMALL, WRITTEN, length, written
from .internals import CODECS, crc32c

KEPT = 512
"""How many encoded names are remembered, before all are forgotten."""

# Base offset, length, leader epoch, magic, checksum; what the checksum is of follows.
_FRAME = struct.Struct(">qiibI")
_HEAD = struct.Struct(">hiqqqhii")
_LENGTH_FROM = 12
_NO_KEY = written(-1)
_PLACES = tuple(b"\0\0" + place for place in WRITTEN)
"""Attributes, the distance in time and the place of a record, by its place."""

_names: dict[str, bytes] = {}


def _shared(headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the number of `headers`, and how they are written."""
    return len(headers), b"".join([_name(name) + _value(value) for name, value in headers.items()])


def _name(name: str) -> bytes:
    written = _names.get(name)
    if written is None:
        if len(_names) >= KEPT:
            _names.clear()
        written = _names[name] = _value(name)
    return written


def _value(value: str) -> bytes:
    data = value.encode()
    return length(len(data)) + data


def _bytes(data: bytes | None) -> bytes:
    return written(-1) if data is None else length(len(data)) + data


class RecordBatch:
    """Takes records until there is no room for one more; the first is always taken.

    What aiokafka's accumulator and sender call has the names that it has there.
    """

    __slots__ = ("_codec", "_count", "_limit", "_millis", "_parts", "_producer", "_size", "_whole")

    def __init__(self, limit: int, millis: int, compression: str | None = None) -> None:
        self._limit = limit
        self._millis = millis
        self._codec = CODECS[compression] if compression is not None else None
        self._parts: list[bytes] = []
        self._size = _FRAME.size + _HEAD.size
        self._count = 0
        self._producer = (-1, -1, 0)
        self._whole: bytes | None = None

    def add(self, record: Record) -> bool:
        """Take `record`, if there is room."""
        if record.original is not None:
            return self._add_copy(record)
        count, shared = record.common.encoded(_shared)
        own = record.own
        count += len(own)
        headers = [WRITTEN[count] if count < SMALL else length(count), shared]
        for name, value in own.items():
            data = value.encode()
            size = len(data)
            headers += (
                _names.get(name) or _name(name),
                WRITTEN[size] if size < SMALL else length(size),
                data,
            )
        tail = b"".join(headers)
        count, body = self._count, record.body
        head = _PLACES[count] if count < SMALL else b"\0\0" + length(count)
        key = _NO_KEY if record.key is None else _value(record.key)
        size = len(body)
        before = WRITTEN[size] if size < SMALL else length(size)
        size += len(head) + len(key) + len(before) + len(tail)
        start = WRITTEN[size] if size < SMALL else length(size)
        size += len(start) + self._size
        if size > self._limit and count:
            return False
        self._parts += (start, head, key, before, body, tail)
        self._size = size
        self._count = count + 1
        return True

    def _add_copy(self, record: Record) -> bool:
        """As `add`, with the bytes of the message that this is a copy of."""
        headers = written_headers(record)
        parts = [_bytes(written_key(record)), _bytes(written_value(record)), length(len(headers))]
        for name, value in headers:
            parts += (_value(name), _bytes(value))
        whole = b"".join((b"\0\0", length(self._count), *parts))
        start = length(len(whole))
        size = self._size + len(start) + len(whole)
        if size > self._limit and self._count:
            return False
        self._parts += (start, whole)
        self._size = size
        self._count += 1
        return True

    def append(self, **_: Any) -> None:
        """No: it is not for what others send by the same producer."""

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """It is."""

    def size(self) -> int:
        return self._size

    def record_count(self) -> int:
        return self._count

    def _set_producer_state(self, producer: int, epoch: int, sequence: int) -> None:
        self._producer = (producer, epoch, sequence)

    def _build(self) -> bytes:
        if self._whole is None:
            self._whole = self._joined()
            self._parts = []
        return self._whole

    def _joined(self) -> bytes:
        codec, parts = 0, self._parts
        if self._codec is not None:
            codec, parts = _packed(parts, *self._codec)
        millis, count = self._millis, self._count
        head = _HEAD.pack(codec, count - 1, millis, millis, *self._producer, count)
        checked = b"".join([head, *parts])
        size = len(checked) + _FRAME.size - _LENGTH_FROM
        return _FRAME.pack(0, size, -1, 2, crc32c(checked)) + checked


def _packed(
    parts: list[bytes], codec: int, pack: Callable[[bytes], bytes]
) -> tuple[int, list[bytes]]:
    plain = b"".join(parts)
    packed = pack(plain)
    return (codec, [packed]) if len(packed) < len(plain) else (0, [plain])
