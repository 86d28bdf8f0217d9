"""Kafka's numbers of variable length: seven bits a byte, the sign in the lowest."""

from __future__ import annotations


def written(value: int) -> bytes:
    """Return `value` as it is written."""
    left = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def read(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at `place`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return (value >> 1) ^ -(value & 1), place
        shift += 7


SMALL = 4096
WRITTEN = tuple(map(written, range(SMALL)))
"""The numbers that occur everywhere: lengths, and places in a batch."""


def length(size: int) -> bytes:
    """Return a length, that is no negative number, as it is written."""
    return WRITTEN[size] if size < SMALL else written(size)
