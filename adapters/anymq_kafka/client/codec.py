"""`unpacked`: what a compressed batch holds, if that is no more than is allowed.

aiokafka unpacks a batch whole, whatever its size becomes: less than a megabyte can be a gigabyte.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

from .internals import cramjam

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
_FIRST, _RATIO, _GROWTH = 64 * 1024, 4, 4
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEAD = 16
_BLOCK = struct.Struct(">i")
_GZIP_WINDOW = 31


class TooLarge(Exception):
    """There is more in it than is allowed."""


def unpacked(codec: int, data: bytes, limit: int) -> bytes:
    """Unpack `data`. Raises `TooLarge` above `limit` bytes, which it never takes.

    Raises what the codec's library raises where `data` is damaged.
    """
    if codec == GZIP:
        return _gzip(data, limit)
    if codec == SNAPPY:
        return _snappy(data, limit)
    return _grown(cramjam.lz4 if codec == LZ4 else cramjam.zstd, data, limit)


def _gzip(data: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while data:
        member = zlib.decompressobj(_GZIP_WINDOW)
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
        return _block(data, limit)
    parts: list[bytes] = []
    place = _XERIAL_HEAD
    while place < len(data):
        (size,) = _BLOCK.unpack_from(data, place)
        place += _BLOCK.size
        parts.append(_block(data[place : place + size], limit))
        limit -= len(parts[-1])
        place += size
    return b"".join(parts)


def _block(data: bytes, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > limit:
        raise TooLarge
    return bytes(cramjam.snappy.decompress_raw(data))


def _grown(library: Any, data: bytes, limit: int) -> bytes:
    """Unpack into a buffer that is tried larger and larger: the size is not always written."""
    size = max(_FIRST, _RATIO * len(data))
    while True:
        room = bytearray(min(size, limit))
        try:
            length = library.decompress_into(data, room)
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if size >= limit:
                raise TooLarge from error
            size *= _GROWTH
        else:
            return bytes(memoryview(room)[:length])
