"""`BatchWriter`: encodes records of one partition as a record batch (message format 2).

It takes the place of aiokafka's `BatchBuilder` in `send_batch()`, which takes every header as a
pair. Here the headers that records share are encoded once, not once a record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from anymq.driver import Record

from ..messages import raw_headers, raw_key, raw_value
from .codec import CODECS, SMALL, VARINTS, encode_length, encode_varint
from .compat import crc32c

MAX_CACHED_NAMES = 512
"""Encoded header names that are cached. One more clears the cache."""

# Base offset, length, leader epoch, magic, checksum. The checksum covers all that follows it.
_FRAME = struct.Struct(">qiibI")
_HEAD = struct.Struct(">hiqqqhii")
_LENGTH_FROM = 12
_NONE = encode_varint(-1)
_STARTS = tuple(b"\0\0" + index for index in VARINTS)
"""The attributes, time difference and index of a record, by its index in the batch."""

_names: dict[str, bytes] = {}


def _encode_shared(headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the number of `headers`, and their encoding."""
    return len(headers), b"".join([_name(name) + _text(value) for name, value in headers.items()])


def _name(name: str) -> bytes:
    encoded = _names.get(name)
    if encoded is None:
        if len(_names) >= MAX_CACHED_NAMES:
            _names.clear()
        encoded = _names[name] = _text(name)
    return encoded


def _text(value: str) -> bytes:
    data = value.encode()
    return encode_length(len(data)) + data


def _bytes(data: bytes | None) -> bytes:
    return _NONE if data is None else encode_length(len(data)) + data


class BatchWriter:
    """A record batch under construction. The first record always fits.

    The methods without a docstring are those that aiokafka's accumulator and sender call.
    """

    __slots__ = (
        "_codec",
        "_count",
        "_encoded",
        "_limit",
        "_parts",
        "_producer",
        "_size",
        "_timestamp_ms",
    )

    def __init__(self, limit: int, timestamp_ms: int, compression: str | None = None) -> None:
        self._limit = limit
        self._timestamp_ms = timestamp_ms
        self._codec = CODECS[compression] if compression is not None else None
        self._parts: list[bytes] = []
        self._size = _FRAME.size + _HEAD.size
        self._count = 0
        self._producer = (-1, -1, 0)
        self._encoded: bytes | None = None

    def add(self, record: Record) -> bool:
        """Add `record` and return True, or return False if the batch has no room for it."""
        if record.original is not None:
            return self._add_copy(record)
        count, shared = record.common.encoded(_encode_shared)
        own = record.own
        count += len(own)
        headers = [VARINTS[count] if count < SMALL else encode_length(count), shared]
        for name, value in own.items():
            data = value.encode()
            size = len(data)
            headers += (
                _names.get(name) or _name(name),
                VARINTS[size] if size < SMALL else encode_length(size),
                data,
            )
        tail = b"".join(headers)
        count, body = self._count, record.body
        head = _STARTS[count] if count < SMALL else b"\0\0" + encode_length(count)
        key = _NONE if record.key is None else _text(record.key)
        size = len(body)
        body_size = VARINTS[size] if size < SMALL else encode_length(size)
        size += len(head) + len(key) + len(body_size) + len(tail)
        record_size = VARINTS[size] if size < SMALL else encode_length(size)
        size += len(record_size) + self._size
        if size > self._limit and count:
            return False
        self._parts += (record_size, head, key, body_size, body, tail)
        self._size = size
        self._count = count + 1
        return True

    def _add_copy(self, record: Record) -> bool:
        """Add a copy with the key, body and header bytes of its original."""
        headers = raw_headers(record)
        parts = [_bytes(raw_key(record)), _bytes(raw_value(record)), encode_length(len(headers))]
        for name, value in headers:
            parts += (_text(name), _bytes(value))
        encoded = b"".join((b"\0\0", encode_length(self._count), *parts))
        record_size = encode_length(len(encoded))
        size = self._size + len(record_size) + len(encoded)
        if size > self._limit and self._count:
            return False
        self._parts += (record_size, encoded)
        self._size = size
        self._count += 1
        return True

    def append(self, **_: Any) -> None:
        """Add nothing: records that others send through the same producer need another batch."""

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: this batch counts as closed from the start."""

    def size(self) -> int:
        return self._size

    def record_count(self) -> int:
        return self._count

    def _set_producer_state(self, producer: int, epoch: int, sequence: int) -> None:
        self._producer = (producer, epoch, sequence)

    def _build(self) -> bytes:
        if self._encoded is None:
            self._encoded = self._encode()
            self._parts = []
        return self._encoded

    def _encode(self) -> bytes:
        codec, parts = 0, self._parts
        if self._codec is not None:
            codec, parts = _compressed(parts, *self._codec)
        timestamp_ms, count = self._timestamp_ms, self._count
        head = _HEAD.pack(codec, count - 1, timestamp_ms, timestamp_ms, *self._producer, count)
        checked = b"".join([head, *parts])
        size = len(checked) + _FRAME.size - _LENGTH_FROM
        return _FRAME.pack(0, size, -1, 2, crc32c(checked)) + checked


def _compressed(
    parts: list[bytes], codec: int, compress: Callable[[bytes], bytes]
) -> tuple[int, list[bytes]]:
    plain = b"".join(parts)
    compressed = compress(plain)
    return (codec, [compressed]) if len(compressed) < len(plain) else (0, [plain])
