"""`RecordBatch`: records of one partition, encoded as they are stored (message format 2).

Takes the place of aiokafka's `BatchBuilder`, which wants every header as a pair: what records have
in common is encoded once here, not once a record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anymq.driver import Record

from .aio import CODECS, crc32c
from .varint import SMALL, WRITTEN, length, written

KEPT = 512
"""How many encoded names and common headers are remembered, before all are forgotten."""

# Base offset, length, leader epoch, magic, checksum; what the checksum is of follows.
_FRAME = struct.Struct(">qiibI")
_HEAD = struct.Struct(">hiqqqhii")
_LENGTH_FROM = 12
_NO_KEY = written(-1)
_PLACES = tuple(b"\0\0" + place for place in WRITTEN)
"""Attributes, the distance in time and the place of a record, by its place."""

Common = tuple[Mapping[str, str], int, bytes]

_commons: dict[int, Common] = {}
_names: dict[str, bytes] = {}


def _common_of(headers: Mapping[str, str]) -> Common:
    """Return `headers`, their number, and how they are written; the same ones again at once."""
    known = _commons.get(id(headers))
    if known is None:
        if len(_commons) >= KEPT:
            _commons.clear()
        written = b"".join([_name(name) + _value(value) for name, value in headers.items()])
        known = _commons[id(headers)] = (headers, len(headers), written)
    return known


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


class RecordBatch:
    """Takes records until there is no room for one more; the first is always taken.

    Others may follow until aiokafka takes it to send it. What its accumulator and sender call has
    the names that it has there.
    """

    __slots__ = (
        "_codec",
        "_count",
        "_first",
        "_last",
        "_limit",
        "_parts",
        "_producer",
        "_sealed",
        "_size",
        "_whole",
    )

    def __init__(self, limit: int, compression: str | None = None) -> None:
        self._limit = limit
        self._codec = CODECS[compression] if compression is not None else None
        self._parts: list[bytes] = []
        self._size = _FRAME.size + _HEAD.size
        self._count = 0
        self._first = self._last = 0
        self._producer = (-1, -1, 0)
        self._sealed = False
        self._whole: bytes | None = None

    def extend(self, records: Sequence[Record], millis: int) -> int:
        """Take of `records`, which are of the time `millis`, as many as there is room for; return
        how many. None once the batch is being sent."""
        if self._sealed:
            return 0
        if not self._count:
            self._first = self._last = millis
        last = max(self._last, millis)
        later = last - self._first
        mark = b"\0" + length(later)
        begin = count = self._count
        used, limit, parts = self._size, self._limit, self._parts
        commons, names, numbers = _commons, _names, WRITTEN
        for record in records:
            common = commons.get(id(record.common)) or _common_of(record.common)
            own, body, key = record.own, record.body, record.key
            size = common[1] + len(own)
            headers = [numbers[size] if size < SMALL else length(size), common[2]]
            for name, value in own.items():
                data = value.encode()
                size = len(data)
                headers += (
                    names.get(name) or _name(name),
                    numbers[size] if size < SMALL else length(size),
                    data,
                )
            tail = b"".join(headers)
            head = mark + length(count) if later or count >= SMALL else _PLACES[count]
            its_key = _NO_KEY if key is None else _value(key)
            size = len(body)
            before = numbers[size] if size < SMALL else length(size)
            size += len(head) + len(its_key) + len(before) + len(tail)
            start = numbers[size] if size < SMALL else length(size)
            size += len(start) + used
            if size > limit and count:
                break
            parts += (start, head, its_key, before, body, tail)
            self._size = used = size
            self._last = last
            count += 1
            self._count = count
        return count - begin

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
        self._sealed = True  # its records have been counted
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
        first, last, count = self._first, self._last, self._count
        head = _HEAD.pack(codec, count - 1, first, last, *self._producer, count)
        checked = b"".join([head, *parts])
        size = len(checked) + _FRAME.size - _LENGTH_FROM
        return _FRAME.pack(0, size, -1, 2, crc32c(checked)) + checked


def _packed(
    parts: list[bytes], codec: int, pack: Callable[[bytes], bytes]
) -> tuple[int, list[bytes]]:
    plain = b"".join(parts)
    packed = pack(plain)
    return (codec, [packed]) if len(packed) < len(plain) else (0, [plain])
