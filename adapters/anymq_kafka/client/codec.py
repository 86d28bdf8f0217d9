"""Encodings inside a record batch: numbers of variable length, and compression.

aiokafka decompresses a batch whole, whatever its size becomes: less than a megabyte can become a
gigabyte. `decompress` stops at a limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from .compat import (
    cramjam,
    gzip_encode,
    has_lz4,
    has_snappy,
    has_zstd,
    lz4_encode,
    snappy_encode,
    zstd_encode,
)

MAX_DECOMPRESSED = 128 * 1024 * 1024
"""Bytes that a batch may decompress to, by default."""

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (GZIP, gzip_encode),
    "snappy": (SNAPPY, snappy_encode),
    "lz4": (LZ4, lz4_encode),
    "zstd": (ZSTD, zstd_encode),
}
"""By the name of a compression: its number in a batch, and the function that compresses."""
PACKAGED: dict[int, tuple[str, Callable[[], bool]]] = {
    SNAPPY: ("snappy", has_snappy),
    LZ4: ("lz4", has_lz4),
    ZSTD: ("zstd", has_zstd),
}
"""By the number of a compression that needs a package: its name, and whether it is installed."""

_FIRST_BUFFER_BYTES, _EXPECTED_RATIO, _BUFFER_GROWTH = 64 * 1024, 4, 4
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEAD_BYTES = 16
_BLOCK = struct.Struct(">i")
_GZIP_WINDOW_BITS = 31


def encode_varint(value: int) -> bytes:
    """Return `value` in Kafka's encoding: seven bits a byte, zigzag with the sign in the lowest."""
    left = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def decode_varint(data: bytes, index: int) -> tuple[int, int]:
    """Return the number that begins at `index`, and the index after it."""
    value = shift = 0
    while True:
        byte = data[index]
        index += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return (value >> 1) ^ -(value & 1), index
        shift += 7


SMALL = 4096
VARINTS = tuple(map(encode_varint, range(SMALL)))
"""The encoded numbers below `SMALL`: most lengths, and indexes in a batch."""


def encode_length(size: int) -> bytes:
    """Return the encoding of `size`, which is not negative."""
    return VARINTS[size] if size < SMALL else encode_varint(size)


class TooLarge(Exception):
    """The data decompresses to more than the limit."""


def decompress(codec: int, data: bytes, limit: int) -> bytes:
    """Decompress `data`. Raises `TooLarge` above `limit` bytes, and never allocates more.

    Raises the error of the compression library if `data` is damaged.
    """
    if codec == GZIP:
        return _gzip(data, limit)
    if codec == SNAPPY:
        return _snappy(data, limit)
    return _in_growing_buffer(cramjam.lz4 if codec == LZ4 else cramjam.zstd, data, limit)


def _gzip(data: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while data:
        member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        part = member.decompress(data, left + 1)
        if len(part) > left:
            raise TooLarge
        if not member.eof:
            raise EOFError("the batch ends within its gzip")
        parts.append(part)
        left -= len(part)
        data = member.unused_data
    return b"".join(parts)


def _snappy(data: bytes, limit: int) -> bytes:
    if not data.startswith(_XERIAL):
        return _snappy_block(data, limit)
    parts: list[bytes] = []
    index = _XERIAL_HEAD_BYTES
    while index < len(data):
        (size,) = _BLOCK.unpack_from(data, index)
        index += _BLOCK.size
        parts.append(_snappy_block(data[index : index + size], limit))
        limit -= len(parts[-1])
        index += size
    return b"".join(parts)


def _snappy_block(data: bytes, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > limit:
        raise TooLarge
    return bytes(cramjam.snappy.decompress_raw(data))


def _in_growing_buffer(library: Any, data: bytes, limit: int) -> bytes:
    """Decompress into larger and larger buffers: the data does not always state its size."""
    size = max(_FIRST_BUFFER_BYTES, _EXPECTED_RATIO * len(data))
    while True:
        buffer = bytearray(min(size, limit))
        try:
            length = library.decompress_into(data, buffer)
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if size >= limit:
                raise TooLarge from error
            size *= _BUFFER_GROWTH
        else:
            return bytes(memoryview(buffer)[:length])
